"""Resume: k steps, kill -9, k steps more end with the same bits as 2k steps without a break.

Three processes train the run's own recipe on its own rows for a few steps, in a scratch folder: one to the end, one
that kills itself in the step behind its checkpoint, and one that goes on from there. Weights and optimizer state are
compared by their bits on a CPU; on a GPU, whose sums come in any order, within ``GPU_TOLERANCE``.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tunewright import rundir
from tunewright.errors import RunError
from tunewright.recipe.dump import dump
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.rundir import RunDir
from tunewright.settings import settings
from tunewright.text import _
from tunewright.train import checkpoints
from tunewright.verify.proof import Proof, failed, not_applicable, passed
from tunewright.verify.subject import Subject

NAME = "resume"
STEPS = 2  # k; one where a step takes long
LONG_STEP = 10.0  # seconds
LONGEST_STEP = 30.0  # seconds; a larger batch is made smaller, which is said
GPU_TOLERANCE = 1e-3  # of a tensor's largest value


@dataclass(frozen=True)
class Slice:
    """k steps of ``recipe``, twice."""

    recipe: Recipe
    k: int
    smaller: str = ""


@dataclass
class _Compared:
    tensors: int = 0
    numbers: int = 0
    largest: float = 0.0  # difference, as a share of the tensor's largest value
    equal: bool = True
    first: str = ""  # tensor that differs
    hashes: tuple[str, str] = ("", "")


def prove(subject: Subject) -> Proof:
    part = _slice(subject)
    if part is None:
        return not_applicable(NAME, _("the run has one step, so there is nothing to go on with"))
    parent = settings().cache / "verify"
    with rundir.writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=parent))
    try:
        with subject.listener.doing(_("Training, killing, going on"), 3) as progress:
            whole = _started(scratch / "whole", part)
            _run(whole)
            progress(1)
            broken = _started(scratch / "broken", part)
            _run(broken, die_after=part.k + 1)
            progress(1)
            _run(broken)
            progress(1)
        return _judged(part, whole, broken)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _slice(subject: Subject) -> Slice | None:
    """As few steps as show it, and on a run whose steps are long fewer and smaller ones."""
    recipe, lines = subject.ready.recipe, rundir.read_lines(subject.run.file(rundir.METRICS))
    with subject.run.reading(rundir.METRICS):
        seconds = [line["tokens"] / line["tokens_per_second"] for line in lines if line.get("tokens_per_second")]
    step = statistics.median(seconds) if seconds else 0.0
    k = min(1 if step > LONG_STEP else STEPS, len(lines) // 2)
    if not k:
        return None
    values: dict[str, Any] = {"train.max_steps": 2 * k, "save.every": k, "save.keep": 1, "train.report_to": []}
    batch, smaller = recipe.train.batch_size, ""
    assert batch != "auto"
    if step > LONGEST_STEP and batch > 1:
        values["train.batch_size"] = max(1, int(batch * LONGEST_STEP / step))
        smaller = _(" (batch of {n} instead of {batch}, because a step takes {s:.0f} s)",
                    n=values["train.batch_size"], batch=batch, s=step)  # fmt: skip
    return Slice(changed(recipe, values), k, smaller)


def _started(folder: Path, part: Slice) -> RunDir:
    run = RunDir(folder)
    run.checkpoints.mkdir(parents=True)
    dump(part.recipe, {}, run.file(rundir.RECIPE))
    return run


def _run(run: RunDir, die_after: int = 0) -> None:
    """The steps in a process of their own. die_after: the step in which it kills itself. Raises RunError where it ends
    otherwise than it should."""
    words = [sys.executable, "-m", "tunewright.verify.steps", str(run), str(die_after)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace")  # fmt: skip
    if done.returncode == (-signal.SIGKILL if die_after else 0):
        return
    last = (done.stdout.strip().splitlines() or [_("exit status {code}", code=done.returncode)])[-1]
    raise RunError(
        _("a few steps of this run's recipe cannot be trained: {last}", last=last), where=str(run.file(rundir.RECIPE)),
        do=_("see what a training says"), command="tunewright train RECIPE --out FOLDER",
    )  # fmt: skip


def _judged(part: Slice, whole: RunDir, broken: RunDir) -> Proof:
    found = _compared(_last(whole, 2 * part.k), _last(broken, 2 * part.k))
    exact = not torch.cuda.is_available()
    values: dict[str, Any] = {
        "k": part.k, "tensors": found.tensors, "numbers": found.numbers, "equal": found.equal,
        "largest_difference": found.largest, "sha256": list(found.hashes), "tolerance": 0 if exact else GPU_TOLERANCE,
    }  # fmt: skip
    numbers = _("{k} steps, kill -9, {k} more = {both} steps", k=part.k, both=2 * part.k) + part.smaller
    what = _("{n:,} numbers of weights and optimizer", n=found.numbers)
    if found.equal:
        return passed(NAME, _("{numbers}: {what} equal to the bit", numbers=numbers, what=what), values)
    if not exact and found.largest <= GPU_TOLERANCE:
        numbers = _("{numbers}: {what} equal within {share:.1g} (a GPU adds in any order)", numbers=numbers, what=what,
                    share=found.largest)  # fmt: skip
        return passed(NAME, numbers, values)
    what = _("a training that was killed and went on ended elsewhere: {name} differs by {share:.2g}", name=found.first,
             share=found.largest)  # fmt: skip
    do = _("report this run; until then train without a break")
    return failed(NAME, what, str(part.recipe.name or part.recipe.data.train[0]), do, numbers, values)


def _last(run: RunDir, step: int) -> Path:
    kept, _skipped = checkpoints.newest(run.checkpoints)
    if kept is None or kept.step != step:
        raise RunError(_("a few steps of this run's recipe left no checkpoint"), where=str(run.checkpoints))
    return kept.folder


def _compared(one: Path, other: Path) -> _Compared:
    found = _Compared()
    digests = (hashlib.sha256(), hashlib.sha256())
    for (name, first), (second_name, second) in zip(_tensors(one), _tensors(other), strict=True):
        found.tensors += 1
        found.numbers += first.numel()
        for digest, tensor in zip(digests, (first, second), strict=True):
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
        if name != second_name or first.shape != second.shape or not torch.equal(first, second):
            found.equal = False
            found.first = found.first or name
            found.largest = max(found.largest, _share(first, second))
    found.hashes = (digests[0].hexdigest(), digests[1].hexdigest())
    found.equal = found.equal and found.hashes[0] == found.hashes[1]
    return found


def _share(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one.double() - other.double()).abs().max() / one.double().abs().max().clamp_min(1e-30))


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained weight, and every number that the optimizer keeps of it, in a fixed order."""
    for path in sorted(folder.glob("*.safetensors")):
        yield from sorted(load_file(str(path)).items())
    state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)["state"]
    for number in sorted(state):
        for name, value in sorted(state[number].items()):
            yield f"optimizer {number} {name}", torch.as_tensor(value)
