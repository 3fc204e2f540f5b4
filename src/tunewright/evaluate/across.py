"""Several runs side by side: the same held-out rows, the same metrics, one table. Reads run folders, measures nothing.

Each number is that of the tuned model. The difference of a run to the first one is paired row by row wherever the rows
say enough for it: labels, likeness, checks. Runs that were not measured on the same rows are refused, since their
numbers say nothing about each other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from tunewright import rundir
from tunewright.errors import RunError
from tunewright.evaluate import classes, names
from tunewright.evaluate.classes import Bools
from tunewright.evaluate.compare import better
from tunewright.evaluate.metrics import Estimate, mean_change, share_change
from tunewright.evaluate.verdict import yardstick_name
from tunewright.model.hashes import safetensors_header
from tunewright.rundir import RunDir
from tunewright.text import _

_TRAINED = re.compile(r"trainable params: ([\d,]+)")
_BY_TOKEN = (names.LOSS, names.PERPLEXITY, names.ACCURACY)  # comparable only where both count the same tokens
Key = tuple[Any, ...]


@dataclass
class Column:
    """One thing that was measured: a run, or a yardstick. values: metric to its estimate.  rows: of each held-out row
    what is compared, in the order of the first run.  difference: metric to its change from the first run."""

    name: str
    about: dict[str, Any]
    values: dict[str, Any]
    rows: list[dict[str, Any]]
    difference: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, **self.about, "values": self.values, "difference": self.difference}


def across(runs: Sequence[RunDir]) -> dict[str, Any]:
    """The runs compared with the first of them, as standard JSON. Raises RunError, naming what differs, unless all of
    them were measured, and on the same rows."""
    evaluations = [_evaluation(run) for run in runs]
    manifests = [run.read(rundir.MANIFEST) for run in runs]
    with rundir.reading(*(run.file(rundir.EVALUATION) for run in runs)):
        return _across(runs, evaluations, manifests)


def _across(
    runs: Sequence[RunDir], evaluations: Sequence[dict[str, Any]], manifests: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    gives = _same_kind(runs, evaluations)
    columns = _columns(runs, evaluations, manifests, gives)
    notes = _without_tokens(columns, evaluations) if gives != "labels" else []
    found = [*columns, *(_yardsticks(evaluations, columns) if gives == "labels" else [])]
    labels = sorted(evaluations[0]["labels"]["names"]) if gives == "labels" else None
    multi = labels is not None and bool(evaluations[0]["labels"]["multi_label"])
    for other in found[1:]:
        other.difference = _changes(found[0], other, labels, multi)
    result = {
        "gives": gives,
        "rows": evaluations[0]["counts"]["rows"],
        "metrics": [name for name in found[0].values if any(name in column.values for column in found[1:])],
        "runs": [column.as_dict() for column in columns],
        "yardsticks": [column.as_dict() for column in found[len(columns) :]],
        "notes": notes,
    }
    return {"verdict": _verdict(columns, labels, multi), **result}


# --- reading --------------------------------------------------------------------------------------------------------


def _evaluation(run: RunDir) -> dict[str, Any]:
    if not run.file(rundir.EVALUATION).exists():
        raise RunError(
            _("{run} has not been measured yet", run=run), where=str(run.file(rundir.EVALUATION)),
            do=_("let it finish first"), command=f"tunewright resume {run}",
        )  # fmt: skip
    return rundir.read_object(run.file(rundir.EVALUATION), "counts", "rows", "after")


def _about(run: RunDir, manifest: Mapping[str, Any]) -> dict[str, Any]:
    recipe = manifest.get("recipe") or {}
    return {
        "run": str(run),
        "task": recipe.get("task", "chat"),
        "head": recipe.get("classify.head") if recipe.get("task") == "classify" else None,
        "method": recipe.get("train.method"),
        "base": (manifest.get("base") or {}).get("name"),
        "trained_parameters": _trained(run, recipe.get("train.method")),
        "seconds": _seconds(run),
    }


def _seconds(run: RunDir) -> float | None:
    """Time spent in steps, over all the pieces that a run was interrupted into; None where no step says it."""
    lines = [line for line in rundir.read_lines(run.file(rundir.METRICS)) if line.get("tokens_per_second")]
    with run.reading(rundir.METRICS):
        return round(sum(line["tokens"] / line["tokens_per_second"] for line in lines), 1) if lines else None


def _trained(run: RunDir, method: str | None) -> int | None:
    """How many parameters were trained: what the log says, or what was saved. None where neither tells."""
    log = run.file(rundir.LOG)
    said = _TRAINED.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
    if said:
        return int(said[-1].replace(",", ""))
    folder = {"lora": rundir.ADAPTER, "full": rundir.MODEL}.get(method or "")
    files = sorted(run.file(folder).glob("*.safetensors")) if folder else []
    sizes = [prod(tensor["shape"]) for file in files for tensor in safetensors_header(file).values()]
    return sum(sizes) or None


def _same_kind(runs: Sequence[RunDir], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """What all of them give: labels, outputs, answers or likelihood."""
    kinds = [str(evaluation.get("gives", "answers")) for evaluation in evaluations]
    for run, kind in zip(runs, kinds, strict=True):
        if kind != kinds[0]:
            raise _refused(
                _("{one} gives {a}, {other} gives {b}", one=runs[0], a=kinds[0], other=run, b=kind),
                _("compare runs of one task"),
            )
    return kinds[0]


def _columns(
    runs: Sequence[RunDir], evaluations: Sequence[Mapping[str, Any]], manifests: Sequence[Mapping[str, Any]], gives: str
) -> list[Column]:
    """One to each run, its rows in the order of the first run's."""
    keys = [[_key(row, gives) for row in evaluation["rows"]] for evaluation in evaluations]
    columns = []
    for run, evaluation, manifest, own in zip(runs, evaluations, manifests, keys, strict=True):
        _require_same(runs[0], evaluations[0], keys[0], run, evaluation, own)
        if gives == "likelihood" and manifest.get("data_sha256") != manifests[0].get("data_sha256"):
            raise _refused(
                _("{one} and {other} read different data files", one=runs[0], other=run),
                _("compare runs that were measured on the same files"),
            )
        places: dict[Key, list[int]] = {}
        for index, key in enumerate(own):
            places.setdefault(key, []).append(index)
        order = [places[key].pop(0) for key in keys[0]]
        rows = [evaluation["rows"][index] | {"place": index} for index in order]
        name = run.path.name if [r.path.name for r in runs].count(run.path.name) == 1 else str(run)
        columns.append(Column(name, _about(run, manifest), dict(evaluation["after"]), rows))
    return columns


