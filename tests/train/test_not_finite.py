"""A loss or gradient that is no finite number stops the run before it reaches the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.train.test_rehearse import once, ready_for

from tunewright.errors import TrainingError
from tunewright.model import loss
from tunewright.model.forward import causal_model
from tunewright.model.loss import summed_loss
from tunewright.rundir import METRICS
from tunewright.train import checkpoints
from tunewright.train.rehearse import largest_step
from tunewright.train.trainer import fit


def poison(made: Any, step: int) -> Any:
    """A token that only one row of ``step`` has gets an infinite embedding. Returns that row."""
    victim = made.steps[step][0]
    victim.ids[1] = 99
    for row in made.rows:
        if row is not victim:
            row.ids[row.ids == 99] = 98
    with torch.no_grad():
        causal_model(made.model).get_input_embeddings().weight[99] = float("inf")
    return victim


def test_the_run_stops_and_names_the_row(training: Callable[..., Any]) -> None:
    made = training(budget=1, train__epochs=2, save__every=1)
    victim = poison(made, step=2)
    with pytest.raises(TrainingError) as caught:
        fit(made.trainer, None)
    text = str(caught.value)
    assert "the loss is not a finite number at step 3" in text
    assert f"rows rows.jsonl:{victim.origin.line}\n" in text
    assert caught.value.exit_code == 2 and f"--row {victim.origin.row}" in text


def test_the_rehearsal_says_that_it_met_it_before_anything_was_trained(training: Callable[..., Any]) -> None:
    made = training(budget=1, train__epochs=2)
    step = largest_step(made.steps, 1, ready_for(made), "cpu")
    victim, before = poison(made, step), made.weights()
    with pytest.raises(TrainingError) as caught:
        once(made)
    text = str(caught.value)
    assert f"the loss is not a finite number in the rehearsal of step {step + 1}; nothing was trained yet" in text
    assert f"rows rows.jsonl:{victim.origin.line}\n" in text and "at step 1" not in text
    assert "train.precision=fp32" in text and "learning_rate" not in text and "checkpoint" not in text
    assert caught.value.exit_code == 2 and f"--row {victim.origin.row}" in text
    assert torch.equal(made.weights(), before) and all(p.grad is None for p in made.model.parameters())


def test_the_last_good_checkpoint_is_kept_and_named(training: Callable[..., Any]) -> None:
    made = training(train__epochs=2, save__every=1)
    poison(made, step=2)
    with pytest.raises(TrainingError, match="step-2"):
        fit(made.trainer, None)
    found, skipped = checkpoints.newest(made.run.checkpoints)
    assert found is not None and found.step == 2 and skipped == []


def test_the_weights_are_those_of_the_step_before(training: Callable[..., Any]) -> None:
    made = training(train__epochs=2, save__every=1)
    poison(made, step=1)
    at: list[torch.Tensor] = []
    made.trainer.on_step = lambda line: at.append(made.weights())
    with pytest.raises(TrainingError):
        fit(made.trainer, None)
    assert len(at) == 1 and torch.equal(made.weights(), at[0])
    assert all(p.grad is None or not p.grad.any() for p in made.model.parameters())


def test_no_line_of_metrics_holds_what_is_no_number(training: Callable[..., Any]) -> None:
    made = training(train__epochs=2)
    poison(made, step=1)
    with pytest.raises(TrainingError):
        fit(made.trainer, None)
    lines = [json.loads(line) for line in made.run.file(METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1]


@pytest.mark.parametrize("limit", [1.0, 0.0], ids=["clipped", "not clipped"])
def test_a_finite_loss_with_an_infinite_gradient_stops_too(
    limit: float, training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sour(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, *outer: torch.Tensor) -> torch.Tensor:
            return outer[0] * float("nan")

    def planted(*given: Any) -> torch.Tensor:
        return Sour.apply(summed_loss(*given))

    made = training(train__max_grad_norm=limit)
    before = made.weights()
    monkeypatch.setattr(loss, "summed_loss", planted)
    with pytest.raises(TrainingError, match="the gradient is not a finite number at step 1"):
        fit(made.trainer, None)
    assert torch.equal(made.weights(), before)
