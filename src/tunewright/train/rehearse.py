"""The longest step, one evaluation batch and one save, for real, before step 1.

What runs out of memory or disk after hours elsewhere runs out here in the first seconds. Nothing is left of it:
weights, gradients, optimizer, random numbers and the run folder are afterwards what they were, so that a run ends with
the same bytes as one that was not rehearsed.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from tunewright import rundir
from tunewright.errors import ResourceError
from tunewright.example import Rendered
from tunewright.model import derived
from tunewright.model.fast import give_back_memory
from tunewright.text import _
from tunewright.train.batches import Steps
from tunewright.train.forecast import Plan, cut, largest, pads
from tunewright.train.ready import Ready
from tunewright.train.space import Change, DoesNotFit, Room, does_not_fit, room, smaller_budgets, smallest_change
from tunewright.train.trainer import StepTrainer, is_out_of_memory

FOLDER = ".rehearsal"
EVERY = 0.003  # seconds between two looks at this process's memory


@dataclass(frozen=True)
class Rehearsed:
    """memory_bytes: the peak of step, evaluation and save.  step: its number, from 1, with ``rows`` and ``tokens`` and
    the seconds it took.  training_seconds: what all steps will take at its speed.  disk_bytes: of one checkpoint.
    token_budget: with which it fits."""

    memory_bytes: int
    step: int
    rows: int
    tokens: int
    step_seconds: float
    training_seconds: float
    evaluation_seconds: float
    save_seconds: float
    disk_bytes: int
    token_budget: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rehearse(
    trainer: StepTrainer, ready: Ready, evaluate: Callable[[Sequence[Rendered]], object], device: str
) -> Rehearsed:
    """evaluate: measures rows as it is done at the end of an epoch.

    Raises TrainingError, with the rows, if their loss is no finite number before anything was trained; ResourceError,
    naming the smallest change that would do, unless all of it fits into memory and on the disk; with ``train.fit:
    auto`` and a smaller token budget that does, its ``token_budget`` is that.
    """
    recipe = ready.recipe
    asked, there = trainer.token_budget, room(device)
    for budget in (asked, *(b for b in smaller_budgets(recipe, longest(trainer.steps)) if b < asked)):
        trainer.token_budget = budget
        try:
            found = _once(trainer, ready, evaluate, device)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            continue
        finally:
            trainer.token_budget, trainer.rehearsed = asked, None
        if found.memory_bytes > there.bytes:
            continue
        _require_disk(trainer, found)
        if budget == asked or recipe.train.fit == "auto":
            return found
        change = Change({"train.token_budget": budget}, _("which changes no result"), found.memory_bytes)
        raise _too_much(ready, there, change)
    raise _too_much(ready, there, _beyond(ready, device, there.bytes))


def _once(
    trainer: StepTrainer, ready: Ready, evaluate: Callable[[Sequence[Rendered]], object], device: str
) -> Rehearsed:
    recipe, steps, budget = ready.recipe, trainer.steps, trainer.token_budget
    number = largest_step(steps, budget, ready, device)
    rows = steps[number]
    folder = trainer.run.checkpoints / FOLDER
    give_back_memory()
    with _nothing_changed(trainer.model, folder), Peak(device) as peak:
        states = _optimizer_states(trainer.model)
        times = [time.monotonic()]
        trainer.model.train()
        trainer.rehearsed = number + 1
        trainer.accumulate(rows, sum(row.learned for row in rows))
        _update(trainer, states)
        times.append(time.monotonic())
        with trainer.autocast():
            evaluate(_batch(ready.prepared.watched or ready.prepared.held_out))
        times.append(time.monotonic())
        size = _save(trainer, states, folder)
        times.append(time.monotonic())
    taken = [round(end - start, 3) for start, end in pairwise(times)]
    padded = pads(recipe, ready.facts, device)
    tokens = [sum(micro.tokens for micro in cut(steps.lengths(step), budget, padded)) for step in range(len(steps))]
    share = sum(tokens) / max(1, tokens[number])
    return Rehearsed(
        peak.bytes, number + 1, len(rows), sum(row.length for row in rows), taken[0], round(taken[0] * share, 1),
        taken[1], taken[2], size, budget,
    )  # fmt: skip


def largest_step(steps: Steps, budget: int, ready: Ready, device: str) -> int:
    """The number, from 0, of the step whose largest micro-batch takes most memory; of equals that with most tokens."""
    facts, recipe = ready.facts, ready.recipe
    padded = pads(recipe, facts, device)
    micros = [largest(cut(steps.lengths(step), budget, padded), recipe, facts, device) for step in range(len(steps))]
    top = largest(micros, recipe, facts, device)
    return max((step for step, micro in enumerate(micros) if micro == top), key=lambda step: sum(steps.lengths(step)))


def longest(steps: Steps) -> int:
    """Tokens of the longest row of any step."""
    return max(max(steps.lengths(step)) for step in range(len(steps)))


def _batch(rows: Sequence[Rendered]) -> list[Rendered]:
    """The longest rows that are measured, as many as a step of measuring holds at most."""
    return sorted(rows, key=lambda row: -row.length)[:16]


# ---- as it was before ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _nothing_changed(model: torch.nn.Module, folder: Path) -> Iterator[None]:
    """Whatever happens inside: no gradient, no file and no drawn random number is left of it."""
    training, numbers, drawn = model.training, np.random.get_state(), random.getstate()
    shutil.rmtree(folder, ignore_errors=True)  # of a rehearsal that was killed
    try:
        with torch.random.fork_rng():
            yield
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
        np.random.set_state(numbers)
        random.setstate(drawn)
        shutil.rmtree(folder, ignore_errors=True)
        give_back_memory()


def _optimizer_states(model: torch.nn.Module) -> dict[torch.nn.Parameter, dict[str, torch.Tensor]]:
    """AdamW's two moments of each trained weight, really held: zeros that nobody wrote would take no memory."""
    return {
        p: {
            "step": torch.zeros(()),
            "exp_avg": torch.empty_like(p, memory_format=torch.preserve_format).fill_(0),
            "exp_avg_sq": torch.empty_like(p, memory_format=torch.preserve_format).fill_(0),
        }
        for p in model.parameters()
        if p.requires_grad
    }