def _key(row: Mapping[str, Any], gives: str) -> Key:
    """What a row asks and wants, whichever file it was read from."""
    if gives == "labels":
        wanted = row["label"]
        return row["text"], row.get("pair"), tuple(sorted(wanted)) if isinstance(wanted, list) else wanted
    return row["prompt"], row["reference"]


def _require_same(
    first: RunDir, one: Mapping[str, Any], wanted: Sequence[Key], run: RunDir, other: Mapping[str, Any],
    found: Sequence[Key],
) -> None:  # fmt: skip
    names_one, names_other = ((e.get("labels") or {}).get("names") or [] for e in (one, other))
    if sorted(names_one) != sorted(names_other):
        raise _refused(
            _("{one} knows the labels {a}; {other} knows {b}", one=first, a=", ".join(names_one), other=run,
              b=", ".join(names_other)),
            _("train both with the same classify.labels and classify.names"),
        )  # fmt: skip
    only = [(Counter(a) - Counter(b), e, r) for a, b, e, r in (
        (wanted, found, one, first), (found, wanted, other, run))]  # fmt: skip
    counts = [evaluation["counts"]["rows"] for evaluation in (one, other)]
    if not any(extra for extra, _e, _r in only) and counts[0] == counts[1]:
        return
    facts = [_("{one} measured {a} rows, {other} {b}", one=first, a=counts[0], other=run, b=counts[1])]
    for extra, evaluation, place in only:
        if extra:
            row = next(r for r in evaluation["rows"] if _key(r, str(evaluation.get("gives", "answers"))) in extra)
            facts.append(
                _("{n} only in {run}, such as {file}:{line}", n=extra.total(), run=place, file=row["file"],
                  line=row.get("line") or row.get("row"))
            )  # fmt: skip
    raise _refused("; ".join(facts), _("train both with the same data.validation, data.max_length and evaluate.rows"))


def _refused(where: str, do: str) -> RunError:
    return RunError(
        _("the runs were not measured on the same held-out rows, so their numbers cannot be compared"),
        where=where, do=do, command="tunewright compare --help",
    )  # fmt: skip


