"""Which texts are the same, or nearly: clusters of rows that must not be split between training and held-out.

Near means an estimated Jaccard similarity of at least 0.8 over shingles of three tokens (words, or single characters
where a script writes without spaces), by MinHash signatures (Broder 1997) with banded lookup. Shingles that stand in a
fifth of all rows are a common frame, such as an instruction that every row repeats, and are not counted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

SIMILAR = 0.8
_PERMUTATIONS = 128
_BANDS, _IN_BAND = 25, 5  # finds a pair of similarity 0.8 with probability 0.9999
_CHUNK = 2048
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)


class Union:
    """Union-find whose representative is the smallest member."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, one: int, other: int) -> None:
        one, other = self.find(one), self.find(other)
        if one != other:
            self.parent[max(one, other)] = min(one, other)

    def labels(self) -> NDArray[np.int64]:
        return np.array([self.find(item) for item in range(len(self.parent))], dtype=np.int64)


def near_clusters(texts: Sequence[str]) -> NDArray[np.int64]:
    """(N,) a label for each text; texts with the same label are near duplicates (or linked by them)."""
    union = Union(len(texts))
    if len(texts) > 1:
        signatures = _signatures(texts)
        for band in range(_BANDS):
            _join_band(signatures, band, union)
    return union.labels()


def _join_band(signatures: NDArray[np.uint32], band: int, union: Union) -> None:
    part = signatures[:, band * _IN_BAND : (band + 1) * _IN_BAND].astype(np.uint64)
    key = np.zeros(len(part), dtype=np.uint64)
    for column in range(_IN_BAND):
        key = _mix(key * np.uint64(31) + part[:, column])
    order = np.argsort(key, kind="stable")
    bounds = np.flatnonzero(np.diff(key[order], prepend=key[order[0]] ^ np.uint64(1)))
    for start, end in zip(bounds, [*bounds[1:], len(order)], strict=True):
        if end - start < 2:
            continue
        group = order[start:end]
        first = int(group[0])
        alike = (signatures[group[1:]] == signatures[first]).mean(axis=1) >= SIMILAR
        for other in group[1:][alike]:
            union.join(first, int(other))


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of the input moves every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """(N, 128) MinHash signatures."""
    from rensa import RMinHash  # loaded where data is checked, not where it is only shown

    grams, offsets = _shingles(texts)
    grams, offsets = _without_frame(grams, offsets)
    signatures = np.empty((len(texts), _PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(texts), _CHUNK):
        end = min(start + _CHUNK, len(texts))
        inside = offsets[start : end + 1]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            _mix(grams[inside[0] : inside[-1]].astype(np.uint64)), inside - inside[0], _PERMUTATIONS, 7
        )
        signatures[start:end] = matrix.to_rows()
    return signatures


def _shingles(texts: Iterable[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """All shingles of all texts as hashes, one text after the other, and where each text begins (N + 1)."""
    known: dict[str, int] = {}
    codes: list[int] = []
    sizes: list[int] = []
    for text in texts:
        words = _WORD.findall(text) or text.split()  # signs alone, such as :), are what such a text says
        for word in words:
            if word not in known:
                known[word] = zlib.crc32(word.encode("utf-8"))
        codes += [known[word] for word in words]
        codes += [0] * max(0, 3 - len(words))  # a shorter text is one shingle
        sizes.append(max(3, len(words)))
    flat = np.array(codes, dtype=np.uint64)
    ends = np.cumsum(sizes)
    mixed = _mix(_mix(_mix(flat[:-2]) + flat[1:-1]) + flat[2:])
    inside = np.ones(len(flat), dtype=bool)
    inside[ends - 1] = inside[ends - 2] = False  # these two would reach into the next text
    grams = (mixed >> np.uint64(32)).astype(np.uint32)[inside[:-2]]
    return grams, np.concatenate([[0], np.cumsum(np.array(sizes) - 2)])


def _without_frame(
    grams: NDArray[np.uint32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Drops shingles that stand in a fifth of the rows or more; a row that has no others keeps them."""
    rows = len(offsets) - 1
    limit = rows // 5
    if limit < 10:
        return grams, offsets
    row_of = np.repeat(np.arange(rows), np.diff(offsets))
    bucket = (grams & np.uint32(2**22 - 1)).astype(np.int64)
    once = np.ones(len(grams), dtype=bool)  # a shingle that a row repeats side by side still counts once
    once[1:] = (bucket[1:] != bucket[:-1]) | (row_of[1:] != row_of[:-1])
    frequency = np.bincount(bucket[once], minlength=2**22)
    keep = frequency[bucket] < limit
    left = np.bincount(row_of[keep], minlength=rows)
    keep |= (left == 0)[row_of]
    sizes = np.bincount(row_of[keep], minlength=rows)
    return grams[keep], np.concatenate([[0], np.cumsum(sizes)])
