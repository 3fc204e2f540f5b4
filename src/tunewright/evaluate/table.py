"""Before and after for the terminal, as rich renderables that fit 80 columns. They read ``evaluation.json`` only.

Which metrics there are stands in the file, how each is written in ``names.py``; nothing here knows one by name.

Every text of a row or of a model goes in as ``Text``, never as markup: an answer may contain ``[bold]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunewright.evaluate import kept, names
from tunewright.evaluate.verdict import yardstick_name
from tunewright.text import _

WIDTH = 80
_LONGEST = 280  # characters of one text in a terminal; the whole of it is in evaluation.json


def table(evaluation: dict[str, Any]) -> RenderableType:
    """before | after | difference, each with its interval; ▲ better, ▼ worse, ≈ inside the noise, = same. Where labels
    are chosen, the yardsticks below it; else what was kept of what the base could."""
    below = [part for part in (yardsticks(evaluation), _retention(evaluation)) if part is not None]
    return Group(_metrics(evaluation), *below) if below else _metrics(evaluation)


def _retention(evaluation: dict[str, Any]) -> RenderableType | None:
    """General questions and the divergence from the base, a line each."""
    general = evaluation.get("general") or {}
    if not general.get("asked"):
        return None
    lines = [line for line in (kept.known_line(general), kept.moved_line(general)) if line]
    return Text("\n".join(line[:1].upper() + line[1:] for line in lines) + "\n")


def _metrics(evaluation: dict[str, Any]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1))
    shown.add_column("", ratio=1, overflow="fold")
    for title, width in ((_("before"), 11), (_("after"), 11), (_("difference"), 13)):
        shown.add_column(title, justify="right", width=width)
    shown.add_column("", width=9)
    for metric, change in evaluation.get("difference", {}).items():
        before, after = evaluation["before"].get(metric), evaluation["after"].get(metric)
        if not (after or {}).get("n"):
            continue
        sign, style = mark(change)
        shown.add_row(
            Text(names.label(metric)),
            _cell(names.shown(metric, before), interval(metric, before)),
            _cell(names.shown(metric, after), interval(metric, after), "bold"),
            _cell(names.shown_change(metric, change), interval(metric, change, change=True), style),
            _cell(sign, names.chance(change), style),
        )
    return shown


def yardsticks(evaluation: dict[str, Any]) -> Table | None:
    """The tuned model against what costs nothing: each yardstick's own numbers, and below them how far ahead the tuned
    model is. None if nothing was measured beside it."""
    found = (evaluation.get("labels") or {}).get("yardsticks") or []
    metrics = [name for name in evaluation.get("after", {}) if not names.lower_is_better(name)][:3]
    if not found or not metrics:
        return None
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1))
    shown.add_column(_("yardstick, and the tuned model against it"), ratio=1, overflow="fold")
    for name in metrics:
        shown.add_column(names.label(name), justify="right", width=13)
    for yardstick in found:
        cells = []
        for name in metrics:
            change = yardstick["difference"].get(name) or {}
            sign, style = mark(change)
            ahead = f"{names.shown_change(name, change)} {sign[:1]}"
            cells.append(Text.assemble(names.shown(name, yardstick["values"].get(name)), "\n", (ahead, style)))
        shown.add_row(Text.assemble(yardstick_name(yardstick["name"]), ("\n" + yardstick["settings"], "dim")), *cells)
    return shown


def legend() -> str:
    return _(
        "Second lines: 95 % interval, and p, how often chance alone gives such a difference.\n"
        "Noise: the difference may be chance."
    )


def _cell(value: str, interval: str, style: str = "") -> Text:
    return Text.assemble((value, style), *((("\n" + interval, "dim"),) if interval else ()))


def mark(change: dict[str, Any]) -> tuple[str, str]:
    if change.get("value") == 0:
        return _("= same"), "dim"
    if change.get("better") is None:
        return _("≈ noise"), "dim"
    return (_("▲ better"), "green") if change["better"] else (_("▼ worse"), "red")


def interval(metric: str, estimate: dict[str, Any] | None, change: bool = False) -> str:
    if not estimate or estimate.get("low") is None or estimate.get("high") is None:
        return ""
    low, high = float(estimate["low"]), float(estimate["high"])
    if names.is_number(metric):
        texts = [f"{x:+,.2f}" if change else f"{x:,.2f}" for x in (low, high)]
    elif names.is_count(metric) and estimate.get("n"):
        # As counts of the same rows; a share would be a second scale in one column.
        texts = [f"{x * estimate['n']:+.1f}" if change else f"{x * estimate['n']:.1f}" for x in (low, high)]
    else:
        texts = [f"{100 * x:+.1f}" if change else f"{100 * x:.1f}" for x in (low, high)]
    return "…".join(names.signed(text) if change else text for text in texts)


def answers(evaluation: dict[str, Any], count: int = 3) -> RenderableType:
    """``count`` questions with the answers before and after side by side, spread evenly over the held-out rows; of
    labels, ``count`` rows that got a wrong one."""
    rows = evaluation.get("rows", [])
    if evaluation.get("gives") == "labels":
        return _wrong(evaluation, count)
    step = max(1, len(rows) // count) if count else 1
    return Group(*(side_by_side(row) for row in rows[::step][:count]))


def side_by_side(row: dict[str, Any]) -> RenderableType:
    """One row of ``evaluation.json``."""
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1), title_justify="left")
    shown.title = Text.assemble((_cut(row["prompt"]), "bold"), (f"  {place(row)}", "dim"))
    for title in (_("before"), _("after"), _("reference")):
        shown.add_column(title, ratio=1, overflow="fold")
    shown.add_row(
        Text.assemble(_thought(row["before"].get("thinking")), _said(row["before"])),
        Text.assemble(_thought(row["after"].get("thinking")), (_said(row["after"]), "green")),
        Text.assemble(_thought(row.get("reference_thinking")), (_cut(row["reference"]), "dim")),
    )
    return shown


def wrong_first(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of labels as a person wants to read them: wrong and most sure of it, then newly right, then the others."""

    def order(row: dict[str, Any]) -> tuple[int, float]:
        before, after = row["before"], row["after"]
        return (2 if before["right"] else 1) if after["right"] else 0, -float(after.get("loss") or 0.0)

    return sorted(rows, key=order)


