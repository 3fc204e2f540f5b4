"""Which rows are held out: a pure function of the rows' texts and the seed, whatever their order in the file."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunewright.data.digest import Digest
from tunewright.text import _

LEAST, MOST = 2, 200


def wanted(held_out: str | int | float, rows: int) -> int:
    """How many of ``rows`` to hold out: a number, a share, or by ``auto`` a tenth, at least 2 and at most 200."""
    if isinstance(held_out, str):
        return min(max(LEAST, round(rows / 10)), MOST)
    if isinstance(held_out, float) and held_out < 1:
        return max(1, round(rows * held_out))
    return int(held_out)


def how_many(held_out: str | int | float, rows: int) -> int | None:
    """The same, so that some are left to be trained on: by ``auto`` at least one of two rows. None if none would be."""
    count = wanted(held_out, rows)
    if count < rows:
        return count
    return 1 if held_out == "auto" and rows > 1 else None


def none_held_out(together: NDArray[np.int64], held_out: str | int | float) -> str | None:
    """Why no rows can be held out of these, or None if some can. ``together`` says which of them belong on one side."""
    count = how_many(held_out, len(together))
    if count is None:
        return _("{count} are asked for", count=wanted(held_out, len(together)))
    sizes = Counter(together.tolist())
    if len(sizes) < 2 or min(sizes.values()) > count:
        return _("they are duplicates of each other, or ask the same question")
    return None


def hold_out(
    known: Sequence[Digest], together: NDArray[np.int64], count: int, seed: int, evenly: bool = False
) -> set[int]:
    """Indices of the rows that are held out: whole clusters only, about ``count`` rows and never all.

    Clusters are drawn in an order that the seed and their texts decide; one that would overshoot is passed over.
    ``evenly``: of each answer its share of the rows (answers are labels). Empty if no cluster fits.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(together):
        members[int(label)].append(index)
    if len(members) < 2:
        return set()
    firsts = {min(rows, key=lambda row: known[row].whole): rows for rows in members.values()}
    order = sorted(firsts, key=lambda first: _draw(known[first].whole, seed))
    drawn = [firsts[first] for first in (_evenly(order, [known[first].answer for first in order]) if evenly else order)]
    count = min(count, len(known) - 1)
    held: set[int] = set()
    for rows in drawn:
        if len(held) + len(rows) <= count:
            held.update(rows)
        if len(held) == count:
            break
    return held


def _evenly(order: Sequence[int], answers: Sequence[bytes]) -> list[int]:
    """``order``, mixed so that any beginning of it has about the shares of the answers that the whole has; of an answer
    so rare that none is due, none comes early."""
    many, seen = Counter(answers), Counter[bytes]()
    places: list[float] = []
    for answer in answers:
        places.append((seen[answer] + 0.5) / many[answer])
        seen[answer] += 1
    return [order[index] for index in sorted(range(len(order)), key=lambda index: places[index])]


def _draw(text: bytes, seed: int) -> bytes:
    return hashlib.blake2b(text, digest_size=16, key=seed.to_bytes(16, "little", signed=False)).digest()
