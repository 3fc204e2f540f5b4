"""The parts of the page that only a run which chooses labels has: yardsticks, labels one by one, calibration, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.evaluate import names
from tunewright.evaluate.table import labelled, place, wrong_first
from tunewright.evaluate.verdict import yardstick_name
from tunewright.report import confusion, values
from tunewright.text import _

_MANY = 20  # with more labels than this the weakest are shown first
_WEAKEST = 10
_DRAWN = 150  # with more labels than this the matrix is no picture any more
_BESIDE = 6  # up to this many labels the matrix before stands beside the one after
_LONGEST = 1200  # characters of one text; the whole of it is in evaluation.json


def content(evaluation: dict[str, Any], rows_shown: int) -> dict[str, Any] | None:
    """What ``labels.html.jinja`` is given; None for a run that chooses no labels."""
    labels = evaluation.get("labels")
    if not labels:
        return None
    rows = wrong_first(evaluation.get("rows", []))
    after = labels["after"]
    return {
        "multi_label": labels["multi_label"],
        "yardsticks": _yardsticks(evaluation),
        "metrics": [names.label(name) for name in _compared(evaluation)],
        "classes": _classes(after["per_class"], labels["before"]["per_class"]),
        "weakest": _weakest(labels) if len(labels["names"]) > _MANY else [],
        "matrices": _matrices(labels),
        "mistakes": confusion.mistakes(after["confusion"], labels["names"]) if after["confusion"] else [],
        "reliability": reliability(labels["before"]["calibration"], after["calibration"]),
        "without_choice": after.get("without_choice", 0),
        "rows": [_row(row) for row in rows[:rows_shown]],
        "rows_left": max(0, len(rows) - rows_shown),
        "wrong": sum(not row["after"]["right"] for row in rows),
        "all": len(rows),
    }


def _compared(evaluation: dict[str, Any]) -> list[str]:
    return [name for name in evaluation.get("after", {}) if name != names.CALIBRATION]


def _yardsticks(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """One line to each: its own values, and the tuned model against it."""
    lines = []
    for yardstick in evaluation["labels"].get("yardsticks") or []:
        cells = []
        for name in _compared(evaluation):
            change = yardstick["difference"].get(name) or {}
            cells.append(
                {
                    "metric": names.label(name),
                    "value": names.shown(name, yardstick["values"].get(name)),
                    "interval": values.interval(name, yardstick["values"].get(name) or {}),
                    "change": names.shown_change(name, change),
                    "better": change.get("better"),
                }
            )
        lines.append({"label": yardstick_name(yardstick["name"]), "settings": yardstick["settings"], "cells": cells})
    return lines


def _classes(lines: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each line of the tuned model with the F1 that the label had before."""
    earlier = {line["label"]: line["f1"] for line in before}
    shown = []
    for line in lines:
        numbers = {key: _percent(line[key]) for key in ("precision", "recall", "f1")}
        width = round(100 * float(line["f1"] or 0.0), 1)
        shown.append(line | numbers | {"before": _percent(earlier[line["label"]]), "width": width})
    return shown


def _weakest(labels: dict[str, Any]) -> list[dict[str, Any]]:
    """The labels with the lowest F1 of those that a held-out row has."""
    asked = [line for line in labels["after"]["per_class"] if line["support"]]
    lowest = sorted(asked, key=lambda line: float(line["f1"] or 0.0))[:_WEAKEST]
    return _classes(lowest, labels["before"]["per_class"])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _matrices(labels: dict[str, Any]) -> list[tuple[str, confusion.Matrix]]:
    """(title, matrix): before and after side by side while that is readable, else only after."""
    if not labels["after"]["confusion"] or len(labels["names"]) > _DRAWN:
        return []
    shown = [(_("after"), confusion.matrix(labels["after"]["confusion"], labels["names"]))]
    if len(labels["names"]) <= _BESIDE:
        shown.insert(0, (_("before"), confusion.matrix(labels["before"]["confusion"], labels["names"])))
    return shown


def _row(row: dict[str, Any]) -> dict[str, Any]:
    sides = {
        side: {
            "label": labelled(row[side]["label"]),
            "probability": _sure(row[side].get("probability")),
            "right": row[side]["right"],
        }
        for side in ("before", "after")
    }
    texts = [values.cut(text, _LONGEST) for text in (row["text"], row.get("pair")) if text is not None]
    return {"texts": texts, "place": place(row), "label": labelled(row["label"])} | sides


def _sure(probability: Any) -> str:
    """“87 %”, or one of them to each label."""
    if isinstance(probability, list):
        return ", ".join(map(_sure, probability))
    return "" if probability is None else f"{100 * probability:.0f} %"


# --- calibration ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reliability:
    """Paths in a box of 1000 x 1000 (y down): what was said to the right, what came true upwards.

    before, after: dots as (x, y, width in pixels, title); the more rows, the wider.
    """

    before_path: str
    after_path: str
    before: tuple[tuple[float, float, float, str], ...]
    after: tuple[tuple[float, float, float, str], ...]
    summary: str


def reliability(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> Reliability | None:
    """The reliability diagram of two calibrations; None where no row was measured."""
    if not after:
        return None
    top = max(after, key=lambda one: one["count"])
    return Reliability(
        _path(before), _path(after), _dots(before), _dots(after),
        _(
            "Most often ({n} times) the tuned model was about {said} % sure; {true} % of these came true.",
            n=top["count"], said=f"{100 * top['confidence']:.0f}", true=f"{100 * top['accuracy']:.0f}",
        ),
    )  # fmt: skip


def _point(one: dict[str, Any]) -> tuple[float, float]:
    return round(1000 * one["confidence"], 1), round(1000 * (1 - one["accuracy"]), 1)


def _path(bins: Sequence[dict[str, Any]]) -> str:
    return "M" + " L".join("{:g} {:g}".format(*_point(one)) for one in bins) if len(bins) > 1 else ""


def _dots(bins: Sequence[dict[str, Any]]) -> tuple[tuple[float, float, float, str], ...]:
    most = max((one["count"] for one in bins), default=1)
    return tuple(
        (*_point(one), round(4 + 10 * float(one["count"] / most) ** 0.5, 1), _title(one)) for one in bins
    )


def _title(one: dict[str, Any]) -> str:
    return _(
        "said {said} %, came true {true} %, {n} times",
        said=f"{100 * one['confidence']:.0f}", true=f"{100 * one['accuracy']:.0f}", n=one["count"],
    )
