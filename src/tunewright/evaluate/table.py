"""Before and after for the terminal, as rich renderables that fit 80 columns. They read ``evaluation.json`` only.

Every text of a row or of a model goes in as ``Text``, never as markup: an answer may contain ``[bold]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunewright.evaluate import names
from tunewright.text import _

WIDTH = 80
_LONGEST = 280  # characters of one text in a terminal; the whole of it is in evaluation.json


def table(evaluation: dict[str, Any]) -> Table:
    """before | after | difference, each with its interval; ▲ better, ▼ worse, ≈ inside the noise, = same."""
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1))
    shown.add_column("", ratio=1, overflow="fold")
    for title, width in ((_("before"), 11), (_("after"), 11), (_("difference"), 13)):
        shown.add_column(title, justify="right", width=width)
    shown.add_column("", width=8)
    for metric, change in evaluation.get("difference", {}).items():
        before, after = evaluation["before"].get(metric), evaluation["after"].get(metric)
        if not (after or {}).get("n"):
            continue
        mark, style = _mark(change)
        shown.add_row(
            Text(names.label(metric)),
            _cell(names.shown(metric, before), _interval(metric, before)),
            _cell(names.shown(metric, after), _interval(metric, after), "bold"),
            _cell(names.shown_change(metric, change), _interval(metric, change, change=True), style),
            Text(mark, style=style),
        )
    return shown


def legend() -> str:
    return _("Second lines: 95 % interval. Noise: the difference may be chance.")


def _cell(value: str, interval: str, style: str = "") -> Text:
    return Text.assemble((value, style), *((("\n" + interval, "dim"),) if interval else ()))


def _mark(change: dict[str, Any]) -> tuple[str, str]:
    if change.get("value") == 0:
        return _("= same"), "dim"
    if change.get("better") is None:
        return _("≈ noise"), "dim"
    return (_("▲ better"), "green") if change["better"] else (_("▼ worse"), "red")


def _interval(metric: str, estimate: dict[str, Any] | None, change: bool = False) -> str:
    if not estimate or estimate.get("low") is None or estimate.get("high") is None:
        return ""
    low, high = float(estimate["low"]), float(estimate["high"])
    if metric == names.LOSS:
        texts = [f"{x:+.2f}" if change else f"{x:.2f}" for x in (low, high)]
    elif names.is_count(metric) and estimate.get("n"):
        # As counts of the same rows; a share would be a second scale in one column.
        texts = [f"{x * estimate['n']:+.1f}" if change else f"{x * estimate['n']:.1f}" for x in (low, high)]
    else:
        texts = [f"{100 * x:+.1f}" if change else f"{100 * x:.1f}" for x in (low, high)]
    return "…".join(names.signed(text) if change else text for text in texts)


def answers(evaluation: dict[str, Any], count: int = 3) -> RenderableType:
    """``count`` questions with the answers before and after side by side, spread evenly over the held-out rows."""
    rows = evaluation.get("rows", [])
    step = max(1, len(rows) // count) if count else 1
    return Group(*(side_by_side(row) for row in rows[::step][:count]))


def side_by_side(row: dict[str, Any]) -> RenderableType:
    """One row of ``evaluation.json``."""
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1), title_justify="left")
    shown.title = Text.assemble((_cut(row["prompt"]), "bold"), (f"  {place(row)}", "dim"))
    for title in (_("before"), _("after"), _("reference")):
        shown.add_column(title, ratio=1, overflow="fold")
    shown.add_row(
        Text(_said(row["before"])), Text(_said(row["after"]), style="green"), Text(_cut(row["reference"]), style="dim")
    )
    return shown


def place(row: dict[str, Any]) -> str:
    """Where a row came from; a file below this folder without the way to it."""
    file = Path(row["file"])
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{shown}:{row['line']}" if row.get("line") else f"{shown} row {row.get('row', '?')}"


def _said(answer: dict[str, Any]) -> str:
    text = _cut(answer["text"]) or _("(nothing)")
    return text if answer.get("stopped") else text + " " + _("… (did not stop)")


def _cut(text: str) -> str:
    # Control characters could move the cursor or recolour the terminal.
    plain = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text.strip())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"
