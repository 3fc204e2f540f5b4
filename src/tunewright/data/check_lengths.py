"""Rows of extreme length, and what it would cost to cut long ones, as findings D214, D301, D302 and D306."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tunewright.data.codec import Codec
from tunewright.data.findings import Severity, Spots
from tunewright.data.formats import Reads
from tunewright.example import Chat, Finding, Rendered
from tunewright.recipe.schema import Data
from tunewright.text import _

_CHUNK = 1024
_ENOUGH = 30  # rows, before one can be unlike the rest
_FENCES = 3.0  # times the middle half of the rows' lengths, in logarithms, beyond its borders
_LONGER, _SHORTER = 8.0, 20.0  # and this many times longer or shorter than the median; a short answer is often right
_SURELY = 50.0  # and this many times longer is far whatever the rest is like
_MOST = 0.02  # as many are unlike the rest; where there are more, that is how the data is
# What the smallest bases of each kind hold. Nobody knows yet which base it will be.
_USUAL_LIMIT: dict[Reads, int] = {"turns": 2048, "pairs": 1024, "labels": 512}
_FRAME = 4  # tokens that a template writes around a message
_CHARACTER = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # about a token each; other signs four to a token


def check_lengths(chats: Sequence[Chat], reads: Reads, data: Data | None) -> Iterator[Finding]:
    """``data``: how long a row may be, if that is to be estimated."""
    if reads != "documents":  # a document can be a line or a book, and is joined with others to rows of one length
        yield from _extremes(chats, reads)
        if data is not None:
            yield from _estimated(chats, reads, data)


def _extremes(chats: Sequence[Chat], reads: Reads) -> Iterator[Finding]:
    """Rows whose text, or whose answer, is far longer or shorter than that of nearly all others."""
    sizes = np.array([sum(len(m.content) for m in chat.messages) for chat in chats])
    far = _far(sizes)
    what = {index: int(sizes[index]) for index in np.flatnonzero(far).tolist()}
    if reads != "labels":
        answers = np.array([_answer_size(chat) for chat in chats])
        for index in np.flatnonzero(_far(answers)).tolist():
            what.setdefault(index, int(answers[index]))
    spots = Spots()
    for index in sorted(what):
        spots.add(chats[index].origin, _("{count} characters", count=f"{what[index]:,}"))
    usual = int(np.median(sizes)) if len(sizes) else 0
    yield from spots.finding("D214", usual=f"{usual:,}")


def _answer_size(chat: Chat) -> int:
    last = chat.last_answer()
    return 0 if last is None else len(chat.messages[last].content)


def _far(sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) which lengths lie outside of Tukey's fences around their logarithms, and far from the median."""
    none = np.zeros(len(sizes), dtype=bool)
    said = sizes > 0  # a row that says nothing has findings of its own
    if said.sum() < _ENOUGH:
        return none
    logs = np.log(np.maximum(sizes, 1))
    low, middle, high = np.percentile(logs[said], [25, 50, 75])
    spread = _FENCES * (high - low)
    away = (logs > np.minimum(high + spread, middle + np.log(_SURELY))) | (logs < low - spread)
    far = said & away & ((logs > middle + np.log(_LONGER)) | (logs < middle - np.log(_SHORTER)))
    return far if far.sum() <= max(1, _MOST * len(sizes)) else none


# -- what cutting would cost -----------------------------------------------------------------------------------------


@dataclass
class Cost:
    """What rows would lose at the lengths ``limits``. rows: longer ones.  answers: learned tokens behind the limit,
    told only of conversations: elsewhere what is learned does not stand behind the text."""

    limits: tuple[int, ...]
    reads: Reads
    rows: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    learned: int = 0

    def __post_init__(self) -> None:
        self.rows, self.answers = [0] * len(self.limits), [0] * len(self.limits)

    @classmethod
    def at(cls, most: int, reads: Reads) -> Cost:
        """At ``most`` tokens, at half and at a quarter of it."""
        return cls(tuple(limit for limit in (most, most // 2, most // 4) if limit >= 8), reads)

    def add(self, length: int, learned: int, behind: Callable[[int], int]) -> None:
        """A row of ``length`` tokens, ``learned`` of them learned; behind: how many of these stand behind a limit."""
        self.learned += learned
        for place, limit in enumerate(self.limits):
            if length > limit:
                self.rows[place] += 1
                self.answers[place] += behind(limit)

    def add_row(self, row: Rendered, size: int) -> None:
        """size: tokens that the base has to hold at once."""
        self.add(size, row.learned, lambda limit: int(row.learn[limit:].sum()))

    def __str__(self) -> str:
        parts = []
        for limit, rows, answers in zip(self.limits, self.rows, self.answers, strict=True):
            part = _("at {limit} tokens {rows} rows", limit=limit, rows=f"{rows:,}")
            if self.reads == "turns":
                share = 100 * answers / self.learned if self.learned else 0.0
                part += _(" and {answers} answer tokens ({share} %)", answers=f"{answers:,}", share=f"{share:.2g}")
            parts.append(part)
        return "; ".join(parts)


def too_long(chats: Sequence[Chat], codec: Codec, most: int, data: Data, reads: Reads) -> Iterator[Finding]:
    """The finding D301 or D302: rows with more than ``most`` tokens, as ``codec`` writes them."""
    cost = Cost.at(most, reads)
    long = Spots()
    longest = 0
    for start in range(0, len(chats), _CHUNK):
        some = chats[start : start + _CHUNK]
        for chat, rows in zip(some, codec.render_many(some), strict=True):
            sizes = [codec.size(row) for row in rows]
            for row, size in zip(rows, sizes, strict=True):
                cost.add_row(row, size)
            longest = max([longest, *sizes])
            if max(sizes, default=0) > most:
                long.add(chat.origin, _("{count} tokens", count=f"{max(sizes):,}"))
    if data.too_long == "stop":
        raise_it = "" if data.max_length == "auto" else _(", or raise data.max_length")
        yield from long.finding("D301", limit=most, longest=longest, cost=str(cost), raise_it=raise_it)
    else:
        what = _("they will be left out") if data.too_long == "drop" else _("their context will be cut")
        yield from long.finding("D302", limit=most, what=what, cost=str(cost))


def _estimated(chats: Sequence[Chat], reads: Reads, data: Data) -> Iterator[Finding]:
    """Rows that look longer than the limit. Tokens are counted by a base, so before there is one they are estimated."""
    limit = _USUAL_LIMIT[reads] if data.max_length == "auto" else data.max_length
    cost = Cost.at(limit, reads)
    long = Spots()
    longest = 0
    for chat in chats:
        end, answers = 0, []
        for message in chat.messages:
            start, end = end, end + _tokens(message.content) + _tokens(message.thinking or "") + _FRAME
            if message.learn:
                answers.append((start, end))
        cost.add(end, sum(stop - start for start, stop in answers), _behind(answers))
        if end > limit:
            long.add(chat.origin, _("about {count} tokens", count=f"{end:,}"))
            longest = max(longest, end)
    severity: Severity = "info" if data.max_length == "auto" else "warning"
    yield from long.finding("D306", severity, limit=limit, longest=f"{longest:,}", cost=str(cost))


def _behind(answers: Sequence[tuple[int, int]]) -> Callable[[int], int]:
    return lambda limit: sum(max(0, end - max(start, limit)) for start, end in answers)


def _tokens(text: str) -> int:
    """About as many as a tokenizer makes of ``text``."""
    if text.isascii():
        return len(text) // 4
    characters = len(_CHARACTER.findall(text))
    return characters + (len(text) - characters) // 4
