"""Where every row went. Rows in = rows kept + rows left out, by construction: a row is put down once, on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tunewright.example import Origin

# Why a row may be left out; nothing else can be.
REASONS: dict[str, str] = {
    "nothing_learned": "it has no answer to learn, and data.allow_unlearned is set",
    "too_long": "it is longer than data.max_length, and data.too_long is drop",
    "answer_too_long": "its answer alone is longer than data.max_length, and an answer is never cut",
}


class Ledger:
    """Each row of the input is entered exactly once, with ``keep`` or ``leave_out``."""

    def __init__(self, rows_in: int) -> None:
        self.rows_in = rows_in
        self._kept = 0
        self._left: list[dict[str, Any]] = []
        self._origins: list[Origin] = []
        self._cut = {"rows": 0, "context_tokens": 0, "answer_tokens": 0}

    def keep(self, rows: int) -> None:
        self._kept += rows

    def leave_out(self, origin: Origin, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"no such reason: {reason}")
        self._origins.append(origin)
        self._left.append(
            {**origin.place, "reason": reason, "detail": detail}
        )

    def origins(self, reason: str) -> list[Origin]:
        """The rows left out for this reason."""
        return [o for o, entry in zip(self._origins, self._left, strict=True) if entry["reason"] == reason]

    def cut(self, context_tokens: int) -> None:
        self._cut["rows"] += 1
        self._cut["context_tokens"] += context_tokens

    def as_dict(self, **more: Any) -> dict[str, Any]:
        """The content of ``ledger.json``. Raises AssertionError if a row was lost or counted twice."""
        left_out = Counter(entry["reason"] for entry in self._left)
        places = {(entry["file"], entry["row"]) for entry in self._left}
        if self.rows_in != self._kept + left_out.total() or len(places) != len(self._left):
            raise AssertionError(
                f"the ledger does not add up: {self.rows_in} in, {self._kept} kept, {left_out} left out"
            )
        return {
            "rows_in": self.rows_in,
            "kept": self._kept,
            "left_out": dict(sorted(left_out.items())),
            "rows": self._left,
            "cut": dict(self._cut),
            **more,
        }


def tokens_of(learn_lengths: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Tokens, learned tokens and the share of the second in the first; from (length, learned) of each row."""
    tokens = sum(length for length, _learned in learn_lengths)
    learned = sum(learned for _length, learned in learn_lengths)
    return {"tokens": tokens, "learned_tokens": learned, "learned_share": round(learned / tokens, 4) if tokens else 0.0}
