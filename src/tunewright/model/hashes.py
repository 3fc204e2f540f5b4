"""Which files make a base, and what their bytes are.

A base's hash covers everything that decides what the model computes from a conversation: weights, config, tokenizer,
template and generation settings. A README or a picture beside them does not change the base.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.errors import ResourceError
from tunewright.settings import settings

CHUNK = 1 << 20

NAMES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "target_vocab.json", "chat_template.jinja",
    "chat_template.json", "model.safetensors.index.json",
)  # fmt: skip
SUFFIXES = (".model", ".spm", ".tiktoken")
POOLING = "1_Pooling/config.json"  # of a sentence encoder; decides how a new head reads it


def is_base_file(name: str) -> bool:
    """``consolidated*.safetensors`` is a second copy of the weights in another naming that some hubs carry."""
    weights = name.endswith(".safetensors") and not name.startswith(("consolidated", "adapter"))
    return weights or name in NAMES or name.endswith(SUFFIXES)


def sha256(path: Path) -> str:
    """Hash of a file's bytes, always read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def remembered(path: Path) -> str:
    """``sha256(path)``, from memory where size and time of change are the same as when it was last read."""
    return _remembered([path])[0]


def folder_hashes(folder: Path) -> dict[str, str]:
    """Hash of each file that makes the base, by name."""
    paths = sorted(p for p in (*folder.iterdir(), folder / POOLING) if p.is_file() and _counts(p, folder))
    return dict(zip((str(p.relative_to(folder)) for p in paths), _remembered(paths), strict=True))


def _counts(path: Path, folder: Path) -> bool:
    return is_base_file(path.name) or path == folder / POOLING


def fingerprint(files: dict[str, str]) -> str:
    """One hash for a base: of the sorted lines ``<sha256>  <file name>``."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _remembered(paths: list[Path]) -> list[str]:
    memo_file = settings().cache / "hashes.json"
    memo: dict[str, list[int | str]] = {}
    with contextlib.suppress(OSError, ValueError):
        memo = dict(json.loads(memo_file.read_text(encoding="utf-8")))
    result: list[str] = []
    learned = False
    for path in paths:
        real = path.resolve()
        now = os.stat(real)
        known = memo.get(str(real))
        if known and len(known) == 3 and known[:2] == [now.st_size, now.st_mtime_ns]:
            result.append(str(known[2]))
            continue
        digest = sha256(real)
        memo[str(real)] = [now.st_size, now.st_mtime_ns, digest]
        result.append(digest)
        learned = True
    if learned:
        with contextlib.suppress(ResourceError):  # a memo is a convenience; the hashes are right without it
            rundir.write_json(memo_file, memo)
    return result


def safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Names, dtypes and shapes in a safetensors file, without reading a weight.

    Raises ValueError, naming what does not fit, if the file is cut off or is no safetensors file.
    Layout: 8 bytes little-endian length N, N bytes of JSON, then the data.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, 100_000_000):
            raise ValueError(f"{size:,} bytes, and no whole header")
        try:
            header = json.loads(file.read(length))
            tensors = {k: dict(v) for k, v in header.items() if k != "__metadata__"}
            end = max((int(v["data_offsets"][1]) for v in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError("its header is not readable") from None
    if size != 8 + length + end:
        raise ValueError(f"{size:,} bytes, and its header promises {8 + length + end:,}")
    return tensors