@torch.no_grad()
def _update(trainer: StepTrainer, states: dict[torch.nn.Parameter, dict[str, torch.Tensor]]) -> None:
    """The optimizer's step, each weight put back as it was; one after the other, so that no copy of all is needed."""
    settings = {"lr": trainer.args.learning_rate, "weight_decay": trainer.args.weight_decay}
    for parameter, state in states.items():
        if parameter.grad is None:
            continue
        before = parameter.detach().clone()
        optimizer = torch.optim.AdamW([parameter], **settings)
        optimizer.state[parameter].update(state)
        optimizer.step()
        parameter.copy_(before)


def _save(trainer: StepTrainer, states: dict[torch.nn.Parameter, dict[str, torch.Tensor]], folder: Path) -> int:
    """A checkpoint's weights and optimizer state, written and taken away again. Returns its size in bytes."""
    try:
        trainer._save(str(folder))
        torch.save(list(states.values()), folder / "optimizer.pt")
        return derived.bytes_below(folder)
    except (OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ResourceError(
            _("a checkpoint cannot be written: {why}", why=(str(error).splitlines() or [type(error).__name__])[0]),
            where=str(folder.parent), do=_("free some space, or give another folder with --out"),
            command="tunewright doctor",
        ) from error  # fmt: skip


# ---- what fits -----------------------------------------------------------------------------------------------------


def _require_disk(trainer: StepTrainer, found: Rehearsed) -> None:
    """Room for the checkpoints that are kept, one in the making and the trained weights."""
    free = shutil.disk_usage(trainer.run.path).free
    needs = found.disk_bytes * (trainer.recipe.save.keep + 1) + found.disk_bytes // 3
    if free < needs:
        raise ResourceError(
            _("this run needs {needs:.2f} GB on the disk; {free:.2f} GB are free", needs=needs / 1e9, free=free / 1e9),
            where=str(trainer.run), do=_("free some space, write save.keep=1, or give another folder with --out"),
            command="tunewright doctor",
        )  # fmt: skip


def _beyond(ready: Ready, device: str, most: int) -> Change | None:
    """The smallest change besides the token budget, which has been tried."""
    change = smallest_change(ready.recipe, ready.facts, ready.prepared, ready.replayed, device, most)
    return None if change is None or set(change.values) == {"train.token_budget"} else change


def _too_much(ready: Ready, there: Room, change: Change | None) -> DoesNotFit:
    return does_not_fit(ready.plan.memory["total"], there, change, ready.recipe.task, ready.facts.parameters)


class Peak:
    """``bytes``: the most memory held within the context, of the device on a GPU, else of this process."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, 0
        self._process, self._done = psutil.Process(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        else:
            self._watcher.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.device.startswith("cuda"):
            self.bytes = int(torch.cuda.max_memory_allocated())
            return
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._process.memory_info().rss)
            if self._done.wait(EVERY):
                return


# ---- in words ------------------------------------------------------------------------------------------------------


def told(found: Rehearsed, plan: Plan, there: Room, steps: int) -> list[str]:
    """What was measured beside what ``plan`` had foreseen."""
    foreseen, training = plan.memory["total"], plan.seconds["training"]
    return [
        _("Rehearsed: step {step}, the largest of {steps} ({rows} rows, {tokens:,} tokens), an evaluation and a save",
          step=found.step, steps=steps, rows=found.rows, tokens=found.tokens),
        _("  memory  {peak:.2f} GB at most, foreseen {foreseen:.2f} GB ({off}); {there:.1f} GB are {bound}",
          peak=found.memory_bytes / 1e9, foreseen=foreseen / 1e9, off=_off(foreseen, found.memory_bytes),
          there=there.bytes / 1e9, bound=there.bound),
        _("  time    {step} for this step, so about {all} for all; foreseen {foreseen} ({off})",
          step=spoken(found.step_seconds), all=spoken(found.training_seconds), foreseen=spoken(training),
          off=_off(training, found.training_seconds)),
        _("  disk    {size:.2f} GB for a checkpoint, written in {seconds}",
          size=found.disk_bytes / 1e9, seconds=spoken(found.save_seconds)),
    ]  # fmt: skip


def _off(foreseen: float, measured: float) -> str:
    """By how much what was foreseen is too high or too low."""
    return f"{100 * (foreseen / measured - 1):+.0f} %" if measured else "–"


def spoken(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.2g} s"


def before(path: Path) -> dict[str, Any] | None:
    """What an earlier start of this run had rehearsed."""
    stored: dict[str, Any] | None = rundir.read_json(path).get("rehearsed") if path.exists() else None
    return stored
