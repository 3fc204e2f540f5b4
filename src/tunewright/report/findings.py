"""The findings about a data file on one self-contained page, each with some of the rows it is about.

What is shown holds text of strangers: the template escapes it, and what looks like a secret or a person's address is
masked wherever it stands, not only where it was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright import __version__
from tunewright.data.check_personal import masked
from tunewright.data.findings import catalogue, short
from tunewright.data.load import Loaded
from tunewright.example import Chat, Finding, Message, Origin
from tunewright.report import place, values
from tunewright.report.template import template
from tunewright.settings import settings
from tunewright.text import _

TEMPLATE = "findings.html.jinja"
ROWS_SHOWN = 6  # of each finding, with their text
PLACES_SHOWN = 60  # and as many more by file and line alone
_LONGEST = 420  # characters of one text
_TURNS = 6


def write(path: Path, source: str, task: str, loaded: Loaded, found: Sequence[Finding]) -> None:
    """The page about the rows of ``source``, whole or not at all."""
    place.write(path, html(source, task, loaded, found))


def html(source: str, task: str, loaded: Loaded, found: Sequence[Finding]) -> str:
    rows = {_key(chat.origin): chat for chat in (*loaded.chats, *loaded.validation)}
    severities = Counter[str](one.severity for one in found)
    page = {
        "source": source,
        "headline": _headline(severities),
        "tone": "bad" if severities["error"] else "plain" if severities["warning"] else "good",
        "detail": _(
            "{rows} rows, read as {format} for the task {task}: {reason}.",
            rows=f"{len(rows):,}", format=loaded.format_name, task=task, reason=loaded.format_reason,
        ),
        "findings": [_finding(one, rows) for one in found],
        "version": __version__,
    }  # fmt: skip
    return template(TEMPLATE).render(language=settings().language, **page) + "\n"


def _headline(severities: Counter[str]) -> str:
    errors, warnings = severities["error"], severities["warning"]
    if errors:
        return _("{count} findings stop a training", count=errors) if errors > 1 else _("One finding stops a training")
    if warnings:
        return _("{count} findings to look at", count=warnings) if warnings > 1 else _("One finding to look at")
    return _("Nothing stands in the way")


def _finding(found: Finding, rows: dict[tuple[str, int], Chat]) -> dict[str, Any]:
    entry = catalogue()[found.code]
    named = len(found.rows)
    shown = [_example(found, number, rows) for number in range(min(named, ROWS_SHOWN))]
    places = [short(origin) for origin in found.rows[ROWS_SHOWN : ROWS_SHOWN + PLACES_SHOWN]]
    return {
        "code": found.code,
        "severity": found.severity,
        "title": _(entry.title),
        "message": masked(found.message),
        "why": _(entry.why),
        "advice": found.advice if found.severity != "info" else "",
        "count": f"{found.count:,}",
        "share": round(100 * min(1.0, named / max(1, len(rows))), 2) if named else None,
        "rows": shown,
        "places": places,
        "left": max(0, named - ROWS_SHOWN - PLACES_SHOWN),
    }


def _example(found: Finding, number: int, rows: dict[tuple[str, int], Chat]) -> dict[str, Any]:
    origin = found.rows[number]
    other = found.others[number] if found.others else None
    return {
        "place": short(origin),
        "seen": found.seen[number] if found.seen else "",
        "turns": _turns(rows.get(_key(origin))),
        "other": short(other) if other else "",
        "other_turns": _turns(rows.get(_key(other))) if other else [],
    }


def _turns(chat: Chat | None) -> list[tuple[str, str]]:
    """Who says what, a long conversation by its first turns."""
    if chat is None:
        return []
    turns = [(_(message.role), _text(message)) for message in chat.messages[:_TURNS]]
    more = len(chat.messages) - len(turns)
    return [*turns, ("", _("{count} more turns", count=more))] if more else turns


def _text(message: Message) -> str:
    said = message.content or " ".join(str(dict(call)) for call in message.tool_calls)
    return values.cut(masked(said), _LONGEST) or _("(nothing)")


def _key(origin: Origin) -> tuple[str, int]:
    return origin.file, origin.row
