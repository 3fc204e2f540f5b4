"""Which epoch was best: its trained weights are kept beside the checkpoints until the run ends with them."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from tunewright import rundir

FOLDER, WEIGHTS, HISTORY = "best", "weights.safetensors", "history.json"


@dataclass(frozen=True)
class Standing:
    """What an epoch reached on rows held out for choosing. accuracy: share of the ``rows`` right, for labels.
    divergence: nats a token that it has moved from the base at general prompts, where that is measured."""

    loss: float
    accuracy: float | None = None
    rows: int = 0
    divergence: float | None = None

    @property
    def price(self) -> float:
        """Task and retention in one number, both in nats a token: an epoch that moves further from the base than it
        comes nearer to the task is no better."""
        return self.loss + (self.divergence or 0.0)

    @property
    def chance(self) -> float:
        """One standard error of the accuracy: a difference below it says nothing."""
        right = self.accuracy or 0.0
        return math.sqrt(right * (1 - right) / max(1, self.rows))


class Best:
    """The epochs of one training and how each did. A resumed run forgets those after its checkpoint and meets them
    again, equal to the bit."""

    def __init__(self, checkpoints: Path, patience: int, start: int) -> None:
        self.folder, self.patience = checkpoints / FOLDER, patience
        stored = self.folder / HISTORY
        lines: list[dict[str, Any]] = rundir.read_json(stored) if stored.exists() else []
        self.history = [_restored(line) for line in lines if line["step"] <= start]

    @property
    def step(self) -> int | None:
        """The step whose weights are kept: of those that got as many rows right as any, but for chance, the last, whose
        learning rate had fallen furthest; without labels, that of the lowest loss and divergence together."""
        sound = [(step, one) for step, one in self.history if math.isfinite(one.loss)]
        if not sound:
            return self.history[0][0] if self.history else None
        if any(one.accuracy is None for _step, one in sound):
            return min(sound, key=lambda pair: pair[1].price)[0]
        top = max((one for _step, one in sound), key=lambda one: one.accuracy or 0.0)
        least = (top.accuracy or 0.0) - top.chance
        return [step for step, one in sound if (one.accuracy or 0.0) >= least][-1]

    @property
    def enough(self) -> bool:
        """``patience`` epochs in a row were worse than the best one."""
        steps = [step for step, _one in self.history]
        return self.step is not None and len(steps) - 1 - steps.index(self.step) >= self.patience

    def offer(self, step: int, one: Standing, model: torch.nn.Module) -> bool:
        """Note how ``step`` did; keep its weights if it is the best so far, and return whether it is."""
        self.history.append((step, one))
        is_best = self.step == step
        if is_best:
            kept = {name: p.detach().cpu().contiguous().clone() for name, p in _trained(model).items()}
            rundir.write_bytes(self.folder / WEIGHTS, save(kept, {"step": str(step)}))
        rundir.write_json(self.folder / HISTORY, [_stored(at, standing) for at, standing in self.history])
        return is_best

    @torch.no_grad()
    def restore(self, model: torch.nn.Module) -> None:
        """The best epoch's weights back into the model."""
        stored = load_file(str(self.folder / WEIGHTS))
        for name, parameter in _trained(model).items():
            parameter.copy_(stored[name])

    def forget(self) -> None:
        """The run has them now, and is measured."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _stored(step: int, one: Standing) -> dict[str, Any]:
    """A loss that is no number is null, as everywhere in JSON."""
    return {"step": step, **asdict(one), "loss": one.loss if math.isfinite(one.loss) else None}


def _restored(line: dict[str, Any]) -> tuple[int, Standing]:
    loss = math.nan if line["loss"] is None else line["loss"]
    return line["step"], Standing(loss, line["accuracy"], line["rows"], line.get("divergence"))


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
