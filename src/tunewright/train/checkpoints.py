"""Checkpoints that are whole or do not count.

A checkpoint is written into ``checkpoints/.saving``, gets a ``complete.json`` with the hash of each of its files, and
is then renamed to ``checkpoints/step-N``. Whatever a crash leaves behind is noticed, named and skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import RunError
from tunewright.rundir import read_json, write_json
from tunewright.text import _

COMPLETE = "complete.json"
SAVING = ".saving"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    folder: Path
    step: int
    token_budget: int


def finish(staging: Path, checkpoints: Path, step: int, token_budget: int) -> Checkpoint:
    """Seal what was written into ``staging`` and give it its name."""
    files = {str(p.relative_to(staging)): _sha256(p) for p in sorted(staging.rglob("*")) if p.is_file()}
    for name in files:
        with open(staging / name, "rb") as file:
            os.fsync(file.fileno())
    seal = {"step": step, "token_budget": token_budget, "files": files}
    write_json(staging / COMPLETE, seal | {"sha256": _sha256_of_seal(seal)})
    final = checkpoints / f"step-{step}"
    shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step, from before a resume
    os.replace(staging, final)
    return Checkpoint(final, step, token_budget)


def newest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and a sentence on each newer one that is not whole."""
    skipped: list[str] = []
    if (checkpoints / SAVING).exists():
        skipped.append(_("{folder}: half-written when the run ended; skipped", folder=checkpoints / SAVING))
    for folder in sorted(_folders(checkpoints), key=_step, reverse=True):
        damage = _damage(folder)
        if damage is None:
            seal = read_json(folder / COMPLETE)
            return Checkpoint(folder, int(seal["step"]), int(seal["token_budget"])), skipped
        skipped.append(_("{folder}: {damage}; skipped", folder=folder, damage=damage))
    return None, skipped


def damaged(checkpoints: Path) -> list[str]:
    """A sentence on each checkpoint whose files are not those that were sealed."""
    found = ((folder, _damage(folder)) for folder in sorted(_folders(checkpoints), key=_step))
    return [f"{folder.name}: {damage}" for folder, damage in found if damage is not None]


def prune(checkpoints: Path, keep: int) -> None:
    for folder in sorted(_folders(checkpoints), key=_step, reverse=True)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


def _damage(folder: Path) -> str | None:
    try:
        seal: dict[str, Any] = read_json(folder / COMPLETE)
        files = dict(seal["files"])
        whole = int(seal["step"]) == _step(folder) and int(seal["token_budget"]) > 0
        whole &= seal.get("sha256") in (None, _sha256_of_seal(seal))  # checkpoints of before had none
    except (RunError, KeyError, TypeError, ValueError):
        return _("has no readable {name}, so it is half-written", name=COMPLETE)
    if not whole:
        return _("{name} is damaged", name=COMPLETE)
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            return _("{name} is missing", name=name)
        if _sha256(path) != digest:
            return _("{name} is damaged", name=name)
    return None


def _folders(checkpoints: Path) -> list[Path]:
    return [p for p in checkpoints.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _sha256_of_seal(seal: dict[str, Any]) -> str:
    said = {name: value for name, value in seal.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
