"""Which rows go through the model together."""

from __future__ import annotations

from collections.abc import Sequence


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices of rows cut into groups whose padded size, rows times the longest, is at most ``token_budget``.

    Longest first, so that memory peaks at once and groups hold rows of like length; a single longer row stands alone.
    Ties are ordered by index, so the result depends on nothing but the arguments.

    >>> micro_batches([3, 9, 4, 4], token_budget=8)
    [[1], [2, 3], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    for index in order:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= token_budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
