"""Numbers about labels: which were chosen, which were wanted, and whether a probability means what it says.

Everything here takes arrays over rows and labels; ``wanted`` and ``chosen`` are (N, L) of truth, one True to a row
where a row has one label. No file, no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunewright.evaluate.metrics import Estimate, Floats, chance, interval, resampled

Bools = NDArray[np.bool_]
BINS = 15  # of equal width, as in Guo et al. 2017, "On Calibration of Modern Neural Networks"
_LEAST = 1e-15  # a wanted label that got no probability at all costs 34.5 nats, not infinitely many


def marked(numbers: Sequence[Sequence[int]], count: int) -> Bools:
    """Numbers of each row's labels to (N, ``count``) of truth.

    [[2], [0, 1], []]  ->  [[F, F, T], [T, T, F], [F, F, F]]
    """
    found = np.zeros((len(numbers), count), dtype=np.bool_)
    for row, some in enumerate(numbers):
        found[row, list(some)] = True
    return found


def choose(probabilities: Floats, multi_label: bool) -> Bools:
    """(N, L): the most probable label of each row, or with ``multi_label`` those of one half and more. A row whose
    probabilities are not all numbers has none."""
    sound = np.isfinite(probabilities).all(axis=1, keepdims=True)
    if multi_label:
        return np.asarray((probabilities >= 0.5) & sound, dtype=np.bool_)
    chosen = np.zeros(probabilities.shape, dtype=np.bool_)
    if probabilities.size:
        chosen[np.arange(len(chosen)), np.nan_to_num(probabilities).argmax(axis=1)] = True
    return np.asarray(chosen & sound, dtype=np.bool_)


def right(wanted: Bools, chosen: Bools) -> Bools:
    """(N,): all labels of the row are as wanted."""
    return np.asarray((wanted == chosen).all(axis=1), dtype=np.bool_)


def log_loss(probabilities: Floats, wanted: Bools, multi_label: bool) -> Floats:
    """(N,) in nats: of the wanted label, or with ``multi_label`` the mean over all yes and no of the row."""
    inside = np.clip(probabilities, _LEAST, 1.0)
    if not multi_label:
        return np.asarray(-np.log(inside[wanted]), dtype=np.float64)
    outside = np.clip(1.0 - probabilities, _LEAST, 1.0)
    return np.asarray(-np.log(np.where(wanted, inside, outside)).mean(axis=1), dtype=np.float64)


# --- F1 -------------------------------------------------------------------------------------------------------------


def _hits(wanted: Bools, chosen: Bools) -> Floats:
    """(N, 3 L): of each label wanted and chosen, chosen, wanted. Sums over rows make every F1."""
    return np.concatenate([wanted & chosen, chosen, wanted], axis=1).astype(np.float64)


def _macro(sums: Floats) -> Floats:
    """(R, 3 L) -> (R,): mean F1 of the labels that have a row. NaN where none has."""
    hits, chosen, wanted = np.split(sums, 3, axis=1)
    has = wanted > 0
    each = np.divide(2 * hits, chosen + wanted, out=np.zeros_like(hits), where=has)
    count = has.sum(axis=1)
    return np.divide(each.sum(axis=1), count, out=np.full(len(count), np.nan), where=count > 0)


def _micro(sums: Floats) -> Floats:
    """(R, 3 L) -> (R,): F1 of all labels thrown together. NaN where nothing is wanted or chosen."""
    hits, chosen, wanted = (part.sum(axis=1) for part in np.split(sums, 3, axis=1))
    under = chosen + wanted
    return np.divide(2 * hits, under, out=np.full(len(under), np.nan), where=under > 0)


def macro_f1(wanted: Bools, chosen: Bools, seed: int = 0) -> Estimate:
    """The mean of the F1 of each label that a held-out row has; a label without any cannot be judged."""
    return _estimate(_hits(wanted, chosen), _macro, seed)


def micro_f1(wanted: Bools, chosen: Bools, seed: int = 0) -> Estimate:
    return _estimate(_hits(wanted, chosen), _micro, seed)


def macro_f1_change(wanted: Bools, before: Bools, after: Bools, seed: int = 0) -> Estimate:
    return _change(_hits(wanted, before), _hits(wanted, after), _macro, seed)


def micro_f1_change(wanted: Bools, before: Bools, after: Bools, seed: int = 0) -> Estimate:
    return _change(_hits(wanted, before), _hits(wanted, after), _micro, seed)


def _estimate(
    values: Floats, statistic: Callable[[Floats], Floats], seed: int, pivot: bool = False, change: bool = False
) -> Estimate:
    """``statistic`` of the sums of ``values`` (N, C), with a bootstrap interval over rows."""
    n = len(values)
    at = float(statistic(values.sum(axis=0, keepdims=True))[0]) if n else math.nan
    if not math.isfinite(at):
        return Estimate(None, None, None, n)
    drawn, around = statistic(resampled(values, seed)), at if pivot else None
    return Estimate(at, *interval(drawn, around), n, chance(drawn, around) if change else None)


def _change(
    before: Floats, after: Floats, statistic: Callable[[Floats], Floats], seed: int, pivot: bool = False
) -> Estimate:
    """After minus before, with the same rows drawn for both."""
    width = before.shape[1]

    def difference(sums: Floats) -> Floats:
        return statistic(sums[:, width:]) - statistic(sums[:, :width])

    return _estimate(np.concatenate([before, after], axis=1), difference, seed, pivot, change=True)


# --- calibration ----------------------------------------------------------------------------------------------------


def _said(probabilities: Floats, wanted: Bools, multi_label: bool) -> tuple[Floats, Bools]:
    """(N, M) probability that was said, and whether it came true: of the chosen label (M = 1), or with
    ``multi_label`` of each label (M = L). Rows without usable probabilities are left out."""
    sound = np.isfinite(probabilities).all(axis=1)
    probabilities, wanted = probabilities[sound], wanted[sound]
    if multi_label or not probabilities.size:
        return probabilities, wanted
    first = probabilities.argmax(axis=1)[:, None]
    return np.take_along_axis(probabilities, first, axis=1), np.take_along_axis(wanted, first, axis=1)


def _bin(said: Floats) -> NDArray[np.int64]:
    return np.clip((said * BINS).astype(np.int64), 0, BINS - 1)


def calibration(probabilities: Floats, wanted: Bools, multi_label: bool) -> list[dict[str, Any]]:
    """The reliability diagram: for each of the ``BINS`` bins that holds something its ends, the mean probability that
    was said, the share that came true, and how many there were."""
    said, true = _said(probabilities, wanted, multi_label)
    place = _bin(said)
    found = []
    for number in np.unique(place).tolist():
        inside = place == number
        found.append(
            {
                "low": round(number / BINS, 4),
                "high": round((number + 1) / BINS, 4),
                "confidence": round(float(said[inside].mean()), 6),
                "accuracy": round(float(true[inside].mean()), 6),
                "count": int(inside.sum()),
            }
        )
    return found


def _gaps(probabilities: Floats, wanted: Bools, multi_label: bool) -> Floats:
    """(N, BINS + 1): how much more was said than came true, in the bin it belongs to; last, how many were said."""
    said, true = _said(probabilities, wanted, multi_label)
    rows, width = said.shape
    gaps = np.zeros((rows, BINS + 1))
    lines = np.repeat(np.arange(rows), width)
    np.add.at(gaps, (lines, _bin(said).ravel()), (said - true).ravel())
    gaps[:, BINS] = width
    return gaps


def _calibration_error(sums: Floats) -> Floats:
    said = sums[:, BINS]
    return np.divide(np.abs(sums[:, :BINS]).sum(axis=1), said, out=np.full(len(said), np.nan), where=said > 0)


def calibration_error(probabilities: Floats, wanted: Bools, multi_label: bool, seed: int = 0) -> Estimate:
    """Expected calibration error (Naeini et al. 2015): how far what is said is from what comes true, the mean over
    ``BINS`` bins of equal width, weighed by their rows.

    It is pushed up by chance, and a resample is pushed up twice; so the interval is the reflected one (Davison and
    Hinkley 1997, section 5.2), which takes as much off again.
    """
    return _floored(_estimate(_gaps(probabilities, wanted, multi_label), _calibration_error, seed, pivot=True))


def calibration_change(before: Floats, after: Floats, wanted: Bools, multi_label: bool, seed: int = 0) -> Estimate:
    """After minus before, over the rows that both gave usable probabilities for."""
    both = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    one, two = (_gaps(side[both], wanted[both], multi_label) for side in (before, after))
    return _change(one, two, _calibration_error, seed, pivot=True)


def _floored(found: Estimate) -> Estimate:
    if found.value is None or found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low))


# --- label by label -------------------------------------------------------------------------------------------------


def confusion(wanted: Bools, chosen: Bools) -> list[list[int]]:
    """[wanted][chosen] counts. A row without a choice is in no cell."""
    return (wanted.T.astype(np.int64) @ chosen.astype(np.int64)).tolist()  # type: ignore[no-any-return]


def per_class(wanted: Bools, chosen: Bools, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each label; None where there is nothing to divide by. support: rows that have the
    label.  predicted: rows that were given it."""
    found = []
    for number, label in enumerate(labels):
        hits = int((wanted[:, number] & chosen[:, number]).sum())
        support, predicted = int(wanted[:, number].sum()), int(chosen[:, number].sum())
        found.append(
            {
                "label": label,
                "precision": round(hits / predicted, 6) if predicted else None,
                "recall": round(hits / support, 6) if support else None,
                "f1": round(2 * hits / (support + predicted), 6) if support + predicted else None,
                "support": support,
                "predicted": predicted,
            }
        )
    return found