def labelled(label: Any) -> str:
    """A label, or several with commas between, as a person reads it."""
    if isinstance(label, list):
        return ", ".join(label) or _("(none)")
    return _("(no choice)") if label is None else str(label)


def _wrong(evaluation: dict[str, Any], count: int) -> RenderableType:
    rows = [row for row in wrong_first(evaluation.get("rows", [])) if not row["after"]["right"]]
    if not rows or not count:
        return Group()
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1))
    shown.add_column(_("most sure and wrong, {n} of {all}", n=min(count, len(rows)), all=len(rows)), ratio=1)
    shown.add_column(_("said"), width=14, overflow="fold")
    shown.add_column(_("should be"), width=14, overflow="fold")
    for row in rows[:count]:
        text = _cut("\n".join(part for part in (row["text"], row.get("pair")) if part))
        said = Text.assemble((labelled(row["after"]["label"]), "red"), (_sure(row["after"]), "dim"))
        shown.add_row(Text.assemble(text, (f"  {place(row)}", "dim")), said, Text(labelled(row["label"])))
    return shown


def _sure(side: dict[str, Any]) -> str:
    probability = side.get("probability")
    return f" {100 * probability:.0f} %" if isinstance(probability, float | int) else ""


def place(row: dict[str, Any]) -> str:
    """Where a row came from; a file below this folder without the way to it."""
    file = Path(row["file"])
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{shown}:{row['line']}" if row.get("line") else f"{shown} row {row.get('row', '?')}"


def _thought(thinking: str | None) -> tuple[str, str]:
    """The reasoning before an answer, set back from it."""
    return (_cut(thinking) + "\n\n", "dim italic") if thinking else ("", "")


def _said(answer: dict[str, Any]) -> str:
    text = _cut(answer["text"]) or _("(nothing)")
    return text if answer.get("stopped") else text + " " + _("… (did not stop)")


def _cut(text: str) -> str:
    # Control characters could move the cursor or recolour the terminal.
    plain = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text.strip())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"
