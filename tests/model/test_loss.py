"""The chunked loss is the plain one: value and every gradient, for learned rows and for rows held to the base."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny import model, rows
from torch import nn
from torch.nn import functional

from tunewright.example import Origin, Rendered
from tunewright.model import loss
from tunewright.model.forward import HiddenStates
from tunewright.model.loss import CHUNK, Replayed, summed_loss


def with_bias(kind: str = "llama") -> Any:
    made = model(kind)
    made.lm_head.bias = nn.Parameter(torch.randn(100, generator=torch.Generator().manual_seed(1)))
    return made


def row_of(learned: int) -> Rendered:
    """One row in which all but the first of its tokens are learned."""
    ids = torch.randint(3, 100, (learned + 1,), generator=torch.Generator().manual_seed(learned)).int().numpy()
    return Rendered(ids, torch.ones(learned + 1, dtype=torch.bool).numpy(), Origin("rows.jsonl", 1, 1))


def held(row: Rendered, states: HiddenStates) -> Replayed:
    """The same row, held to a base that is near ``states`` but not the same."""
    teacher = torch.randn(row.learned, 32, generator=torch.Generator().manual_seed(row.length))
    if states.whole:
        teacher = states.causal.lm_head(teacher).detach()
    return Replayed(row.ids, row.learn, row.origin, teacher, pull=0.5 + row.origin.row)  # another for each row


def plain(states: HiddenStates, step: list[Rendered]) -> torch.Tensor:
    """The loss of each row by itself, from whole logits."""
    total = torch.zeros(())
    for row in step:
        ids, learn = torch.from_numpy(row.ids).long(), torch.from_numpy(row.learn)[1:]
        logits = states.causal(input_ids=ids[None]).logits[0, :-1][learn]
        if isinstance(row, Replayed):
            teacher = row.teacher if states.whole else states.causal.lm_head(row.teacher).detach()
            apart = functional.kl_div(logits.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="sum")
            total = total + row.pull * apart
        else:
            total = total + functional.cross_entropy(logits, ids[1:][learn], reduction="sum")
    return total


def assert_same(made: Any, step: list[Rendered]) -> None:
    states = HiddenStates(made)
    trained = [p for p in made.parameters() if p.requires_grad]
    ours, its = summed_loss(states, step), plain(states, step)
    torch.testing.assert_close(ours, its, rtol=1e-5, atol=1e-4)
    largest = 0.0
    for mine, other in zip(torch.autograd.grad(ours, trained), torch.autograd.grad(its, trained), strict=True):
        largest = max(largest, float(other.abs().max()))
        assert float((mine - other).abs().max()) <= 1e-5 * max(1.0, float(other.abs().max()))
    assert largest > 0.1


@pytest.mark.parametrize("learned", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3])
def test_value_and_gradients_are_those_of_cross_entropy(learned: int) -> None:
    made = with_bias()
    made.config.max_position_embeddings = 2 * CHUNK + 10
    assert_same(made, [row_of(learned)])


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2"])
def test_head_with_and_without_bias_tied_or_not(kind: str) -> None:
    assert_same(model(kind), rows(5))
    assert_same(with_bias(kind), rows(5))


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_rows_held_to_the_base_are_a_divergence_from_it(kind: str) -> None:
    made = model(kind)
    states = HiddenStates(made)
    learned = rows(6)
    assert_same(made, [held(row, states) if index % 2 else row for index, row in enumerate(learned)])
    assert_same(made, [held(row, states) for row in learned])


def test_a_row_held_to_itself_pulls_nowhere() -> None:
    made = model()
    states = HiddenStates(made)
    row = rows(1)[0]
    ids = torch.from_numpy(row.ids).long()[None]
    with torch.no_grad():
        reached = made.model(input_ids=ids).last_hidden_state[0, :-1][torch.from_numpy(row.learn)[1:]]
    total = summed_loss(states, [Replayed(row.ids, row.learn, row.origin, reached)])
    total.backward()
    assert abs(float(total.detach())) < 1e-4
    assert max(float(p.grad.abs().max()) for p in made.parameters()) < 1e-3


@pytest.mark.parametrize("chunk", [1, 3, 7, 10_000])
def test_the_size_of_a_chunk_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_bias()
    step = [row if i % 3 else held(row, HiddenStates(made)) for i, row in enumerate(rows(6))]
    monkeypatch.setattr(loss, "CHUNK", chunk)
    made.requires_grad_(True)
    step = [row for row in step if not isinstance(row, Replayed)] if chunk == 1 else step
    made.lm_head.bias = None  # a trained bias is the base's bias too
    assert_same(made, step)


@pytest.mark.parametrize("frozen", ["lm_head.weight", "lm_head.bias", "model"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    made = with_bias()
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    summed_loss(HiddenStates(made), rows(4)).backward()
    for name, parameter in made.named_parameters():
        assert (parameter.grad is None) is name.startswith(frozen), name


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    with torch.no_grad():
        assert not summed_loss(HiddenStates(model()), rows(4)).requires_grad


def test_a_bf16_model_gives_the_loss_of_its_own_logits() -> None:
    made = model().bfloat16()
    states = HiddenStates(made)
    ours, its = summed_loss(states, rows(5)), torch.zeros(())
    for row in rows(5):
        ids, learn = torch.from_numpy(row.ids).long(), torch.from_numpy(row.learn)[1:]
        logits = made(input_ids=ids[None]).logits[0, :-1][learn].float()
        its = its + functional.cross_entropy(logits, ids[1:][learn], reduction="sum")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, its, rtol=1e-2, atol=0.1)
