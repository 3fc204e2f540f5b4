"""Before and after of a model that chooses labels: probabilities on the held-out rows, and what differs between two.

The base (with an untrained head, or asked as it is) and the tuned model go through :func:`measure_labels` with the same
rows. :func:`compare_labels` puts them side by side, and beside the yardsticks, and is the content of
``evaluation.json``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tunewright.evaluate import classes, names
from tunewright.evaluate.classes import Bools
from tunewright.evaluate.compare import better
from tunewright.evaluate.metrics import Estimate, Floats, mean, mean_change, share, share_change
from tunewright.evaluate.verdict import verdict
from tunewright.evaluate.yardstick import Given, Yardstick
from tunewright.example import Origin, Rendered
from tunewright.infer.engine import Progress

Values = dict[str, Estimate]


class Chooser(Protocol):
    """What is asked of an engine here: ``infer/labels.py`` has the one."""

    logits: Any  # with ``wanted(rows)``: (N, 1) numbers of labels, or (N, L) of 0 and 1

    def probabilities(self, rows: Sequence[Rendered], progress: Progress | None = None) -> Floats:
        """(N, L) in the order of ``rows``."""
        ...


@dataclass(frozen=True, slots=True)
class LabelMeasurement:
    """What one model did with N rows and L labels.

    texts: what was read, for people, with the second text of a pair.  wanted: (N, L) bool; exactly one True to a row
    unless ``multi_label``.  probabilities: (N, L), NaN where the model gave no number.
    """

    origins: tuple[Origin, ...]
    texts: tuple[Given, ...]
    wanted: Bools
    probabilities: Floats
    labels: tuple[str, ...]
    multi_label: bool

    @property
    def chosen(self) -> Bools:
        return classes.choose(self.probabilities, self.multi_label)


def measure_labels(
    engine: Chooser,
    rows: Sequence[Rendered],
    texts: Sequence[Given],
    labels: Sequence[str],
    multi_label: bool = False,
    progress: Progress | None = None,
) -> LabelMeasurement:
    """Probabilities for all held-out ``rows``. The engine batches."""
    nothing = np.zeros((len(rows), len(labels)))
    probabilities = engine.probabilities(rows, progress) if rows else nothing
    numbers = engine.logits.wanted(rows).tolist() if rows else []
    wanted = np.array(numbers, dtype=np.bool_) if multi_label and rows else classes.marked(numbers, len(labels))
    return LabelMeasurement(
        tuple(row.origin for row in rows), tuple(texts), wanted, probabilities, tuple(labels), multi_label
    )


def compare_labels(
    before: LabelMeasurement, after: LabelMeasurement, yardsticks: Sequence[Yardstick] = (), seed: int = 0
) -> dict[str, Any]:
    """The content of ``evaluation.json``; standard JSON, a value that is no finite number is null.

    The shape is that of ``compare.compare``, with ``"gives": "labels"`` and a part ``labels``. Raises ValueError if the
    two measured different rows or labels.
    """
    if before.origins != after.origins or before.labels != after.labels or (before.wanted != after.wanted).any():
        raise ValueError("before and after were measured on different rows or labels")
    one, two = _values(before, seed), _values(after, seed)
    change = _changes(before, after, seed)
    result: dict[str, Any] = {
        "gives": "labels",
        "verdict": "",
        "before": _dicts(one),
        "after": _dicts(two),
        "difference": _judged(one, two, change),
        "counts": {
            "rows": len(after.origins),
            "labels": len(after.labels),
            "same_labels": int(classes.right(before.chosen, after.chosen).sum()),
        },
        "labels": {
            "names": list(after.labels),
            "multi_label": after.multi_label,
            "before": _label_by_label(before),
            "after": _label_by_label(after),
            "yardsticks": [_against(yardstick, after, two, seed) for yardstick in yardsticks],
        },
        "rows": _rows(before, after),
    }
    result["verdict"] = verdict(result)
    return result


# --- the numbers ----------------------------------------------------------------------------------------------------


def _values(measured: LabelMeasurement, seed: int) -> Values:
    """The metrics in the order in which they are shown; the first is the one that a person asks for."""
    if not measured.origins:
        return {}
    wanted, chosen, multi = measured.wanted, measured.chosen, measured.multi_label
    hit = share(classes.right(wanted, chosen).tolist())
    first = {names.EXACT_MATCH: hit, names.MICRO_F1: classes.micro_f1(wanted, chosen, seed)} if multi else {
        names.LABELS_RIGHT: hit
    }
    return first | {
        names.MACRO_F1: classes.macro_f1(wanted, chosen, seed),
        names.LOSS: mean(classes.log_loss(measured.probabilities, wanted, multi).tolist(), seed),
        names.CALIBRATION: classes.calibration_error(measured.probabilities, wanted, multi, seed),
    }


def _changes(before: LabelMeasurement, after: LabelMeasurement, seed: int) -> Values:
    """After minus before, paired by row."""
    if not after.origins:
        return {}
    wanted, multi = after.wanted, after.multi_label
    one, two = before.chosen, after.chosen
    hit = share_change(classes.right(wanted, one).tolist(), classes.right(wanted, two).tolist())
    first = {names.EXACT_MATCH: hit, names.MICRO_F1: classes.micro_f1_change(wanted, one, two, seed)} if multi else {
        names.LABELS_RIGHT: hit
    }
    losses = [classes.log_loss(m.probabilities, wanted, multi).tolist() for m in (before, after)]
    return first | {
        names.MACRO_F1: classes.macro_f1_change(wanted, one, two, seed),
        names.LOSS: mean_change(losses[0], losses[1], seed),
        names.CALIBRATION: classes.calibration_change(before.probabilities, after.probabilities, wanted, multi, seed),
    }


def _dicts(values: Values) -> dict[str, Any]:
    return {name: value.as_dict() for name, value in values.items()}


def _judged(before: Values, after: Values, change: Values) -> dict[str, Any]:
    return {
        name: one.as_dict() | {"better": better(name, before[name], after[name], one)} for name, one in change.items()
    }


def _against(yardstick: Yardstick, tuned: LabelMeasurement, values: Values, seed: int) -> dict[str, Any]:
    """The yardstick's own numbers, and ``difference``: the tuned model minus the yardstick."""
    probabilities = yardstick.probabilities
    other = LabelMeasurement(
        tuned.origins, tuned.texts, tuned.wanted, probabilities, tuned.labels, tuned.multi_label
    )
    own = _values(other, seed)
    return {
        "name": yardstick.name,
        "settings": yardstick.settings,
        "values": _dicts(own),
        "difference": _judged(own, values, _changes(other, tuned, seed)),
        "chosen": _numbers(other.chosen, tuned.multi_label),
    }


