"""Documents behind each other in rows of one length, so that no arithmetic goes into padding.

Attention does not cross from one document into the next (``model/forward.py``), hence a row is several short texts that
happen to be computed together. A document that does not fit goes on in the next row. That row begins with the
last token of the row before once more, as context, so that every token but a document's first is learned, and once:

    documents   a b c d .   e f .   g h i j k .           length 6
    row 1       a b c d . | e          learned  b c d .
    row 2       e f . | g h i          learned  f .  h i
    row 3       i j k .                learned  j k .
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunewright.example import Origin, Rendered


@dataclass(frozen=True, slots=True)
class Joined(Rendered):
    """Pieces of documents in one row. starts: (pieces,) int32, where each begins; its first token is not learned.
    origin: of the first document."""

    starts: NDArray[np.int32]


def join_documents(rows: Sequence[Rendered], length: int) -> list[Joined]:
    """Rows of exactly ``length`` tokens (the last one may be shorter) that hold ``rows`` in their order.

    Raises ValueError for a length under 2, in which nothing can be predicted.
    """
    if length < 2:
        raise ValueError("a row needs two tokens to predict one")
    joined: list[Joined] = []
    pieces: list[NDArray[np.int32]] = []
    origins: list[Origin] = []
    used = 0
    for ids, origin in _pieces(rows, length):
        pieces.append(ids)
        origins.append(origin)
        used += len(ids)
        if used == length:
            joined.append(_row(pieces, origins[0]))
            pieces, origins, used = [], [], 0
    if pieces:
        joined.append(_row(pieces, origins[0]))
    return joined


def cut_documents(rows: Sequence[Rendered], length: int) -> list[Joined]:
    """Rows of at most ``length`` tokens, none with more than one document: for measuring, where a document is what one
    wants to be sure about. Raises ValueError for a length under 2."""
    return [part for row in rows for part in join_documents([row], length)]


def _pieces(rows: Sequence[Rendered], length: int) -> Iterator[tuple[NDArray[np.int32], Origin]]:
    """Each document in pieces that fill up rows of ``length``, one behind the other."""
    room = length
    for row in rows:
        place = 0  # the last token that is in a piece already
        while place < row.length - 1:
            piece = row.ids[place : place + room]
            yield piece, row.origin
            place += len(piece) - 1
            room = room - len(piece) or length


def _row(pieces: Sequence[NDArray[np.int32]], origin: Origin) -> Joined:
    ids = np.concatenate(pieces).astype(np.int32)
    starts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])]).astype(np.int32)
    learn = np.ones(len(ids), dtype=np.bool_)
    learn[starts] = False
    return Joined(ids, learn, origin, starts)
