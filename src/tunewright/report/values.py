"""Facts of a run (bytes, seconds, hashes, nested records) as short text for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunewright.evaluate import names
from tunewright.text import _

Line = tuple[str, str]
_FEW = 6


def interval(metric: str, estimate: dict[str, Any]) -> str:
    """“0.84 – 0.96”; shares in percent. Empty where there is none."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return ""
    return f"{names.number(metric, low)} – {names.number(metric, high)}".replace(" % –", " –")


def plan(content: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(what, foreseen, measured) for each number of ``plan.json``; what was rehearsed was measured, before step 1."""
    foreseen, rehearsed = content.get("foreseen") or {}, content.get("rehearsed") or {}
    measured = {f"rehearsed_{key}": value for key, value in rehearsed.items()} | (content.get("measured") or {})
    keys = [key for key in dict.fromkeys([*foreseen, *measured]) if _is_plain(foreseen.get(key, measured.get(key)))]
    return [(words(key), _at(key, foreseen), _at(key, measured)) for key in keys]


def _at(key: str, numbers: dict[str, Any]) -> str:
    return value(key, numbers[key]) if key in numbers else "–"


def groups(manifest: dict[str, Any]) -> list[tuple[str, list[Line]]]:
    """``manifest.json`` as titled lists: each record of it, then what stood alone."""
    found: list[tuple[str, list[Line]]] = []
    alone: list[Line] = []
    for key, content in manifest.items():
        if isinstance(content, dict):
            found.append((words(key), _lines(content)))
        elif isinstance(content, list) and any(isinstance(entry, dict) for entry in content):
            found.append((words(key), [line for entry in content if isinstance(entry, dict) for line in _lines(entry)]))
        else:
            alone.append((words(key), value(key, content)))
    if alone:
        found.append((_("Run"), alone))
    return [(title, lines) for title, lines in found if lines]


def _lines(record: dict[str, Any]) -> list[Line]:
    lines = []
    for key, content in record.items():
        if isinstance(content, dict):
            lines += [(f"{words(key)} {words(inner)}", value(inner, deep)) for inner, deep in content.items()]
        else:
            lines.append((words(key), value(key, content)))
    return lines


def words(key: str) -> str:
    """``memory_bytes`` reads “memory”, ``seconds`` alone “time”."""
    alone = {"seconds": _("time"), "bytes": _("size")}
    return alone.get(key) or re.sub(r"_(bytes|seconds)$", "", key).replace("_", " ")


def value(key: str, content: Any) -> str:
    if content is None:
        return _("none")
    if isinstance(content, bool):
        return _("yes") if content else _("no")
    if isinstance(content, int | float):
        if key.endswith("bytes"):
            return size(content)
        if key.endswith("seconds"):
            return duration(content)
        return f"{content:,}" if isinstance(content, int) and content >= 10_000 else f"{content:g}"
    if isinstance(content, list):
        return ", ".join(value(key, entry) for entry in content)
    text = str(content)
    return text[:12] + "…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text


def size(count: float) -> str:
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.3g} {unit}"
    return f"{count:g} B"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return _("{s} s", s=f"{seconds:.3g}")
    if whole < 3600:
        return _("{m} min {s} s", m=whole // 60, s=whole % 60)
    return _("{h} h {m} min", h=whole // 3600, m=whole % 3600 // 60)


def cut(text: str, most: int) -> str:
    """At most ``most`` characters, and how many more there are."""
    text = text.strip()
    if len(text) <= most:
        return text
    return _("{text} … ({left} more characters)", text=text[:most], left=f"{len(text) - most:,}")


def few(places: Sequence[str]) -> str:
    """The first places of a list, and how many more there are."""
    more = len(places) - _FEW
    return ", ".join(places[:_FEW]) + (_(" and {more} more", more=more) if more > 0 else "")


def _is_plain(content: Any) -> bool:
    return content is None or isinstance(content, str | int | float)
