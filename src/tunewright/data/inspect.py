"""What ``data check`` and ``data stats`` tell about loaded data, without training anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunewright.data.check import check, nothing_to_learn, overlap
from tunewright.data.check_labels import labels_of
from tunewright.data.check_language import languages
from tunewright.data.check_lengths import too_long
from tunewright.data.codec import Codec
from tunewright.data.digest import Digest, clusters, digests
from tunewright.data.findings import finding
from tunewright.data.load import Loaded, Reading
from tunewright.data.split import none_held_out
from tunewright.example import Finding
from tunewright.recipe.schema import Data
from tunewright.text import _

_BARS = 12


def inspect(
    loaded: Loaded,
    data: Data,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    codec: Codec | None = None,
    most: int = 0,
) -> list[Finding]:
    """Every finding, those of severity error first. With the ``codec`` of a base rows are measured, which may have at
    most ``most`` tokens. Without it long rows are estimated, and special tokens are those of usual bases."""
    chats = [*loaded.chats, *loaded.validation]
    known = digests(chats)
    near, together = clusters(chats, known, reading.reads)
    specials = codec.specials_in if codec is not None else None
    found = check_loaded(loaded, known, near, data, reading, specials, estimate=codec is None)
    if codec is not None and reading.reads != "documents":  # documents are joined to rows of one length
        usable = [chat for chat in chats if nothing_to_learn(chat, reading.reads) is None]
        found += too_long(usable, codec, most, data, reading.reads)
    if not any(one.severity == "error" for one in found):  # a training would not come to it
        found += _held_out(loaded, together, data, reading, found)
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda one: order[one.severity])


def _held_out(
    loaded: Loaded, together: NDArray[np.int64], data: Data, reading: Reading, found: Sequence[Finding]
) -> Iterator[Finding]:
    """The finding D402, by the rule that a training splits by: rows that it would leave out do not count."""
    long = [row for one in found if one.code == "D302" and data.too_long == "drop" for row in one.rows]
    gone = {(row.file, row.row) for row in long}
    chats, border = [*loaded.chats, *loaded.validation], len(loaded.chats)
    kept = [
        index
        for index, chat in enumerate(chats)
        if nothing_to_learn(chat, reading.reads) is None and (chat.origin.file, chat.origin.row) not in gone
    ]
    if loaded.validation:
        one_side = not kept or kept[0] >= border or kept[-1] < border
        why_not = _("one of the two sides is empty") if one_side else None
    else:
        why_not = none_held_out(together[kept], data.held_out)
    if why_not is not None:
        yield finding("D402", long, count=len(kept), why_not=why_not)


def check_loaded(
    loaded: Loaded,
    known: Sequence[Digest],
    near: NDArray[np.int64],
    data: Data,
    reading: Reading,
    specials: Callable[[str], list[str]] | None = None,
    estimate: bool = True,
) -> list[Finding]:
    """The findings about training rows and validation rows; ``known`` and ``near`` are those of both, in this order."""
    border = len(loaded.chats)
    found = check(
        loaded.chats,
        known=known[:border],
        near=near[:border],
        missing=loaded.missing,
        shown=loaded.shown,
        ignored=loaded.ignored,
        data=data,
        specials=specials,
        reading=reading,
        validation=loaded.validation,
        estimate=estimate,
    )
    found += overlap([*loaded.chats, *loaded.validation], known, near, border)
    return found


def measure(loaded: Loaded, codec: Codec, reading: Reading = Reading()) -> dict[str, Any]:  # noqa: B008 - frozen
    """Lengths of the written examples in tokens, share learned, languages, copies; of labels, how often each stands.

    A label's number is learned, but is no token: a labelled row is as long as its text.
    """
    chats = [*loaded.chats, *loaded.validation]
    rendered = [row for rows in codec.render_many(chats) for row in rows]
    lengths = np.array([codec.size(row) for row in rendered], dtype=np.int64)
    total = int(lengths.sum()) if reading.reads == "labels" else sum(row.length for row in rendered)
    learned = sum(row.learned for row in rendered)
    known = digests(chats)
    near, _together = clusters(chats, known, reading.reads)
    exact = len(chats) - len({digest.row for digest in known})
    measured = {
        "rows": len(chats),
        "rendered": len(rendered),
        "tokens": total,
        "learned_tokens": learned,
        "learned_share": round(learned / total, 4) if total else 0.0,
        "lengths": _summary(lengths),
        "histogram": _histogram(lengths),
        "languages": dict(languages(chats, reading.reads).most_common()),
        "duplicates": {"exact": exact, "near": len(chats) - len(Counter(near.tolist())) - exact},
    }
    if reading.reads == "labels":
        counts = Counter(name for chat in chats for name in labels_of(chat, reading.multi_label))
        measured["labels"] = {name: counts[name] for name in loaded.labels}
    return measured


def _summary(lengths: np.ndarray[Any, Any]) -> dict[str, int]:
    if not len(lengths):
        return {"mean": 0, "median": 0, "p95": 0, "longest": 0}
    return {
        "mean": round(float(lengths.mean())),
        "median": int(np.median(lengths)),
        "p95": int(np.percentile(lengths, 95)),
        "longest": int(lengths.max()),
    }


def _histogram(lengths: np.ndarray[Any, Any]) -> list[dict[str, int]]:
    """At most 12 bars of equal width, a round number of tokens each."""
    if not len(lengths):
        return []
    longest = int(lengths.max())
    width = next(w for e in range(9) for w in (10**e, 2 * 10**e, 5 * 10**e) if w * _BARS >= longest)
    counts = np.bincount((lengths - 1) // width)
    return [{"from": i * width + 1, "to": (i + 1) * width, "rows": int(c)} for i, c in enumerate(counts)]
