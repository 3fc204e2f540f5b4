"""One sentence that a person can read aloud: is the tuned model better, and by what."""

from __future__ import annotations

from typing import Any

from tunewright.evaluate import kept, names
from tunewright.text import _

_CHECKS_NAMED = 2
_WORTH_IT = 0.05  # a lead over a yardstick that would be worth a language model, and that few rows may hide
_FEW = 100  # held-out rows
_SAME_AS_LOSS = (names.LOSS, names.PERPLEXITY)  # one says what the other says


def verdict(evaluation: dict[str, Any]) -> str:
    """The verdict on the content of ``evaluation.json``.

        Better: loss on 11 held-out rows fell from 3.21 to 0.84; 10 of 11 answers contain “Wren” (before: 0 of 11);
        of 230 general questions kept 141 of 143 that the base knew.

        Better: accuracy on 1,066 held-out rows rose from 50.1 % to 79.2 %; macro F1 79.1 % (before: 34.0 %); better
        than TF-IDF by 8.0 points of accuracy.
    """
    difference: dict[str, Any] = evaluation["difference"]
    if not any(name != names.GENERAL for name in difference):
        return _("Not measured: there were no held-out rows.")
    if evaluation.get("gives") == "labels":
        return _labels(evaluation)
    up, down = judged(evaluation)
    parts = "; ".join(part for part in (_loss(evaluation), *_answers(evaluation), _general(evaluation)) if part)
    if not up and not down:
        return _("Not measured: {parts}.", parts=parts) if _unknown(evaluation) else _nothing(evaluation, parts)
    if down == [names.GENERAL] and up:
        return _("Better at the task, but general knowledge was lost: {parts}.", parts=parts)
    return _word(up, down, parts)


