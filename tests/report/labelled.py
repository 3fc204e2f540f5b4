"""The content of evaluation.json of a run that chooses labels, by the code that a training uses."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunewright.evaluate.classes import marked
from tunewright.evaluate.labels import LabelMeasurement, compare_labels
from tunewright.evaluate.yardstick import Yardstick
from tunewright.example import Origin


def evaluation(labels: tuple[str, ...], multi_label: bool = False, rows: int = 240) -> dict[str, Any]:
    """A model that has learned its labels well; every label has a row if there are enough."""
    rng, count = np.random.default_rng(0), len(labels)
    wanted = [[n % count] if not multi_label else np.flatnonzero(rng.random(count) < 0.4).tolist() for n in range(rows)]
    truth = marked(wanted, count)

    def measured(skill: float) -> LabelMeasurement:
        scores = 1.5 * (rng.normal(size=(rows, count)) + skill * truth - (skill / 2 if multi_label else 0))
        chances = 1 / (1 + np.exp(-scores)) if multi_label else np.exp(scores)
        if not multi_label:
            chances /= chances.sum(axis=1, keepdims=True)
        origins = tuple(Origin("reviews.csv", n + 2, n + 1) for n in range(rows))
        texts = tuple(f"review number {n}" for n in range(rows))
        return LabelMeasurement(origins, texts, truth, chances, labels, multi_label)

    before, after, words = measured(0.1), measured(2.5), measured(1.0)
    majority = np.tile(truth.mean(axis=0), (rows, 1))
    yardsticks = [
        Yardstick("majority", f"always “{labels[0]}”", majority),
        Yardstick("tfidf", "words and pairs of words", words.probabilities),
    ]
    return compare_labels(before, after, yardsticks)
