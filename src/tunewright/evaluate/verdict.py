"""One sentence that a person can read aloud: is the tuned model better, and by what."""

from __future__ import annotations

from typing import Any

from tunewright.evaluate import names
from tunewright.text import _

_CHECKS_NAMED = 2


def verdict(evaluation: dict[str, Any]) -> str:
    """The verdict on the content of ``evaluation.json``.

        Better: loss on 11 held-out rows fell from 3.21 to 0.84; 10 of 11 answers contain “Wren” (before: 0 of 11);
        general questions 17 of 20, as before.
    """
    difference: dict[str, Any] = evaluation["difference"]
    if not any(name != names.GENERAL for name in difference):
        return _("Not measured: there were no held-out rows.")
    up = [name for name, change in difference.items() if change["better"] is True]
    down = [name for name, change in difference.items() if change["better"] is False]
    parts = "; ".join(part for part in (_loss(evaluation), *_answers(evaluation), _general(evaluation)) if part)
    if not up and not down:
        return _nothing(evaluation, parts)
    if not down:
        return _("Better: {parts}.", parts=parts)
    if not up:
        return _("Worse: {parts}.", parts=parts)
    if down == [names.GENERAL]:
        return _("Better at the task, but general knowledge was lost: {parts}.", parts=parts)
    return _("Mixed: {parts}.", parts=parts)


def _nothing(evaluation: dict[str, Any], parts: str) -> str:
    counts = evaluation["counts"]
    if counts["answers"] and counts["same_answers"] == counts["answers"]:
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
    if evaluation["after"][names.LOSS]["value"] is None:
        return _("loss on {n} held-out rows is no longer a number (before: {before})", **values)
    if change["better"] is None:
        if before == after:
            return _("loss on {n} held-out rows {after}, as before", **values)
        return _("loss on {n} held-out rows {after}, before {before}, no real difference", **values)
    if change["better"]:
        return _("loss on {n} held-out rows fell from {before} to {after}", **values)
    return _("loss on {n} held-out rows rose from {before} to {after}", **values)


def _answers(evaluation: dict[str, Any]) -> list[str]:
    """The person's own checks; without any, how close the answers are. Then whatever else the word before it rests on:
    all that got worse, and what got better if nothing said so far did."""
    difference = evaluation["difference"]
    checks = [name for name in difference if name.startswith(names.CHECK) and evaluation["after"][name]["n"]]
    said = checks[:_CHECKS_NAMED]
    parts = [_check(name, evaluation) for name in said]
    if not parts and names.CHRF in difference:
        said = [names.CHRF]
        before, after = _shown(names.CHRF, evaluation)
        parts.append(_("likeness to the reference answers (chrF) {after}, before {before}", after=after, before=before))
    said += [names.LOSS, names.GENERAL]
    praised = any(difference[name]["better"] is True for name in said if name in difference)
    for name, change in difference.items():
        if name not in said and (change["better"] is False or (change["better"] is True and not praised)):
            parts.append(_other(name, evaluation))
    return parts


def _other(name: str, evaluation: dict[str, Any]) -> str:
    before, after = _shown(name, evaluation)
    label = names.label(name)
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
    general = evaluation["general"]
    if not general["asked"]:
        return ""
    values = {"after": general["after"], "n": general["asked"], "before": general["before"]}
    if general["after"] == general["before"]:
        return _("general questions {after} of {n}, as before", **values)
    return _("general questions {after} of {n} (before: {before})", **values)