def _numbers(chosen: Bools, multi_label: bool) -> list[Any]:
    """Numbers of the chosen labels, row by row; a list to each row with ``multi_label``, None where there is none."""
    found = [np.flatnonzero(row).tolist() for row in chosen]
    return found if multi_label else [numbers[0] if numbers else None for numbers in found]


def _label_by_label(measured: LabelMeasurement) -> dict[str, Any]:
    wanted, chosen = measured.wanted, measured.chosen
    return {
        "confusion": None if measured.multi_label else classes.confusion(wanted, chosen),
        "per_class": classes.per_class(wanted, chosen, measured.labels),
        "calibration": classes.calibration(measured.probabilities, wanted, measured.multi_label),
        "without_choice": int((~np.isfinite(measured.probabilities).all(axis=1)).sum()),
    }


# --- row by row -----------------------------------------------------------------------------------------------------


def _rows(before: LabelMeasurement, after: LabelMeasurement) -> list[dict[str, Any]]:
    sides = [_sides(measured) for measured in (before, after)]
    name = _named(after)
    rows = []
    for index, (origin, given) in enumerate(zip(after.origins, after.texts, strict=True)):
        text, pair = (given, None) if isinstance(given, str) else given
        rows.append(
            {
                **origin.place,
                "text": text,
                **({} if pair is None else {"pair": pair}),
                "label": name(after.wanted[index]),
                "before": sides[0](index),
                "after": sides[1](index),
            }
        )
    return rows


def _named(measured: LabelMeasurement) -> Callable[[Bools], Any]:
    """(L,) of truth to the label's name, or to the list of names with ``multi_label``."""

    def name(truth: Bools) -> Any:
        found = [measured.labels[number] for number in np.flatnonzero(truth)]
        return found if measured.multi_label else found[0] if found else None

    return name


def _sides(measured: LabelMeasurement) -> Callable[[int], dict[str, Any]]:
    chosen, name = measured.chosen, _named(measured)
    right = classes.right(measured.wanted, chosen)
    losses = classes.log_loss(measured.probabilities, measured.wanted, measured.multi_label)

    def side(index: int) -> dict[str, Any]:
        said = [round(float(p), 4) for p in measured.probabilities[index][chosen[index]]]
        loss = float(losses[index])
        return {
            "label": name(chosen[index]),
            "probability": said if measured.multi_label else said[0] if said else None,
            "loss": round(loss, 4) if math.isfinite(loss) else None,
            "right": bool(right[index]),
        }

    return side


