"""The gradient of a step is that of five plain lines, for every method, model and token budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import model, recipe, rows
from torch.nn import functional

from tunewright.example import Rendered
from tunewright.model import adapter, fast
from tunewright.model.forward import HiddenStates, collate
from tunewright.model.loss import TokenLoss
from tunewright.rundir import RunDir
from tunewright.train.batches import Steps
from tunewright.train.trainer import StepTrainer

BUDGETS = [1, 45, 80, 200, 10_000]
KINDS = ["llama", "tied", "gpt2", "granite", "gemma2"]


def ready(kind: str, method: str) -> Any:
    """A model that is to be trained; the adapter's second matrix is no longer zero, so that every gradient lives."""
    values = {"freeze__layers": 1} if method == "freeze" else {}
    prepared = adapter.prepare(model(kind), recipe(train__method=method, **values))
    torch.manual_seed(1)
    for name, parameter in prepared.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return prepared


def gradient(prepared: Any) -> torch.Tensor:
    """(all trained weights,) in one piece, and the model as it was before."""
    parts = [p.grad.flatten() for p in prepared.parameters() if p.requires_grad]
    prepared.zero_grad()
    return torch.cat(parts)


def ours(prepared: Any, step: list[Rendered], budget: int, folder: Path) -> tuple[float, torch.Tensor]:
    (folder / "checkpoints").mkdir(exist_ok=True)
    trainer = StepTrainer(
        prepared, Steps(step, len(step), 1, 0), recipe(), RunDir(folder), budget, lambda line: None,
        lambda: TokenLoss(prepared),
    )  # fmt: skip
    loss = float(trainer.training_step(prepared, step))
    return loss, gradient(prepared)


def plain(prepared: Any, step: list[Rendered]) -> tuple[float, torch.Tensor]:
    """One row after the other, whole logits, the mean over all learned tokens."""
    learned = sum(row.learned for row in step)
    total = torch.zeros(())
    for row in step:
        ids, learn = torch.from_numpy(row.ids).long(), torch.from_numpy(row.learn)[1:]
        logits = prepared(input_ids=ids[None]).logits[0, :-1]
        total = total + functional.cross_entropy(logits[learn], ids[1:][learn], reduction="sum") / learned
    total.backward()
    return float(total.detach()), gradient(prepared)


def assert_same(mine: torch.Tensor, its: torch.Tensor) -> None:
    """Largest and mean difference, each measured by the largest entry."""
    assert its.abs().max() > 1e-3
    apart = (mine - its).abs() / its.abs().max()
    assert float(apart.max()) < 1e-5 and float(apart.mean()) < 1e-6


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_budget_gives_the_gradient_of_plain_code(kind: str, method: str, tmp_path: Path) -> None:
    prepared, step = ready(kind, method), rows(8)
    expected_loss, expected = plain(prepared, step)
    for budget in BUDGETS:
        loss, found = ours(prepared, step, budget, tmp_path)
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert_same(found, expected)


def test_an_adapter_on_the_output_layer_is_trained_too(tmp_path: Path) -> None:
    prepared, step = adapter.prepare(model(), recipe(lora__targets=["q_proj", "lm_head"])), rows(8)
    assert HiddenStates(prepared).whole
    assert_same(ours(prepared, step, 100, tmp_path)[1], plain(prepared, step)[1])


def test_two_halves_of_a_step_sum_to_the_step(tmp_path: Path) -> None:
    """What two ranks, or two accumulation steps, would do: each divides by the learned tokens of the whole step."""
    prepared, step = ready("llama", "lora"), rows(8)
    _loss, whole = ours(prepared, step, 100, tmp_path)
    counts = [sum(row.learned for row in half) for half in (step[:4], step[4:])]
    halves = [ours(prepared, half, 100, tmp_path)[1] for half in (step[:4], step[4:])]
    together = sum(count / sum(counts) * half for count, half in zip(counts, halves, strict=True))
    assert_same(together, whole)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "whole"), [*zip(KINDS, [False, False, False, True, True], strict=True)])
def test_models_that_change_their_logits_are_found_by_trying(kind: str, whole: bool) -> None:
    assert HiddenStates(model(kind)).whole is whole


def test_a_cap_is_found_although_the_logits_are_small() -> None:
    """A capped model with small weights differs from an uncapped one by less than any tolerance."""
    capped = model("gemma2")
    with torch.no_grad():
        for parameter in capped.parameters():
            parameter.mul_(0.01)
    assert HiddenStates(capped).whole


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "granite"])
def test_the_quicker_parts_for_a_cpu_give_the_same_gradient(kind: str, method: str, tmp_path: Path) -> None:
    prepared, step = ready(kind, method), rows(8)
    expected_loss, expected = plain(prepared, step)
    with fast.kernels(prepared):
        loss, found = ours(prepared, step, 100, tmp_path)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_same(found, expected)


def test_padding_is_never_looked_at() -> None:
    states = HiddenStates(model())
    short, long = rows(2, longest=12)[0], rows(1, seed=3, longest=60)[0]
    alone = states(collate([short]))
    beside = states(collate([short, long]))[: alone.shape[0]]
    torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-5)


def test_the_first_token_of_a_row_is_never_learned() -> None:
    row = rows(1)[0]
    row.learn[:] = True
    batch = collate([row])
    assert batch.targets.tolist() == row.ids[1:].tolist() and row.learned == row.length - 1


def test_targets_know_their_rows() -> None:
    step = rows(5)
    batch = collate(step)
    assert batch.rows_of_targets().bincount().tolist() == [row.learned for row in step]


def test_a_bf16_model_trained_whole_keeps_its_weights_in_fp32(tmp_path: Path) -> None:
    prepared = adapter.prepare(model().bfloat16(), recipe(train__method="full"))
    assert {p.dtype for p in prepared.parameters()} == {torch.float32}
