"""Rows that are longer than the base can hold: cut from their context, never from an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunewright.example import Rendered


@dataclass(frozen=True)
class Cut:
    """rows: what became of a conversation's rows; empty if an answer alone does not fit.  lost: context tokens that
    stand in none of them any more."""

    rows: tuple[Rendered, ...]
    lost: int


def cut(
    rows: Sequence[Rendered], most: int, head: Sequence[int], keep: Sequence[NDArray[np.bool_]] | None = None
) -> Cut:
    """Each row within ``most`` tokens: the oldest context goes first, every learned token stays.

    head: ids that conversations of this kind begin with (system message, header); kept if there is room.
    keep: (T,) of each row, what stays whole beside what is learned: the reasoning before an answer. A conversation
    whose answers do not fit together becomes several rows, each answer learned in one of them.
    """
    done: list[Rendered] = []
    lost = 0
    for row, whole in zip(rows, keep or [row.learn for row in rows], strict=True):
        if row.length <= most:
            done.append(row)
            continue
        pieces = _windows(row, whole, most, np.array(head, dtype=np.int32))
        if pieces is None:
            return Cut((), 0)
        covered = np.zeros(row.length, dtype=bool)
        for places, first in pieces:
            learn = row.learn[places] & (places >= first)
            done.append(Rendered(row.ids[places], learn, row.origin))
            covered[places] = True
        lost += int((~covered).sum())
    return Cut(tuple(done), lost)


def _windows(
    row: Rendered, whole: NDArray[np.bool_], most: int, head: NDArray[np.int32]
) -> list[tuple[np.ndarray, int]] | None:
    """For each piece the places it takes, and from which place on it learns; None if an answer does not fit."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], whole, [False]]).astype(np.int8)))
    runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    if not runs or any(end - start + 1 > most for start, end in runs):
        return None
    shared = len(head) if len(head) <= runs[0][0] and np.array_equal(row.ids[: len(head)], head) else 0
    pieces: list[tuple[np.ndarray, int]] = []
    index = 0
    while index < len(runs):
        start, end = runs[index]
        while index + 1 < len(runs) and runs[index + 1][1] - start + 1 <= most:
            index += 1
            end = runs[index][1]
        room = most - (end - start)
        kept = shared if shared < room else 0
        begin = max(kept, start - (room - kept))
        pieces.append((np.concatenate([np.arange(kept), np.arange(begin, end)]), start))
        index += 1
    return pieces