def judged(evaluation: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Metrics that got better and metrics that got worse, of those that decide the verdict's word.

    Where labels are chosen, calibration decides nothing (an untrained head that knows nothing says so, and is well
    calibrated), and nothing counts as better that does not beat the most common label. Elsewhere nothing counts as
    better of a model whose loss on the held-out rows is no number, even if its base was no better off.
    """
    changes = {name: change["better"] for name, change in evaluation.get("difference", {}).items()}
    up = [name for name, better in changes.items() if better is True and name != names.CALIBRATION]
    down = [name for name, better in changes.items() if better is False and name != names.CALIBRATION]
    majority = next((y for y in _yardsticks(evaluation) if y["name"] == "majority"), None)
    if (majority is not None and not _beaten(majority)) or (_unknown(evaluation) and not _known("after", evaluation)):
        up = []
    return up, down


def _unknown(evaluation: dict[str, Any]) -> bool:
    """Is the loss no number before, after, or both? Where labels are chosen, a row without a number counts as wrong."""
    measured = names.LOSS in evaluation.get("difference", {}) and evaluation.get("gives") != "labels"
    return measured and not (_known("before", evaluation) and _known("after", evaluation))


def _known(side: str, evaluation: dict[str, Any]) -> bool:
    return evaluation[side][names.LOSS]["value"] is not None


def _word(up: list[str], down: list[str], parts: str) -> str:
    if not down:
        return _("Better: {parts}.", parts=parts)
    return _("Mixed: {parts}.", parts=parts) if up else _("Worse: {parts}.", parts=parts)


def _nothing(evaluation: dict[str, Any], parts: str) -> str:
    counts = evaluation["counts"]
    if counts.get("answers") and counts["same_answers"] == counts["answers"]:
        same = _("all {n} answers are the same as before", n=counts["answers"])
        return _("Nothing was learned: {same}; {parts}.", same=same, parts=parts)
    return _("Nothing was learned: every difference is inside the noise; {parts}.", parts=parts)


def _shown(name: str, evaluation: dict[str, Any]) -> tuple[str, str]:
    return names.shown(name, evaluation["before"][name]), names.shown(name, evaluation["after"][name])


def _loss(evaluation: dict[str, Any]) -> str:
    change = evaluation["difference"].get(names.LOSS)
    if change is None:
        return ""
    rows = evaluation["counts"]["rows"]
    before, after = _shown(names.LOSS, evaluation)
    values = {"n": rows, "before": before, "after": after}
    if not _known("after", evaluation):
        if _known("before", evaluation):
            return _("loss on {n} held-out rows is no longer a number (before: {before})", **values)
        return _("loss on {n} held-out rows is not a number, neither before nor after", **values)
    if not _known("before", evaluation):
        return _("loss on {n} held-out rows is {after}; before, it was not a number", **values)
    if change["better"] is None:
        if before == after:
            return _("loss on {n} held-out rows {after}, as before", **values)
        return _("loss on {n} held-out rows {after}, before {before}, no real difference", **values)
    if change["better"]:
        said = _("loss on {n} held-out rows fell from {before} to {after}", **values)
    else:
        said = _("loss on {n} held-out rows rose from {before} to {after}", **values)
    return said + _sure(change)


def _sure(change: dict[str, Any]) -> str:
    """How often chance alone would do it, behind a difference that counts as one."""
    p = names.chance(change)
    return f" ({p})" if p else ""


def _answers(evaluation: dict[str, Any]) -> list[str]:
    """The person's own checks; without any, how close the answers are. Then whatever else the word before it rests on:
    all that got worse, and what got better if nothing said so far did."""
    difference = evaluation["difference"]
    checks = [name for name in difference if name.startswith(names.CHECK) and evaluation["after"][name]["n"]]
    said = checks[:_CHECKS_NAMED]
    parts = [_check(name, evaluation) for name in said]
    if not parts and names.BLEU in difference:
        said = [names.BLEU]
        before, after = _shown(names.BLEU, evaluation)
        parts.append(_("BLEU {after}, before {before}", after=after, before=before))
    elif not parts and names.CHRF in difference:
        said = [names.CHRF]
        before, after = _shown(names.CHRF, evaluation)
        parts.append(_("likeness to the reference answers (chrF) {after}, before {before}", after=after, before=before))
    said += [*_SAME_AS_LOSS, names.GENERAL]
    praised = any(difference[name]["better"] is True for name in said if name in difference)
    for name, change in difference.items():
        if name not in said and (change["better"] is False or (change["better"] is True and not praised)):
            parts.append(_other(name, evaluation))
    return parts


def _other(name: str, evaluation: dict[str, Any]) -> str:
    before, after = _shown(name, evaluation)
    label = names.label(name)
    if names.lower_is_better(name):
        return _("{label} {after} (before: {before})", label=label.partition(" (")[0], after=after, before=before)
    if evaluation["difference"][name]["better"]:
        return _("{label} now {after} (before: {before})", label=label, after=after, before=before)
    return _("{label} only {after} (before: {before})", label=label, after=after, before=before)


def _check(name: str, evaluation: dict[str, Any]) -> str:
    kind, _colon, value = name[len(names.CHECK) :].partition(": ")
    before, after = _shown(name, evaluation)
    values: dict[str, Any] = {"after": after, "value": value}
    if kind == "contains":
        now = _("{after} answers contain “{value}”", **values)
    elif kind == "regex":
        now = _("{after} answers match {value}", **values)
    elif kind == "json":
        now = _("{after} answers are valid JSON", **values)
    elif kind == "number":
        now = _("{after} answers end with the right number", **values)
    elif value:
        now = _("{after} answers are “{value}”", **values)
    else:
        now = _("{after} answers equal the reference", **values)
    return _("{now}, as before", now=now) if before == after else _("{now} (before: {before})", now=now, before=before)


def _general(evaluation: dict[str, Any]) -> str:
    general = evaluation.get("general") or {}
    if not general.get("asked"):
        return ""
    if general.get("near_chance"):
        return _("general questions: {line}", line=kept.known_line(general))
    return _("of {n} general questions {line}", n=general["asked"], line=kept.known_line(general))


# --- labels ---------------------------------------------------------------------------------------------------------


def _labels(evaluation: dict[str, Any]) -> str:
    up, down = judged(evaluation)
    counts = evaluation["counts"]
    parts = [_first(evaluation)]
    macro = evaluation["difference"].get(names.MACRO_F1)
    if macro is not None:
        before, after = _shown(names.MACRO_F1, evaluation)
        parts.append(_("macro F1 {after} (before: {before})", after=after, before=before))
    parts += [
        _other(name, evaluation)
        for name in (names.MICRO_F1, names.LOSS, names.CALIBRATION)
        if evaluation["difference"].get(name, {}).get("better") is False
    ]
    clauses = [_against(yardstick) for yardstick in _yardsticks(evaluation)]
    together = "; ".join(part for part in (*parts, *clauses) if part)
    if up or down:
        return _word(up, down, together)
    if counts["same_labels"] == counts["rows"]:
        return _("Nothing was learned: every row gets the label that it got before; {parts}.", parts=together)
    return _("Nothing was learned: {parts}.", parts=together)


def _first(evaluation: dict[str, Any]) -> str:
    """The metric that a person asks for: accuracy, or rows with all their labels right."""
    name = next(iter(evaluation["difference"]))
    change = evaluation["difference"][name]
    before, after = _shown(name, evaluation)
    values = {"what": names.label(name), "n": f"{evaluation['counts']['rows']:,}", "before": before, "after": after}
    if before == after:
        return _("{what} on {n} held-out rows {after}, as before", **values)
    if change["better"] is None:
        return _("{what} on {n} held-out rows {after}, before {before}, no real difference", **values)
    if change["better"]:
        return _("{what} on {n} held-out rows rose from {before} to {after}", **values) + _sure(change)
    return _("{what} on {n} held-out rows fell from {before} to {after}", **values) + _sure(change)


def _yardsticks(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    return list((evaluation.get("labels") or {}).get("yardsticks") or [])


def _deciding(yardstick: dict[str, Any]) -> list[str]:
    """What a yardstick is beaten in: the metric that a person asks for, and macro F1 where labels are uneven."""
    return [name for name in yardstick["difference"] if name not in (names.LOSS, names.CALIBRATION)]


def _beaten(yardstick: dict[str, Any]) -> bool:
    marks = [yardstick["difference"][name]["better"] for name in _deciding(yardstick)]
    # Where one label is rare, giving it at all may cost a little accuracy; the majority never gives it.
    return True in marks and (False not in marks or yardstick["name"] == "majority")


def _against(yardstick: dict[str, Any]) -> str:
    """One clause: was the language model worth it? A majority that is beaten goes without saying."""
    beaten, called = _beaten(yardstick), yardstick_name(yardstick["name"])
    if yardstick["name"] == "majority" and beaten:
        return ""
    deciding = _deciding(yardstick)
    name = next((n for n in deciding if yardstick["difference"][n]["better"] is not None), deciding[0])
    change = yardstick["difference"][name]
    values = {
        "called": called,
        "points": names.shown_change(name, change | {"value": abs(change["value"] or 0.0)}).lstrip("+"),
        "metric": names.label(name),
        "value": names.shown(name, yardstick["values"][name]),
    }
    if beaten:
        return _("better than {called} by {points} of {metric} ({value})", **values)
    if yardstick["name"] == "majority":
        return _("no better than {called} ({metric} {value})", **values)
    if change["better"] is False:
        return _(
            "worse than {called} by {points} of {metric} ({value}): a language model was not worth it here", **values
        )
    if change["high"] is None or change["high"] >= _WORTH_IT or change["n"] < _FEW:
        return _("not surely better than {called} ({metric} {value}): too few held-out rows to tell", **values)
    return _("no better than {called} ({metric} {value}): a language model was not worth it here", **values)


def yardstick_name(name: str) -> str:
    """A yardstick as a person would call it."""
    return {"majority": _("the most common label"), "tfidf": _("TF-IDF with logistic regression")}.get(name, name)
