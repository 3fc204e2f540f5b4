"""Documents that share a row do not see each other, whatever the architecture."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import model as tiny_model
from tests.tiny import recipe

from tunewright.data.joined import Joined, join_documents
from tunewright.example import Origin, Rendered
from tunewright.model import adapter
from tunewright.model.fast import kernels
from tunewright.model.forward import HiddenStates, collate, one_document_a_row
from tunewright.model.loss import TokenLoss, summed_loss

KINDS = ["llama", "gpt2", "qwen2", "qwen3", "mistral", "gemma2", "granite", "bloom"]
MASKED = {"gemma2", "bloom", "mistral"}  # a cap, distances instead of positions, a window of four tokens


def documents(count: int = 9) -> list[Rendered]:
    random = np.random.default_rng(0)
    made = []
    for number in range(1, count + 1):
        ids = random.integers(3, 100, int(random.integers(2, 14))).astype(np.int32)
        learn = np.ones(len(ids), dtype=np.bool_)
        learn[0] = False
        made.append(Rendered(ids, learn, Origin("a.txt", number, number)))
    return made


def loss_and_gradients(model: Any, rows: list[Any], batch: int) -> tuple[float, list[torch.Tensor]]:
    """Summed loss and gradients, ``batch`` rows at once."""
    states, total = HiddenStates(model), torch.zeros(())
    for start in range(0, len(rows), batch):
        total = total + summed_loss(states, rows[start : start + batch])
    return float(total.detach()), list(torch.autograd.grad(total, list(model.parameters()), allow_unused=True))


def same(left: list[Any], right: list[Any]) -> bool:
    return all(
        (a is None) == (b is None) and (a is None or torch.allclose(a, b, rtol=1e-4, atol=1e-4))
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fast", [False, True], ids=["own", "kernels"])
def test_the_loss_of_a_full_row_is_that_of_its_documents_alone(kind: str, fast: bool) -> None:
    model = tiny_model(kind)
    rows = documents()
    alone, gradients = loss_and_gradients(model, rows, 1)
    joined = join_documents(rows, 1000)
    assert len(joined) == 1 and len(joined[0].starts) == len(rows)
    with kernels(model) if fast else contextlib.nullcontext():
        together, others = loss_and_gradients(model, joined, 1)
    assert together == pytest.approx(alone, rel=1e-5)
    assert same(gradients, others)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_several_documents_can_be_batched_with_other_rows(kind: str) -> None:
    model = tiny_model(kind)
    rows: list[Any] = [*join_documents(documents(), 20), documents()[0]]
    one, gradients = loss_and_gradients(model, rows, 1)
    all_at_once, others = loss_and_gradients(model, rows, len(rows))
    assert all_at_once == pytest.approx(one, rel=1e-5) and same(gradients, others)


@pytest.mark.parametrize(("kind", "keeps"), [(kind, kind != "bloom") for kind in KINDS])
def test_a_model_that_cannot_keep_documents_apart_is_found_out(kind: str, keeps: bool) -> None:
    states = HiddenStates(tiny_model(kind))
    states(collate(join_documents(documents(), 1000)))
    assert states._tried == {False: keeps}


def test_without_its_starts_the_same_row_has_another_loss() -> None:
    model = tiny_model()
    [row] = join_documents(documents(), 1000)
    leaking = Rendered(row.ids, row.learn, row.origin)
    assert abs(loss_and_gradients(model, [row], 1)[0] - loss_and_gradients(model, [leaking], 1)[0]) > 0.1


def test_positions_start_anew_and_a_chat_row_has_none() -> None:
    rows = documents(2)
    [row] = join_documents(rows, 1000)
    positions = collate([row]).positions
    assert positions is not None
    assert positions[0].tolist() == [*range(rows[0].length), *range(rows[1].length - 1)]
    assert collate(rows).positions is None and collate(join_documents(rows[:1], 1000)).positions is None


def test_documents_taken_apart_predict_the_same_in_the_same_order() -> None:
    batch = collate(join_documents(documents(), 20))
    apart = one_document_a_row(batch)
    assert apart.positions is None
    assert apart.ids[apart.predicts].tolist() == batch.ids[batch.predicts].tolist()


def test_a_row_survives_being_copied() -> None:
    [row] = join_documents(documents(2), 1000)
    assert isinstance(copy.deepcopy(row), Joined)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_step_of_training_is_the_same_with_documents_joined_or_apart(method: str) -> None:
    """With the quicker parts of a CPU and an adapter between a row and its gradient."""
    found = []
    for arranged in (documents(8), join_documents(documents(8), 1000)):
        model = adapter.prepare(tiny_model(), recipe(train__method=method))
        with kernels(model):
            total = TokenLoss(model)(arranged) / sum(row.learned for row in arranged)
            total.backward()
        found.append((float(total.detach()), [p.grad for p in model.parameters() if p.requires_grad]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert same(found[0][1], found[1][1])


# ---- rows end to end, while a model is trained on a CPU ------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rows_end_to_end_have_the_loss_and_gradients_of_rows_alone(kind: str) -> None:
    model, rows = tiny_model(kind), documents()
    alone, gradients = loss_and_gradients(model, rows, 1)
    with kernels(model):
        together, others = loss_and_gradients(model, rows, len(rows))
    assert together == pytest.approx(alone, rel=1e-5)
    assert same(gradients, others)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_pads_goes_through_the_layers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But in models whose attention is more than its plain product: there a row of all would be one large mask."""
    model, rows = tiny_model(kind), documents()
    sizes: list[tuple[int, ...]] = []
    own = HiddenStates._all

    def watched(self: HiddenStates, ids: torch.Tensor, *more: Any) -> torch.Tensor:
        sizes.append(tuple(ids.shape))
        return own(self, ids, *more)

    monkeypatch.setattr(HiddenStates, "_all", watched)
    needed = [row.length - 1 for row in rows]
    with kernels(model):
        states = HiddenStates(model)
        states(collate(rows))
        assert sizes[-1] == ((len(rows), max(needed)) if kind in MASKED else (1, sum(needed)))
        states(collate(rows[:1]))
        assert sizes[-1] == (1, needed[0])
    states(collate(rows))  # as it is measured and served
    assert sizes[-1] == (len(rows), max(needed))


def test_a_window_is_kept_within_each_document() -> None:
    """Mistral's layers look at the last few tokens only: transformers' own mask says so, row by row."""
    model, rows = tiny_model("mistral"), documents()
    model.config.sliding_window = 4096
    wide, _gradients = loss_and_gradients(model, rows, 1)
    model.config.sliding_window = 8  # longer than the documents of the trial, shorter than some of the rows
    alone, gradients = loss_and_gradients(model, rows, 1)
    assert alone != pytest.approx(wide, rel=1e-4)
    with kernels(model):
        together, others = loss_and_gradients(model, rows, len(rows))
    assert together == pytest.approx(alone, rel=1e-5) and same(gradients, others)


def test_attention_that_drops_weights_in_training_stays_in_its_document() -> None:
    """The trial, which drops nothing, does not see that transformers' own attention is asked then."""
    model = tiny_model("llama")
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    first, second = documents(2)
    found = []
    with kernels(model):
        states = HiddenStates(model)
        model.eval()
        states(collate([first, second]))
        model.train()
        for beside in (first, Rendered(first.ids[::-1].copy(), first.learn, first.origin)):
            torch.manual_seed(0)
            found.append(states(collate([beside, second])).detach())
    assert torch.equal(found[0][first.learned :], found[1][first.learned :])
    assert not torch.allclose(found[0][: first.learned], found[1][: first.learned])
