"""Running out of memory halves the budget and repeats the step; the result is that of the smaller budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tunewright.errors import ResourceError
from tunewright.example import Rendered
from tunewright.model import loss
from tunewright.model.forward import HiddenStates
from tunewright.model.loss import summed_loss
from tunewright.train.trainer import fit

CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError(CPU),
    "python": MemoryError(),
}


def no_memory(monkeypatch: pytest.MonkeyPatch, error: BaseException, refuses: Callable[[int, int], bool]) -> list[int]:
    """``refuses(call, tokens)`` says when there is no memory; the list collects the tokens of every try."""
    tries: list[int] = []

    def planted(states: HiddenStates, rows: Sequence[Rendered], *more: Any) -> torch.Tensor:
        tries.append(len(rows) * max(row.length for row in rows))
        if refuses(len(tries), tries[-1]):
            raise error
        return summed_loss(states, rows, *more)

    monkeypatch.setattr(loss, "summed_loss", planted)
    return tries


@pytest.mark.parametrize("kind", ERRORS)
def test_a_step_that_does_not_fit_is_repeated_in_halves(
    kind: str, training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, ERRORS[kind], lambda call, tokens: tokens > 50)
    halved = training(budget=100)
    fit(halved.trainer, None)
    monkeypatch.undo()
    small = training(budget=halved.trainer.token_budget)
    fit(small.trainer, None)
    assert halved.trainer.token_budget <= 50
    assert len(halved.notes) == 1 and f"{halved.trainer.token_budget} tokens" in halved.notes[0]
    assert torch.equal(halved.weights(), small.weights())


def test_what_the_failed_try_had_summed_is_forgotten(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second micro-batch of the first step fails, when the first has left its gradient already."""
    tries = no_memory(monkeypatch, ERRORS["gpu"], lambda call, tokens: call == 2)
    halved = training(budget=100)
    fit(halved.trainer, None)
    monkeypatch.undo()
    assert len(tries) > 3
    small = training(budget=halved.trainer.token_budget)
    fit(small.trainer, None)
    assert torch.equal(halved.weights(), small.weights())


def test_a_budget_far_above_the_step_is_not_halved_in_vain(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, ERRORS["gpu"], lambda call, tokens: tokens > 80)
    huge = training(budget=1_000_000)
    fit(huge.trainer, None)
    assert len(huge.notes) <= 2


def test_a_smaller_budget_stays_for_the_checkpoint(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, ERRORS["gpu"], lambda call, tokens: tokens > 50)
    halved = training(budget=100)
    fit(halved.trainer, None)
    assert halved.trainer.kept is not None and halved.trainer.kept.token_budget <= 50


def test_one_row_that_does_not_fit_is_an_error_that_says_what_to_do(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, ERRORS["cpu"], lambda call, tokens: True)
    stuck = training(budget=100)
    before = stuck.weights()
    with pytest.raises(ResourceError) as caught:
        fit(stuck.trainer, None)
    longest = max(row.length for row in stuck.steps[0])
    assert f"one row of {longest} tokens" in str(caught.value) and "data.max_length" in str(caught.value)
    assert caught.value.exit_code == 2
    assert torch.equal(stuck.weights(), before)


def test_another_fault_is_not_taken_for_a_lack_of_memory(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, RuntimeError("shapes do not fit"), lambda call, tokens: True)
    with pytest.raises(RuntimeError, match="shapes"):
        fit(training().trainer, None)
