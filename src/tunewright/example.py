"""The typed rows that everything else speaks about. Nothing here knows a file format or a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from, so that every later message can name it.

    file: path as the person gave it.  line: first line of the row, from 1 (0 where a format has no lines).
    row: number of the row in its file, from 1.  extra: fields that were neither text nor label (``id``, ``source``).
    """

    file: str
    line: int
    row: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else f"{self.file} row {self.row}"

    @property
    def place(self) -> dict[str, Any]:
        """For programs."""
        return {"file": self.file, "line": self.line, "row": self.row}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``learn`` is True where this turn's tokens are counted in the loss (assistant turns by default).

    thinking: the chain of thought that precedes ``content``; how it is written is the template's business.
    """

    role: Role
    content: str
    learn: bool = False
    thinking: str | None = None
    name: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation: an example of the task ``chat``."""

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()

    def last_answer(self) -> int | None:
        """Index of the last learned assistant turn: what a generation is compared with. None if there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "assistant" and self.messages[index].learn:
                return index
        return None


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of one example and which of them are learned.

    ids: (T,) int32.  learn: (T,) bool, True = this token is counted in the loss.
    """

    ids: NDArray[np.int32]
    learn: NDArray[np.bool_]
    origin: Origin

    @property
    def length(self) -> int:
        return int(self.ids.shape[0])

    @property
    def learned(self) -> int:
        """Learned tokens. The first token of a row can never be predicted, hence never be learned."""
        return int(self.learn[1:].sum())


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation about data. It never changes data.

    code: stable, such as ``D101``; titles and advice stand in ``data/findings.yaml``.
    severity: ``error`` stops a run, ``warning`` does not.  rows: where it was seen; count: how often.
    seen: beside ``rows``, what was seen there, secrets masked; empty where there is nothing to show.
    others: beside ``rows``, the row that each one repeats or contradicts; empty where a row stands for itself.
    """

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    advice: str
    count: int
    rows: tuple[Origin, ...] = ()
    seen: tuple[str, ...] = ()
    others: tuple[Origin, ...] = ()

    def as_dict(self, most: int | None = None) -> dict[str, Any]:
        """For programs; with at most ``most`` of the rows."""
        rows = [row.place for row in self.rows[:most]]
        for row, seen in zip(rows, self.seen, strict=False):
            row["seen"] = seen
        for row, other in zip(rows, self.others, strict=False):
            row["like"] = other.place
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "advice": self.advice,
            "count": self.count,
            "rows": rows,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Finding:
        """Back from ``as_dict``."""
        rows = stored["rows"]
        return cls(
            **{**stored, "rows": tuple(Origin(row["file"], row["line"], row["row"]) for row in rows)},
            seen=tuple(row["seen"] for row in rows if "seen" in row),
            others=tuple(Origin(**row["like"]) for row in rows if "like" in row),
        )

