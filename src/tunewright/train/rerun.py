"""A finished run once more, from nothing but its folder, and whether the two are the same to the bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tunewright import rundir
from tunewright.errors import RunError
from tunewright.recipe.load import load
from tunewright.rundir import RunDir
from tunewright.text import _
from tunewright.train.events import Listener
from tunewright.train.manifest import differing
from tunewright.train.run import train

TIMED = {"tokens_per_second"}  # of a step's line: what depends on how busy the machine was


@dataclass(frozen=True)
class Part:
    """One thing that was compared. says: how much of it, or the first place where the two differ.  note: it may
    explain a difference, and is none itself."""

    name: str
    same: bool
    says: str
    note: bool = False


@dataclass(frozen=True)
class Compared:
    run: RunDir
    again: RunDir
    parts: tuple[Part, ...]

    @property
    def first(self) -> Part | None:
        """What differs first, in the order in which one thing follows from another."""
        return next((part for part in self.parts if not part.same and not part.note), None)

    def as_dict(self) -> dict[str, Any]:
        differs = None if self.first is None else {"name": self.first.name, "says": self.first.says}
        return {
            "run": str(self.run), "again": str(self.again), "same": self.first is None, "differs_first": differs,
            "parts": [asdict(part) for part in self.parts],
        }  # fmt: skip


def rerun(run: RunDir, out: str | os.PathLike[str] | None = None, listener: Listener | None = None) -> Compared:
    """Train ``run`` again with its own recipe, data and base, into a new folder, and compare the two.

    Raises RunError if the run is not finished, or if its base, data, template or recipe have changed since.
    """
    state = run.status().get("state")
    if state != "done":
        raise RunError(
            _("this run is not finished: {state}", state=state), where=str(run),
            do=_("finish it first"), command=f"tunewright resume {run}",
        )  # fmt: skip
    again = train(load(run.file(rundir.RECIPE)), out, listener, like=run)
    return Compared(run, again, tuple(_parts(run, again)))


def _parts(run: RunDir, again: RunDir) -> Iterator[Part]:
    one, other = (each.manifest() for each in (run, again))
    for name in ("versions", "hardware"):
        yield replace(_values(name, one[name], other[name]), note=True)
    for name in ("recipe", "data", "template"):
        same = one[f"{name}_sha256"] == other[f"{name}_sha256"]
        yield Part(name, same, "sha256 " + other[f"{name}_sha256"][:12])
    yield Part("base", one["base"]["sha256"] == other["base"]["sha256"], "sha256 " + other["base"]["sha256"][:12])
    first, second = (rundir.read_json(each.file(rundir.EVALUATION)) for each in (run, again))
    yield _measured("before", first["before"], second["before"])
    yield _steps(run, again)
    yield _weights(run.path, again.path)
    yield _measured("after", first["after"], second["after"])
    yield _rows(first.get("rows", []), second.get("rows", []))


def _values(name: str, one: dict[str, Any], other: dict[str, Any]) -> Part:
    changed = differing(one, other, values=True)
    return Part(name, not changed, changed[0] if changed else _("{count} entries", count=len(other)))


def _measured(name: str, one: dict[str, Any], other: dict[str, Any]) -> Part:
    """Metrics, each of them a value with its interval."""
    plain, again = (
        {metric: given.get("value") if isinstance(given, dict) else given for metric, given in each.items()}
        for each in (one, other)
    )
    return _values(name, plain, again) if plain != again else _values(name, one, other)


def _steps(run: RunDir, again: RunDir) -> Part:
    one, other = (rundir.read_lines(each.file(rundir.METRICS)) for each in (run, again))
    for line, its in zip(one, other, strict=False):
        for key in line | its:
            if key not in TIMED and line.get(key) != its.get(key):
                return Part("steps", False, _("step {step}: {key} was {one}, is {other}", step=line.get("step"),
                                              key=key, one=line.get(key), other=its.get(key)))  # fmt: skip
    if len(one) != len(other):
        return Part("steps", False, _("{one} steps, now {other}", one=len(one), other=len(other)))
    return Part("steps", True, _("{count} lines of loss and gradient", count=len(one)))


def _weights(run: Path, again: Path) -> Part:
    one, other = _trained(run), _trained(again)
    if one.keys() != other.keys():
        return Part("weights", False, _("{name} is in one of them only", name=min(one.keys() ^ other.keys())))
    apart = [name for name in one if not torch.equal(one[name], other[name])]
    if not apart:
        return Part("weights", True, _("{count} tensors, bit for bit", count=len(one)))
    name = apart[0]
    if one[name].shape != other[name].shape:
        return Part("weights", False, _("{name} has another shape", name=name))
    size = float((one[name].double() - other[name].double()).abs().max())
    return Part("weights", False, _("{apart} of {count} tensors differ; {name} by at most {size:.3g}",
                                    apart=len(apart), count=len(one), name=name, size=size))  # fmt: skip


def _trained(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for folder in (rundir.ADAPTER, rundir.MODEL):
        for path in sorted((run / folder).glob("*.safetensors")):
            found |= load_file(str(path))
    return found


def _rows(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> Part:
    apart = [number for number, (row, its) in enumerate(zip(one, other, strict=False), start=1) if row != its]
    if not apart and len(one) == len(other):
        return Part("answers", True, _("{count} rows, each with what it was given", count=len(one)))
    place = apart[0] if apart else min(len(one), len(other)) + 1
    return Part("answers", False, _("held-out row {number} differs", number=place))
