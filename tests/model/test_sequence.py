"""An encoder-decoder's loss is transformers' own, in every batch, and its gradients are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sequences import KINDS, model, rows
from torch import nn

from tunewright.example import Rendered
from tunewright.model.adapter import load_run, prepare, save
from tunewright.model.fast import kernels
from tunewright.model.forward import collate
from tunewright.model.loss import summed_loss
from tunewright.model.sequence import EncoderDecoderStates, Output, split
from tunewright.recipe.schema import Recipe


def own_loss(made: Any, row: Rendered) -> torch.Tensor:
    """transformers' loss of one row alone, times its tokens."""
    source, target = split(row)
    return made(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss * len(target)


def our_loss(made: Any, given: list[Rendered]) -> torch.Tensor:
    return summed_loss(EncoderDecoderStates(made), given)  # type: ignore[arg-type]


def gradients(made: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    made.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def assert_equal(mine: dict[str, torch.Tensor], its: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == its.keys()
    largest = 0.0
    for name, other in its.items():
        top = float(other.abs().max())
        largest = max(largest, top)
        assert float((mine[name] - other).abs().max()) <= 1e-5 * max(1.0, top), name
    assert largest > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_batch_is_transformers_own_times_its_tokens(kind: str) -> None:
    made, given = model(kind), rows(6)
    assert len({row.length for row in given}) > 3, "the rows should be of unequal lengths"
    theirs = sum(own_loss(made, row) for row in given)
    torch.testing.assert_close(our_loss(made, given), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_transformers_own_loss(kind: str) -> None:
    made, given = model(kind), rows(6)
    assert_equal(gradients(made, our_loss(made, given)), gradients(made, sum(own_loss(made, row) for row in given)))


@pytest.mark.parametrize("kind", KINDS)
def test_how_a_step_is_cut_changes_nothing(kind: str) -> None:
    made, given = model(kind), rows(6)
    alone = gradients(made, sum(our_loss(made, [row]) for row in given))
    assert_equal(gradients(made, our_loss(made, given)), alone)


@pytest.mark.parametrize("kind", KINDS)
def test_quick_parts_for_the_cpu_change_no_gradient(kind: str) -> None:
    """Attention in an encoder looks both ways, and that of a decoder into the encoder is not causal."""
    made, given = model(kind), rows(6)
    plain = gradients(made, our_loss(made, given))
    with kernels(made):
        quick = gradients(made, our_loss(made, given))
    assert_equal(quick, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_the_states_make_the_models_own_logits(kind: str) -> None:
    made, [row] = model(kind), rows(1)
    source, target = split(row)
    states = EncoderDecoderStates(made)
    batch = collate([row])
    with torch.no_grad():
        theirs = made(input_ids=torch.tensor([source]), labels=torch.tensor([target])).logits[0]
        torch.testing.assert_close(states.logits(states(batch)), theirs, rtol=1e-5, atol=1e-4)
    assert not states.whole


def test_a_bias_behind_the_output_matrix_is_found() -> None:
    states = EncoderDecoderStates(model("bart"))
    assert isinstance(states.head, Output) and float(states.head.bias.abs().max()) > 0.1


def test_a_model_that_changes_its_logits_afterwards_is_asked_for_them() -> None:
    made = model("t5")
    plain = made.forward

    def capped(*args: Any, **more: Any) -> Any:
        out = plain(*args, **more)
        out.logits = 5 * torch.tanh(out.logits / 5)
        return out

    made.forward = capped
    states = EncoderDecoderStates(made)
    assert states.whole
    [row] = rows(1)
    source, target = split(row)
    logits = capped(input_ids=torch.tensor([source]), labels=torch.tensor([target])).logits[0]
    theirs = nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")
    torch.testing.assert_close(our_loss(made, [row]), theirs, rtol=1e-5, atol=1e-5)


def test_the_trial_leaves_the_model_as_it_was() -> None:
    made = model("bart").train()
    EncoderDecoderStates(made)
    assert made.training and not made.lm_head._forward_hooks and not made.lm_head._forward_pre_hooks


def test_a_row_is_split_where_its_target_begins() -> None:
    for row in rows(5):
        source, target = split(row)
        assert source + target == row.ids.tolist() and len(target) == row.learned


# ---- what is trained -----------------------------------------------------------------------------------------------

METHODS: list[dict[str, Any]] = [
    {"lora": {"rank": 4}}, {"train": {"method": "full"}}, {"train": {"method": "freeze"}, "freeze": {"layers": 1}}
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", METHODS)
def test_what_was_trained_is_saved_and_read_again(kind: str, values: dict[str, Any], tmp_path: Path) -> None:
    """Although no file holds Marian's sines of positions."""
    given = rows(4)
    trained: Any = prepare(model(kind), Recipe.model_validate(values))
    trains = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    assert kind != "marian" or not any("embed_positions" in name for name in trains)
    weights = list(trains.values())
    optimizer = torch.optim.AdamW(weights, lr=0.01)
    losses = []
    for _step in range(6):
        loss = our_loss(trained, given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        after = float(our_loss(trained, given))
    save(trained, tmp_path / "run", lambda _folder: None, {"eos_token_id": [1], "pad_token_id": 0})
    with torch.no_grad():
        again = float(our_loss(load_run(model(kind), tmp_path / "run"), given))
    assert again == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_freeze_trains_the_last_layers_of_the_decoder(kind: str) -> None:
    trained = prepare(model(kind), Recipe.model_validate(METHODS[2]))
    names = [name for name, p in trained.named_parameters() if p.requires_grad]
    layer = "decoder.block.1." if "t5" in kind else "decoder.layers.1."
    assert any(layer in name for name in names) and not any("encoder." in name or "embed" in name for name in names)
    assert all(layer in name or ("decoder." in name and "norm" in name) for name in names)
