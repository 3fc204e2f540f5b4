"""The catalogue of findings (``findings.yaml``) and how one is made from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from tunewright.errors import DataError
from tunewright.example import Finding, Origin
from tunewright.text import _

Severity = Literal["error", "warning", "info"]
_ROWS_SHOWN = 5


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
    code: str, rows: Sequence[Origin], count: int | None = None, severity: Severity | None = None, **values: object
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
        rows=tuple(rows[:_ROWS_SHOWN]),
    )


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
    places = ", ".join(map(str, first.rows))
    more = first.count - len(first.rows)
    if first.rows and more > 0:
        places += _(" and {count} more", count=more)
    others = "".join(_("\n  also [{code}]: {text}", code=found.code, text=found.message) for found in errors[1:])
    file = first.rows[0].file if first.rows else "FILE"
    raise DataError(
        f"[{first.code}] {first.message}{others}",
        where=places or None,
        do=first.advice,
        command=" ".join(["tunewright data check", file, *mend(first)]),
    )
