"""What a training writes on its way, and what its settings do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunewright.rundir import METRICS
from tunewright.train import checkpoints
from tunewright.train.trainer import cut_metrics, fit

FIELDS = ["step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "learned_tokens", "tokens_per_second"]


def metrics(made: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.run.file(METRICS).read_text().splitlines()]


@pytest.mark.parametrize("limit", [1.0, 0.0])
def test_each_step_has_one_line_with_every_field(limit: float, training: Callable[..., Any]) -> None:
    made = training(train__epochs=2, train__max_grad_norm=limit)
    assert fit(made.trainer, None)
    lines = metrics(made)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in lines] == [0.3333, 0.6667, 1.0, 1.3333, 1.6667, 2.0]
    assert all(list(line) == FIELDS for line in lines)
    assert [line["tokens"] for line in lines] == [sum(r.length for r in step) for step in made.steps]
    assert [line["learned_tokens"] for line in lines] == [sum(r.learned for r in step) for step in made.steps]
    assert all(line["grad_norm"] > 0 and line["tokens_per_second"] > 0 for line in lines)


def test_the_listener_gets_the_same_lines(training: Callable[..., Any]) -> None:
    made = training()
    fit(made.trainer, None)
    assert made.told == metrics(made)


def test_the_first_step_already_moves_and_at_the_written_rate(training: Callable[..., Any]) -> None:
    made = training(train__warmup=0.5, train__epochs=2)
    before = made.weights()
    moved: list[bool] = []
    made.trainer.on_step = lambda line: moved.append(not torch.equal(before, made.weights()))
    fit(made.trainer, None)
    rates = [line["learning_rate"] for line in metrics(made)]
    assert moved[0] and rates[0] == pytest.approx(0.01 / 4)
    assert max(rates) == pytest.approx(0.01) and rates[-1] < 0.01


def test_the_loss_falls(training: Callable[..., Any]) -> None:
    made = training(train__epochs=20)
    fit(made.trainer, None)
    losses = [line["loss"] for line in metrics(made)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_checkpoints_come_at_every_nth_step_and_at_the_end(training: Callable[..., Any]) -> None:
    made = training(train__epochs=3, save__every=4, save__keep=5)
    fit(made.trainer, None)
    assert sorted(p.name for p in made.run.checkpoints.iterdir()) == ["step-4", "step-8", "step-9"]


def test_only_the_newest_are_kept(training: Callable[..., Any]) -> None:
    made = training(train__epochs=3, save__every=1, save__keep=2)
    fit(made.trainer, None)
    assert sorted(p.name for p in made.run.checkpoints.iterdir()) == ["step-8", "step-9"]


@pytest.mark.parametrize(
    "values", [{}, {"train__method": "full"}, {"lora__dropout": 0.3}], ids=["lora", "full", "dropout"]
)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_training_that_goes_on_ends_as_one_that_never_stopped(
    values: dict[str, Any], step: int, training: Callable[..., Any]
) -> None:
    unbroken = training(train__epochs=2, save__every=1, save__keep=10, **values)
    fit(unbroken.trainer, None)
    start = checkpoints.Checkpoint(unbroken.run.checkpoints / f"step-{step}", step, 100)
    again = training(train__epochs=2, save__every=1, **values)
    fit(again.trainer, start)
    assert torch.equal(again.weights(), unbroken.weights())
    same = [{**line, "tokens_per_second": 0} for line in metrics(again)]
    assert same == [{**line, "tokens_per_second": 0} for line in metrics(unbroken)[step:]]


def test_a_training_that_was_finished_adds_no_step(training: Callable[..., Any]) -> None:
    made = training(save__every=1)
    fit(made.trainer, None)
    again = training(save__every=1)
    assert fit(again.trainer, made.trainer.kept)
    assert again.told == [] and torch.equal(again.weights(), made.weights())


def test_metrics_after_the_checkpoint_are_forgotten_and_half_a_line_too(training: Callable[..., Any]) -> None:
    run = training().run
    for step in (1, 2, 3):
        run.append(METRICS, {"step": step})
    with open(run.file(METRICS), "a") as file:
        file.write('{"step": 1')
    cut_metrics(run, 2)
    assert run.file(METRICS).read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_training_does_not_depend_on_what_was_drawn_before(training: Callable[..., Any]) -> None:
    """Two equal trainings in one process end equal, whatever came between."""
    ends = []
    for draws in (0, 7):
        torch.rand(draws)
        made = training(lora__dropout=0.2)
        fit(made.trainer, None)
        ends.append(made.weights())
    assert torch.equal(*ends)
