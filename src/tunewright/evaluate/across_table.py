"""What ``across.py`` found, as a table of 80 columns for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunewright.evaluate import names
from tunewright.evaluate.table import WIDTH, interval, mark
from tunewright.text import _

_AT_ONCE = 4  # metrics that fit beside a name
__all__ = ["WIDTH", "table"]


def table(found: dict[str, Any]) -> RenderableType:
    """One row to each run and yardstick: value, 95 % interval, difference to the first run. More metrics than fit side
    by side go into a second table."""
    metrics: Sequence[str] = found["metrics"]
    parts: list[RenderableType] = [_part(found, metrics[at : at + _AT_ONCE]) for at in range(0, len(metrics), _AT_ONCE)]
    lower = [names.label(name).partition(" (")[0] for name in metrics if names.lower_is_better(name)]
    legend = [_("Below each number: its 95 % interval, and the difference to the first run (≈: may be chance).")]
    legend += [_("Lower is better: {names}.", names=", ".join(lower))] if lower else []
    return Group(*parts, Text("\n".join([*legend, *found["notes"]]), style="dim"))


def _part(found: dict[str, Any], metrics: Sequence[str]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, padding=(0, 1))
    shown.add_column(_("{n} held-out rows", n=f"{found['rows']:,}"), ratio=1, overflow="fold")
    for name in metrics:
        shown.add_column(names.label(name).partition(" (")[0], justify="right", width=11)
    for column in (*found["runs"], *found["yardsticks"]):
        shown.add_row(_named(column), *(_cell(name, column) for name in metrics))
    return shown


def _named(column: dict[str, Any]) -> Text:
    if "settings" in column:
        return Text(column["name"])
    how = ", ".join(fact.replace("_", " ") for fact in (column["head"], column["method"]) if fact)
    cost = [_("{n} trained", n=_short(column["trained_parameters"]))] if column["trained_parameters"] else []
    cost += [_minutes(column["seconds"])] if column["seconds"] else []
    lines = [line for line in (how, column["base"], ", ".join(cost)) if line]
    return Text.assemble((column["name"], "bold"), ("".join("\n" + line for line in lines), "dim"))


def _cell(metric: str, column: dict[str, Any]) -> Text:
    value, change = column["values"].get(metric), column["difference"].get(metric)
    text = Text(names.shown(metric, value))
    if around := interval(metric, value):
        text.append("\n" + around, "dim")
    if change is not None:
        word, style = mark(change)
        text.append(f"\n{names.shown_change(metric, change)} {word[:1]}", style)
    return text


def _short(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _minutes(seconds: float) -> str:
    return _("{m:.0f} min", m=seconds / 60) if seconds >= 60 else _("{s:.0f} s", s=seconds)
