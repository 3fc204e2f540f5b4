"""Probabilities of labels: those of the rows as they were given, whatever went through the model together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.model.test_labels import classifier, row, texts

from tunewright.example import Rendered
from tunewright.infer.labels import LabelEngine
from tunewright.model.labels import LinearLogits


class Sizes:
    """As much of a codec as the engine asks for."""

    labels = ("a", "b", "c")

    def size(self, row: Rendered) -> int:
        return row.length - row.learned


def engine(kind: str = "bert", **more: Any) -> LabelEngine:
    model = classifier(kind)
    return LabelEngine(model, Sizes(), LinearLogits(model), **more)  # type: ignore[arg-type]


def rows() -> list[Rendered]:
    return [row(text, 0) for text in texts(20)]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_order_is_that_of_the_rows(kind: str) -> None:
    one = engine(kind)
    together = one.probabilities(rows())
    alone = np.concatenate([one.probabilities([each]) for each in rows()])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.std(axis=0).min() > 0.01  # rows differ, so that a wrong order would show


def test_the_budget_changes_no_probability() -> None:
    np.testing.assert_allclose(
        engine(token_budget=20).probabilities(rows()), engine(token_budget=10_000).probabilities(rows()), atol=1e-6
    )


def test_a_row_adds_up_to_one() -> None:
    np.testing.assert_allclose(engine().probabilities(rows()).sum(axis=1), 1.0, atol=1e-12)


def test_several_labels_are_probabilities_each() -> None:
    several = engine(multi_label=True)
    got = several.probabilities(rows())
    with torch.no_grad():
        expected = several.logits(rows()[:1]).double().sigmoid().numpy()
    np.testing.assert_allclose(got[:1], expected, atol=1e-6)
    assert abs(got.sum(axis=1) - 1).max() > 0.01


def test_dropout_is_off() -> None:
    one = engine()
    one.model.train()
    np.testing.assert_array_equal(one.probabilities(rows()), one.probabilities(rows()))


def test_each_row_is_counted_once() -> None:
    counted: list[int] = []
    engine(token_budget=40).probabilities(rows(), counted.append)
    assert sum(counted) == 20


def test_no_rows_give_no_probabilities() -> None:
    assert engine().probabilities([]).shape == (0, 3)
