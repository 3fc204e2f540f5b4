"""Which tokens of a long row may look at each other, told to the attention of ``model/fast.py``.

transformers' models know documents that share a row by positions that start anew, and by a mask of all tokens against
all tokens, most of which says no. An attention that is told where each document lies computes nothing but its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch

ATTENTION = "tunewright_cpu"  # the name under which transformers knows the attention that goes by what is told here

Document = tuple[int, int, int]  # row, start, end


@dataclass
class Told:
    """unheeded: whether a layer was computed in another way, which sees a mask of the whole row."""

    documents: tuple[Document, ...]
    unheeded: bool = False


_TOLD: ContextVar[Told | None] = ContextVar("documents", default=None)


def told() -> Told | None:
    """What holds now; None where each row is one document."""
    return _TOLD.get()


@contextlib.contextmanager
def telling(documents: Sequence[Document]) -> Iterator[Told]:
    """Within the context ``documents`` are what the rows of a pass through the model consist of."""
    made = Told(tuple(documents))
    token = _TOLD.set(made)
    try:
        yield made
    finally:
        _TOLD.reset(token)


@lru_cache(maxsize=2)
def mask(documents: tuple[Document, ...], length: int) -> torch.Tensor:
    """(1, 1, T, T) bool of one row: True where a token may look."""
    sizes = torch.tensor([end - start for _row, start, end in documents])
    owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    assert len(owner) == length
    return ((owner[:, None] == owner) & torch.ones(length, length, dtype=torch.bool).tril())[None, None]
