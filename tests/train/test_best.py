"""The best epoch's weights are kept, found again after a resume, and put back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tunewright.train.best import Best, Standing


def layer(value: float) -> torch.nn.Linear:
    made = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.constant_(made.weight, value)
    return made


def fill(best: Best, *losses: float) -> Best:
    """One epoch after the other; the model of epoch n has the weight n."""
    for epoch, loss in enumerate(losses, start=1):
        best.offer(epoch * 10, Standing(loss, None), layer(epoch))
    return best


def restored(best: Best) -> float:
    model = layer(0)
    best.restore(model)
    return float(model.weight[0, 0].detach())


@pytest.mark.parametrize(("losses", "step"), [((3, 2, 1), 30), ((1, 2, 3), 10), ((2, 1, 1), 20), ((math.nan, 2), 20)])
def test_the_lowest_loss_is_kept_and_of_equals_the_first(losses: tuple[float, ...], step: int, tmp_path: Path) -> None:
    best = fill(Best(tmp_path, 9, 0), *losses)
    assert best.step == step and restored(best) == step / 10


def after(folder: Path, *right: float, rows: int = 100) -> Best:
    """Epochs that got these shares of ``rows`` right."""
    best = Best(folder, 2, 0)
    for epoch, share in enumerate(right, start=1):
        best.offer(epoch, Standing(epoch, share, rows), layer(epoch))
    return best


@pytest.mark.parametrize(
    ("right", "kept"),
    [
        ((0.8, 0.9, 0.95), 3),  # better and better
        ((0.83, 0.81, 0.82), 3),  # the same but for chance: the last
        ((0.9, 0.7, 0.6), 1),  # lost more than chance explains
        ((0.6, 0.9, 0.88, 0.7), 3),
        ((0.85, 0.82, 0.79, 0.76), 2),  # a slow decline is measured against the top, not against its neighbour
    ],
)
def test_the_last_of_those_that_chance_cannot_tell_apart_is_kept(
    right: tuple[float, ...], kept: int, tmp_path: Path
) -> None:
    best = after(tmp_path, *right)
    assert best.step == kept and restored(best) == kept


def test_more_rows_tell_finer_differences_apart(tmp_path: Path) -> None:
    assert after(tmp_path / "few", 0.83, 0.81).step == 2
    assert after(tmp_path / "many", 0.83, 0.81, rows=10_000).step == 1


def test_it_is_enough_after_so_many_epochs_that_were_no_better(tmp_path: Path) -> None:
    best = Best(tmp_path, 2, 0)
    seen = []
    for epoch, loss in enumerate((3, 2, 2.5, 2.6)):
        best.offer(epoch, Standing(loss, None), layer(epoch))
        seen.append(best.enough)
    assert seen == [False, False, False, True]


def test_a_resumed_training_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    fill(Best(tmp_path, 9, 0), 3, 1, 2)
    again = Best(tmp_path, 9, 10)
    assert [step for step, _one in again.history] == [10]
    again.offer(20, Standing(1, None), layer(2))
    assert again.step == 20 and restored(again) == 2


def test_only_trained_weights_are_kept(tmp_path: Path) -> None:
    model = torch.nn.Sequential(layer(1), layer(2))
    model[0].requires_grad_(False)
    best = Best(tmp_path, 1, 0)
    best.offer(1, Standing(1, None), model)
    model[0].weight.data.fill_(7)
    model[1].weight.data.fill_(7)
    best.restore(model)
    assert float(model[0].weight.detach()[0, 0]) == 7 and float(model[1].weight.detach()[0, 0]) == 2


def test_nothing_is_left_when_the_run_has_them(tmp_path: Path) -> None:
    best = fill(Best(tmp_path, 1, 0), 1)
    best.forget()
    assert list(tmp_path.iterdir()) == []


def test_task_and_retention_choose_together(tmp_path: Path) -> None:
    """An epoch that comes nearer to the task by less than it moves from the base is no better."""
    best = Best(tmp_path, 9, 0)
    for step, (loss, moved) in enumerate([(2.0, 0.0), (1.5, 0.2), (1.4, 0.5), (1.35, 0.9)], start=1):
        best.offer(step, Standing(loss, divergence=moved), layer(step))
    assert best.step == 2 and restored(best) == 2
    assert Best(tmp_path, 9, 4).step == 2, "and so it is after a resume"