def _without_tokens(columns: Sequence[Column], evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Takes out what is counted by token where the bases cut the same text into other tokens."""
    counts = {evaluation["counts"].get("learned_tokens") for evaluation in evaluations}
    left = [name for name in _BY_TOKEN if any(name in column.values for column in columns)]
    if len(counts) == 1 or not left:
        return []
    for column in columns:
        for name in left:
            column.values.pop(name, None)
    shown = ", ".join(names.label(name).partition(" (")[0] for name in left)
    return [_("left out, because the runs cut the same text into other tokens: {names}", names=shown)]


def _yardsticks(
    evaluations: Sequence[Mapping[str, Any]], columns: Sequence[Column]
) -> list[Column]:
    """Each yardstick once; again where a run's training rows gave other numbers."""
    found: list[Column] = []
    for evaluation, column in zip(evaluations, columns, strict=True):
        labels = evaluation["labels"]["names"]
        for yardstick in evaluation["labels"]["yardsticks"]:
            chosen = [_labels_of(yardstick["chosen"][row["place"]], labels) for row in column.rows]
            rows = [row | {"after": {"label": label}} for row, label in zip(column.rows, chosen, strict=True)]
            name = yardstick_name(yardstick["name"])
            about = {"yardstick": yardstick["name"], "settings": yardstick["settings"]}
            same = [other for other in found if other.about["yardstick"] == yardstick["name"]]
            if any(other.values == yardstick["values"] for other in same):
                continue
            if same:
                name = _("{name}, of {run}", name=name, run=column.name)
            found.append(Column(name, about, dict(yardstick["values"]), rows))
    return found


def _labels_of(chosen: Any, labels: Sequence[str]) -> Any:
    if isinstance(chosen, list):
        return [labels[number] for number in chosen]
    return None if chosen is None else labels[chosen]


# --- differences ----------------------------------------------------------------------------------------------------


def _changes(first: Column, other: Column, labels: Sequence[str] | None, multi: bool) -> dict[str, Any]:
    """``other`` minus ``first``, paired by row, of every metric that rows speak of."""
    changes = _answer_changes(first, other) if labels is None else _label_changes(first, other, labels, multi)
    return {
        name: change.as_dict() | {"better": better(name, _estimate(first, name), _estimate(other, name), change)}
        for name, change in changes.items()
        if name in first.values and name in other.values
    }


def _estimate(column: Column, name: str) -> Estimate:
    stored = column.values[name]
    return Estimate(stored["value"], stored["low"], stored["high"], stored["n"])


def _label_changes(first: Column, other: Column, labels: Sequence[str], multi: bool) -> dict[str, Estimate]:
    wanted = _bools([row["label"] for row in first.rows], labels)
    one, two = (_bools([row["after"]["label"] for row in column.rows], labels) for column in (first, other))
    hit = share_change(classes.right(wanted, one).tolist(), classes.right(wanted, two).tolist())
    changes = {names.EXACT_MATCH if multi else names.LABELS_RIGHT: hit}
    if len(wanted):
        changes[names.MACRO_F1] = classes.macro_f1_change(wanted, one, two)
        if multi:
            changes[names.MICRO_F1] = classes.micro_f1_change(wanted, one, two)
    losses = [[row["after"].get("loss") for row in column.rows] for column in (first, other)]
    if all(loss is not None for some in losses for loss in some):
        changes[names.LOSS] = mean_change(losses[0], losses[1])
    return changes


def _bools(chosen: Sequence[Any], labels: Sequence[str]) -> Bools:
    """(N, L): the label of each row, or its labels; a row without a choice has none."""
    found = np.zeros((len(chosen), len(labels)), dtype=np.bool_)
    for index, some in enumerate(chosen):
        for label in some if isinstance(some, list) else [some] if some is not None else []:
            found[index, labels.index(label)] = True
    return found


def _answer_changes(first: Column, other: Column) -> dict[str, Estimate]:
    pairs = list(zip(first.rows, other.rows, strict=True))
    if not pairs:
        return {}
    changes = {
        name: mean_change([one["after"][name] for one, _two in pairs], [two["after"][name] for _one, two in pairs])
        for name in (names.CHRF, names.ROUGE)
        if all(name in row["after"] for pair in pairs for row in pair)
    }
    stops = [(one["after"]["stopped"], two["after"]["stopped"]) for one, two in pairs]
    changes[names.STOPS] = share_change([one for one, _two in stops], [two for _one, two in stops])
    for check in dict.fromkeys(name for one, _two in pairs for name in one.get("checks", {})):
        both = [(one["checks"][check]["after"], two["checks"][check]["after"]) for one, two in pairs
                if check in one.get("checks", {}) and check in two.get("checks", {})]  # fmt: skip
        changes[names.CHECK + check] = share_change([one for one, _two in both], [two for _one, two in both])
    return changes


def _verdict(columns: Sequence[Column], labels: Sequence[str] | None, multi: bool) -> str:
    """Which run is ahead in the metric that is shown first, and whether it is ahead of the next by more than chance."""
    metric = next((name for name in columns[0].values if all(_value(c, name) is not None for c in columns)), None)
    if metric is None or len(columns) < 2:
        return _("There is no number that all of them have.") if metric is None else _("One run; nothing to compare.")
    ranked = sorted(columns, key=lambda c: (_value(c, metric) or 0.0) * (1 if names.lower_is_better(metric) else -1))
    best, following = ranked[0], ranked[1]
    shown = [names.shown(metric, column.values[metric]) for column in (best, following)]
    said = {"best": best.name, "next": following.name, "value": shown[0], "other": shown[1]}
    said["metric"] = names.label(metric).partition(" (")[0]
    change = _changes(following, best, labels, multi).get(metric)
    if change is None:
        return _("{best}: {metric} {value}; next {next}: {other}. How sure that is, the runs do not say.", **said)
    if change["better"]:
        return _("{best} is ahead: {metric} {value}, next {next} with {other}; more than chance.", **said)
    return _("{best}: {metric} {value}; next {next}: {other}. The difference may be chance.", **said)


def _value(column: Column, metric: str) -> float | None:
    value = (column.values.get(metric) or {}).get("value")
    return None if value is None else float(value)
