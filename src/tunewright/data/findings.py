"""The catalogue of findings (``findings.yaml``) and how one is made from it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from tunewright.errors import DataError
from tunewright.example import Finding, Origin
from tunewright.text import _

Severity = Literal["error", "warning", "info"]
ROWS_SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """One entry of the catalogue; ``message`` and ``advice`` have {placeholders}."""

    code: str
    severity: Severity
    title: str
    message: str
    why: str
    advice: str


@cache
def catalogue() -> dict[str, Entry]:
    content = yaml.safe_load((Path(__file__).parent / "findings.yaml").read_text(encoding="utf-8"))
    return {code: Entry(code=code, **entry) for code, entry in content.items()}


def finding(
    code: str,
    rows: Sequence[Origin],
    count: int | None = None,
    severity: Severity | None = None,
    seen: Sequence[str] = (),
    others: Sequence[Origin] = (),
    **values: object,
) -> Finding:
    """A finding seen at ``rows``. ``count`` is how often, where that is not the number of rows."""
    entry = catalogue()[code]
    count = len(rows) if count is None else count
    return Finding(
        code=code,
        severity=severity or entry.severity,
        message=_(entry.message, count=count, **values),
        advice=_(entry.advice, count=count, **values),
        count=count,
        rows=tuple(rows),
        seen=tuple(seen),
        others=tuple(others),
    )


@dataclass
class Spots:
    """Rows in which one thing was seen, collected on the way through the data."""

    rows: list[Origin] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def add(self, row: Origin, seen: str) -> None:
        self.rows.append(row)
        self.seen.append(seen)

    def finding(self, code: str, severity: Severity | None = None, **values: str | int) -> list[Finding]:
        """The finding, or none if nothing was seen. ``{example}`` in its message is what was seen first."""
        if not self.rows:
            return []
        return [finding(code, self.rows, None, severity, self.seen, (), example=self.seen[0], **values)]


def named(counts: Counter[str], most: int = 6) -> str:
    """Names with how often each was seen, the most frequent first."""
    shown = [f"{name} ({count})" for name, count in counts.most_common(most)]
    return ", ".join(shown) + (" …" if len(counts) > most else "")


def short(origin: Origin) -> str:
    """A row's place, without the way to this folder where it lies below."""
    text, here = str(origin), os.getcwd() + os.sep
    return text[len(here) :] if text.startswith(here) else text


def places(found: Finding, place: Callable[[Origin], str] = str) -> str:
    """The first rows of a finding for people: what was seen there or whom it repeats, and how many more there are."""
    shown = []
    for number, row in enumerate(found.rows[:ROWS_SHOWN]):
        text = place(row)
        if found.others:
            text += _(" (like {other})", other=place(found.others[number]))
        elif found.seen:
            text += f" ({found.seen[number]})"
        shown.append(text)
    more = found.count - len(shown)
    return ", ".join(shown) + (_(" and {count} more", count=more) if shown and more > 0 else "")


_OVERRIDE = re.compile(r"data\.[\w.]+=(?:…|[\w.]+\w)")


def mend(found: Finding) -> list[str]:
    """The ``key=value`` words that the advice names, to be typed behind a command."""
    words = _OVERRIDE.findall(found.advice)
    return words if found.code == "D103" else words[:1]


def stop_if_errors(findings: Sequence[Finding]) -> None:
    """Raises DataError for the findings of severity ``error``, all in one message."""
    errors = [found for found in findings if found.severity == "error"]
    if not errors:
        return
    first = errors[0]
    others = "".join(_("\n  also [{code}]: {text}", code=found.code, text=found.message) for found in errors[1:])
    file = first.rows[0].file if first.rows else "FILE"
    raise DataError(
        f"[{first.code}] {first.message}{others}",
        where=places(first) or None,
        do=first.advice,
        command=" ".join(["tunewright data check", file, *mend(first)]),
    )
