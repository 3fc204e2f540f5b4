"""A trainer over a tiny model, without files or a base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import model, recipe, rows

from tunewright.model import adapter
from tunewright.model.loss import TokenLoss
from tunewright.rundir import RunDir
from tunewright.train.batches import Steps
from tunewright.train.trainer import StepTrainer


class Trained:
    """A trainer, and what it told."""

    def __init__(self, folder: Path, budget: int, **values: Any) -> None:
        filled = recipe(**values)
        self.rows = rows(12)
        self.model = adapter.prepare(model(), filled)
        self.steps = Steps(self.rows, 4, float(filled.train.epochs), 0)
        self.told: list[dict[str, Any]] = []
        self.run = RunDir(folder)
        self.run.checkpoints.mkdir(parents=True, exist_ok=True)
        self.trainer = StepTrainer(
            self.model, self.steps, filled, self.run, budget, self.told.append, lambda: TokenLoss(self.model)
        )

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten().clone() for p in self.model.parameters() if p.requires_grad])

    @property
    def notes(self) -> list[str]:
        return [line["note"] for line in self.told if "note" in line]


@pytest.fixture
def training(tmp_path: Path) -> Callable[..., Trained]:
    made: list[Trained] = []

    def make(budget: int = 100, **values: Any) -> Trained:
        made.append(Trained(tmp_path / f"run-{len(made)}", budget, **values))
        return made[-1]

    return make
