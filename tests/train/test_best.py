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


def test_more_rows_right_beat_a_lower_loss(tmp_path: Path) -> None:
    best = Best(tmp_path, 2, 0)
    assert best.offer(10, Standing(0.5, 0.8), layer(1))
    assert best.offer(20, Standing(0.9, 0.9), layer(2))
    assert not best.offer(30, Standing(0.1, 0.85), layer(3))
    assert best.offer(40, Standing(0.8, 0.9), layer(4))


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
