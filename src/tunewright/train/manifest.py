"""What a run was made of, written before training, and whether it still is."""

from __future__ import annotations

import hashlib
import platform
import resource
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunewright import __version__, rundir
from tunewright.data.prepare import Prepared
from tunewright.data.texts import given
from tunewright.errors import RunError
from tunewright.model import hashes
from tunewright.model.source import Base
from tunewright.recipe.dump import text
from tunewright.recipe.schema import Recipe
from tunewright.rundir import RunDir
from tunewright.text import _

if TYPE_CHECKING:
    from tunewright.train.settle import Settled

VERSIONS = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")


def manifest(recipe: Recipe, base: Base, prepared: Prepared) -> dict[str, Any]:
    return {
        "tunewright": __version__,
        "base": {
            "name": base.name, "source": base.source, "folder": str(base.folder), "sha256": base.sha256,
            "files": base.files,
        },
        "data": prepared.files,
        "data_sha256": prepared.data_sha256,
        "format": {"name": prepared.format_name, "reason": prepared.format_reason},
        "labels": list(prepared.labels),
        "texts": _texts(prepared),
        "template_sha256": prepared.codec.sha256,
        "template_notes": list(prepared.codec.notes),
        "recipe_sha256": hashlib.sha256(text(recipe, {}).encode()).hexdigest(),
        "recipe": flat(recipe),
        "seed": recipe.seed,
        "versions": versions(),
        "hardware": {
            "machine": platform.machine(), "system": f"{platform.system()} {platform.release()}",
            "threads": torch.get_num_threads(), "device": _device_name(),
        },
        "started": now(),
    }  # fmt: skip


def _texts(prepared: Prepared) -> int:
    """How many texts a labelled row has; 0 where rows have no labels."""
    if not prepared.labels or not prepared.train_chats:
        return 0
    return 1 if given(prepared.train_chats[0])[1] is None else 2


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide numbers."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}}


def note_trained(run: RunDir, folder: Path, settled: Settled | None = None) -> None:
    """Add the hash of each file that the run ends with, so that ``verify`` can tell whether they still are those, and
    how large the adapter stayed, where that was chosen."""
    files = {f"{folder.name}/{path.name}": hashes.sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    stored, more = run.manifest(), {"settled": settled.as_dict()} if settled else {}
    rundir.write_json(run.file(rundir.MANIFEST), stored | {"trained": files, **more})


def require_same(run: RunDir, current: dict[str, Any]) -> None:
    """Raises RunError, with what differs, unless base, data, template and recipe are those the run began with."""
    then = run.manifest()
    for what, same, difference in (
        (_("the base"), then["base"]["sha256"] == current["base"]["sha256"],
         differing(then["base"]["files"], current["base"]["files"])),
        (_("the data"), then["data_sha256"] == current["data_sha256"],
         differing(_data_hashes(then), _data_hashes(current))),
        (_("the template"), then["template_sha256"] == current["template_sha256"], []),
        (_("the recipe"), then["recipe_sha256"] == current["recipe_sha256"],
         differing(then["recipe"], current["recipe"], values=True)),
    ):  # fmt: skip
        if not same:
            raise RunError(
                _("{what} is not what it was when the run began", what=what),
                where=f"{run}: " + "; ".join(difference or [what]),
                do=_("bring it back, or train anew"), command="tunewright train " + str(run.file(rundir.RECIPE)),
            )  # fmt: skip


def _data_hashes(stored: dict[str, Any]) -> dict[str, str]:
    return {file["path"]: f"{file['sha256']}, {file['rows']}" for file in stored["data"]}


def differing(then: dict[str, Any], now: dict[str, Any], values: bool = False) -> list[str]:
    """One piece of text for each name whose value changed; the values themselves only if they say something."""
    names = [name for name in (then | now) if then.get(name) != now.get(name)]
    if values:
        return [_("{name} was {then}, is {now}", name=name, then=then.get(name), now=now.get(name)) for name in names]
    return [_("{name} has changed", name=name) for name in names]


def flat(recipe: Recipe) -> dict[str, Any]:
    """Dotted keys and their values."""
    values: dict[str, Any] = {}
    for name, value in recipe.model_dump(mode="json").items():
        values |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return values


def peak_memory() -> int:
    """Bytes: of the device on a GPU, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    told = Path("/proc/cpuinfo")
    for line in told.read_text(errors="replace").splitlines() if told.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
