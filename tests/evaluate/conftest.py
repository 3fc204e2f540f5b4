"""Held-out rows and what is asked of them."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.evaluate.compare import Item
from tunewright.example import Origin, Rendered


@pytest.fixture
def rows() -> list[Rendered]:
    """Twelve rows of 10 tokens, 5 of them learned, on lines 1 to 12."""
    return [Rendered(np.arange(10, dtype=np.int32), np.arange(10) >= 5, Origin("a.jsonl", n, n)) for n in range(1, 13)]


@pytest.fixture
def items(rows: list[Rendered]) -> list[Item]:
    """Each prompt is its line; odd lines name Wren in their reference."""
    references = ["A helper.", "I am Wren."]
    return [
        Item(r.origin, [r.origin.line], f"Question {r.origin.line}?", references[r.origin.line % 2]) for r in rows
    ]
