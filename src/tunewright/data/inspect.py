"""What ``data check`` and ``data stats`` tell about loaded data, without training anything."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tunewright.data.check import check, clusters, digests, languages, nothing_to_learn
from tunewright.data.findings import finding
from tunewright.data.load import Loaded
from tunewright.data.template import ChatTemplate
from tunewright.example import Finding
from tunewright.recipe.schema import Data

_BARS = 12


def inspect(loaded: Loaded, data: Data) -> list[Finding]:
    """Every finding that needs no base."""
    chats = [*loaded.chats, *loaded.validation]
    known = digests(chats)
    near, _together = clusters(chats, known)
    border = len(loaded.chats)
    found = check(
        loaded.chats,
        known=known[:border],
        near=near[:border],
        missing=loaded.missing,
        ignored=loaded.ignored,
        allow_few=data.allow_few,
        allow_unlearned=data.allow_unlearned,
    )
    trained = set(near[:border].tolist())
    overlap = [c.origin for c, label in zip(loaded.validation, near[border:], strict=True) if int(label) in trained]
    if overlap:
        found.append(finding("D401", overlap))
    empty = [chat.origin for chat in loaded.validation if nothing_to_learn(chat)]
    if empty:
        found.append(finding("D104", empty, severity="warning" if data.allow_unlearned else "error"))
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda one: order[one.severity])


def measure(loaded: Loaded, template: ChatTemplate) -> dict[str, Any]:
    """Lengths of the rendered conversations in tokens, share learned, languages, copies."""
    chats = [*loaded.chats, *loaded.validation]
    rendered = [row for rows in template.render_many(chats) for row in rows]
    lengths = np.array([row.length for row in rendered], dtype=np.int64)
    learned = sum(row.learned for row in rendered)
    known = digests(chats)
    near, _together = clusters(chats, known)
    exact = len(chats) - len({digest.whole for digest in known})
    total = int(lengths.sum())
    return {
        "rows": len(chats),
        "rendered": len(rendered),
        "tokens": total,
        "learned_tokens": learned,
        "learned_share": round(learned / total, 4) if total else 0.0,
        "lengths": _summary(lengths),
        "histogram": _histogram(lengths),
        "languages": dict(languages(chats).most_common()),
        "duplicates": {"exact": exact, "near": len(chats) - len(Counter(near.tolist())) - exact},
    }


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
