"""What is odd about pairs of source and target, as findings D511 and D512."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tunewright.data.findings import finding
from tunewright.example import Chat, Finding

_USUAL = np.log(1.25)  # half of the pairs lie within this of the median: the two sides are about as long
_STRANGE = np.log(3.0)
_SMOOTH = 15  # characters added to both sides, so that short words are no surprise


def check_pairs(chats: Sequence[Chat]) -> Iterator[Finding]:
    """Targets that are their sources, and lengths that do not go together."""
    pairs = [(chat, chat.messages[-2].content.strip(), chat.messages[-1].content.strip()) for chat in chats]
    same = [chat.origin for chat, source, target in pairs if source and source == target]
    if same:
        yield finding("D511", same)
    pairs = [pair for pair in pairs if pair[1] and pair[2]]
    if len(pairs) < 20:
        return
    ratios = np.log([(len(target) + _SMOOTH) / (len(source) + _SMOOTH) for _chat, source, target in pairs])
    far = np.abs(ratios - np.median(ratios))
    if np.median(far) > _USUAL:  # answers to instructions: any length goes with any
        return
    rows = [chat.origin for (chat, _source, _target), away in zip(pairs, far, strict=True) if away > _STRANGE]
    if rows and len(rows) <= 0.2 * len(pairs):
        yield finding("D512", rows)
