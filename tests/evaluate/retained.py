"""What a model showed of what its base can do, made without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tunewright.evaluate.kept import Retained
from tunewright.evaluate.questions import Asked, Question
from tunewright.example import Origin
from tunewright.infer.engine import Choices, Generation
from tunewright.model.loss import Replayed


def retained(
    right: Sequence[bool], moved: float = 0.0, said: str = "As before.", questions: Sequence[str] | None = None
) -> Retained:
    """One question to each of ``right``; the first half is knowledge in English, the others arithmetic in Chinese.
    moved: nats at each of 12 prompts with 5 tokens."""
    texts = questions or [f"General {n}?" for n in range(len(right))]
    kinds = [("knowledge", "en") if n < (len(right) + 1) // 2 else ("arithmetic", "zh") for n in range(len(right))]
    asked = tuple(
        Asked(Question(*kind, text, ("yes", "no", "maybe", "never")), Choices((n,), ((1,), (2,), (3,), (4,))))
        for n, (kind, text) in enumerate(zip(kinds, texts, strict=True))
    )
    rows = tuple(
        Replayed(np.arange(9, dtype=np.int32), np.arange(9) >= 4, Origin("answers", n, n), torch.zeros(5, 2))
        for n in range(1, 13)
    )
    return Retained(
        asked=asked,
        scores=tuple((-1.0, -2.0, -3.0, -4.0) if one else (-2.0, -1.0, -3.0, -4.0) for one in right),
        held=rows,
        moved=tuple(moved * (0.9 + 0.02 * n) for n in range(12)),
        said=tuple(Generation((1,), said, True) for _ in range(10)),
        watched_moved=moved / 5,
    )
