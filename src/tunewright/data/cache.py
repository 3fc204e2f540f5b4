"""Rendered rows kept between runs. An entry is found by a key over everything that decides its content; a damaged one
is noticed by its own hash and made again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import cache as once
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tunewright import rundir
from tunewright.data.packed import from_bytes, to_bytes
from tunewright.errors import ResourceError
from tunewright.settings import settings

_KEPT_ENTRIES = 16
_KEPT_BYTES = 4 * 2**30


@once
def code_version() -> str:
    """sha256 over this room's own source, the typed rows, and the versions of the libraries whose output is kept."""
    room = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted(room.glob("*.py")), *sorted(room.glob("*.yaml")), room.parent / "example.py"]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in ("tokenizers", "jinja2", "rensa", "numpy", "pyarrow"):
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{name}={version(name)}".encode())
    return digest.hexdigest()


def code_of(function: Callable[..., Any]) -> str:
    """Name and source of a function's module, so that a changed renderer finds no old entry."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    content = Path(file).read_bytes() if file and Path(file).is_file() else b""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}:{hashlib.sha256(content).hexdigest()}"


def key(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("utf-8")).hexdigest()[:40]


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _folder() -> Path:
    return settings().cache / "rendered"


def get(name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """The arrays and the rest of an entry; None if there is none, or if it is damaged (it is then removed)."""
    path = _folder() / f"{name}.rows"
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError("damaged")
        arrays, text = from_bytes(content[32:])
        rest = json.loads(text)
    except (ValueError, KeyError, OSError):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return arrays, rest


def put(name: str, arrays: dict[str, NDArray[Any]], rest: dict[str, Any]) -> None:
    """Written whole or not at all. A full disk costs the entry, not the run."""
    content = to_bytes(arrays, json.dumps(rest, ensure_ascii=False, default=str).encode("utf-8"))
    with contextlib.suppress(ResourceError):
        rundir.write_bytes(_folder() / f"{name}.rows", hashlib.sha256(content).digest() + content)
        _prune()


def _prune() -> None:
    """Forget the entries that were used longest ago."""
    entries: list[tuple[float, int, Path]] = []
    for path in _folder().glob("*.rows"):
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    size = 0
    for number, (_used, bytes_, path) in enumerate(sorted(entries, reverse=True), start=1):
        size += bytes_
        if number > 1 and (number > _KEPT_ENTRIES or size > _KEPT_BYTES):
            with contextlib.suppress(OSError):
                path.unlink()
