"""The run on one self-contained page: no script, no request, nothing but the file itself.

Everything shown comes from files that may be missing (a run that stopped early) and holds text of strangers (data,
model answers); so every part is optional and the template escapes whatever it prints.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from tunewright import rundir
from tunewright.errors import RunError
from tunewright.evaluate import kept, learned, names
from tunewright.evaluate.table import place
from tunewright.evaluate.verdict import judged
from tunewright.report import curves, labels, tradeoff, values
from tunewright.report.place import require_of_run
from tunewright.report.template import template
from tunewright.rundir import RunDir
from tunewright.settings import settings
from tunewright.text import _

TEMPLATE = "page.html.jinja"
ROWS_SHOWN = 60
RECITED_SHOWN = 3
PLACES_SHOWN = 6  # of a finding
_LONGEST = 4000  # characters of one text; the whole of it is in evaluation.json


def write(run: RunDir, out: Path | None = None) -> Path:
    """(Re)write the page: ``report.html`` of the run, or ``out``. Raises RunError if the folder holds no run, if one of
    its files is damaged, DataError if ``out`` holds something else than a page."""
    path = out or run.file(rundir.REPORT)
    if out is not None:
        require_of_run(out, run)
    rundir.write_text(path, html(run))
    return path


def html(run: RunDir) -> str:
    if not any(run.file(name).exists() for name in (rundir.STATUS, rundir.RECIPE)):
        raise RunError(_("this folder holds no run"), where=str(run), command="tunewright report --help")
    shown = content(run)
    with run.reading(rundir.EVALUATION, UndefinedError):  # the other files are text by now
        return template(TEMPLATE).render(language=settings().language, **shown) + "\n"


def content(run: RunDir) -> dict[str, Any]:
    """What the template is given; a part the run does not have is None or empty."""
    evaluation = run.read(rundir.EVALUATION)
    manifest = run.read(rundir.MANIFEST)
    with run.reading(rundir.EVALUATION):
        measured = _evaluated(run, evaluation, manifest)
    with run.reading(rundir.LEDGER):
        ledger = _ledger(run.read(rundir.LEDGER))
    with run.reading(rundir.FINDINGS):
        findings = [_finding(one) for one in rundir.read_lines(run.file(rundir.FINDINGS))]
    with run.reading(rundir.PLAN):
        plan = values.plan(run.read(rundir.PLAN))
    with run.reading(rundir.MANIFEST):
        machine = values.groups(manifest)
    return {
        "name": run.path.resolve().name,
        "base": str((manifest.get("base") or {}).get("name") or ""),
        **measured,
        "ledger": ledger,
        "findings": findings,
        "recipe": _commented(_text(run, rundir.RECIPE)),
        "plan": plan,
        "machine": machine,
        "version": (manifest.get("versions") or {}).get("tunewright", ""),
    }


def _evaluated(run: RunDir, evaluation: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """The parts that ``evaluation.json`` speaks of."""
    headline, detail = _headline(run.read(rundir.STATUS), evaluation)
    chosen = labels.content(evaluation, ROWS_SHOWN)
    rows = [] if chosen else evaluation.get("rows", [])
    return {
        "headline": headline,
        "detail": detail,
        "tone": _tone(evaluation),
        "metrics": _metrics(evaluation),
        "counts": evaluation.get("counts", {}),
        "measured": _measured(evaluation, manifest),
        "drawing": curves.drawing(curves.of_run(run)),
        "rows": [_row(row) for row in rows[:ROWS_SHOWN]],
        "rows_left": max(0, len(rows) - ROWS_SHOWN),
        "labels": chosen,
        "overfitting": learned.overfitting_words(evaluation),
        "recited": _recited(evaluation),
        **_retention(run, evaluation, manifest),
    }


def _retention(run: RunDir, evaluation: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """What was kept of what the base could, in numbers, words and the picture of task against retention."""
    general = evaluation.get("general") or {}
    if not general.get("asked"):
        return {"general": None}
    rows = [(row, row["before"]["right"], row["after"]["right"]) for row in general["rows"]]
    return {
        "general": general,
        "known": kept.known_line(general),
        "sure": kept.sure_line(general),
        "moved": kept.moved_line(general),
        "settled": kept.settled_line(manifest.get("settled") or {}),
        "lost": [row for row, was, now in rows if was and not now],
        "gained": [row for row, was, now in rows if now and not was],
        "tradeoff": tradeoff.of_run(run),
    }


def _text(run: RunDir, name: str) -> str:
    path = run.file(name)
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _headline(status: dict[str, Any], evaluation: dict[str, Any]) -> tuple[str, str]:
    """The verdict as a word to print large and the rest of its sentence; without one, how far the run came."""
    verdict = str(evaluation.get("verdict") or "")
    if verdict:
        head, colon, rest = verdict.partition(": ")
        return (head, rest[:1].upper() + rest[1:]) if colon else (verdict, "")
    step = status.get("step")
    far = _("after step {step}", step=step) if step else _("before the first step")
    detail = str(status.get("reason") or status.get("error") or "")
    heads = {
        "failed": _("Failed {far}", far=far),
        "stopped": _("Stopped {far}", far=far),
        "done": _("Done, not measured"),
        "evaluating": _("Still measuring"),
    }
    head = heads.get(str(status.get("state")), _("Not finished: {far}", far=far))
    return head, detail or _("There is no verdict yet.")


def _tone(evaluation: dict[str, Any]) -> str:
    up, down = judged(evaluation)
    if down:
        return "mixed" if up else "bad"
    return "good" if up else "plain"


def _measured(evaluation: dict[str, Any], manifest: dict[str, Any]) -> str:
    """What the numbers before and after were made from."""
    counts = evaluation.get("counts", {})
    said = [_("The base and the tuned model on the same {rows} held-out rows", rows=f"{counts.get('rows', 0):,}")]
    if counts.get("answers"):
        said[0] += _(", {answers} of them answered", answers=counts["answers"])
    said[0] += "."
    if (manifest.get("recipe") or {}).get("classify.head") == "linear" and evaluation.get("gives") == "labels":
        said.append(_("Before, its new layer for labels had learned nothing."))
    said.append(_("Bars are 95 % intervals; a difference inside the noise may be chance."))
    return " ".join(said)


def _metrics(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """One line of the table to each metric that was measured on at least one row."""
    lines = []
    for name, change in evaluation.get("difference", {}).items():
        before, after = evaluation["before"].get(name) or {}, evaluation["after"].get(name) or {}
        if not after.get("n"):
            continue
        scale = _scale(name, before, after)
        lines.append(
            {
                "name": name,
                "label": names.label(name),
                "explained": names.explained(name),
                "before": names.shown(name, before),
                "after": names.shown(name, after),
                "change": names.shown_change(name, change),
                "chance": names.chance(change) if change.get("value") else "",
                "spread": values.interval(name, change),
                "better": change.get("better"),
                "same": change.get("value") == 0,
                "bars": [_bar(before, scale), _bar(after, scale)],
                "interval": [values.interval(name, before), values.interval(name, after)],
            }
        )
    return lines


def _recited(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """Training answers that came back word for word: how many, and the first of them."""
    line = learned.recited_line(evaluation)
    if not line:
        return None
    rows = [row for row in evaluation["recited"]["rows"] if row["after"]["recited"]]
    shown = [{"prompt": _cut(row["prompt"]), "text": _cut(row["after"]["text"]), "place": place(row)} for row in rows]
    return {"line": line, "words": learned.recitation_words(evaluation), "rows": shown[:RECITED_SHOWN]}


def _scale(name: str, before: dict[str, Any], after: dict[str, Any]) -> float:
    if not names.is_number(name):
        return 1.0
    highest = [x for x in (before.get("high"), after.get("high")) if x is not None]
    return max(highest, default=1.0) * 1.04 or 1.0


def _bar(estimate: dict[str, Any], scale: float) -> dict[str, float] | None:
    """left, width and dot in percent of the track."""
    low, high, at = (estimate.get(key) for key in ("low", "high", "value"))
    if low is None or high is None or at is None:
        return None
    percent = [max(0.0, min(100.0, 100 * x / scale)) for x in (low, high, at)]
    return {"left": round(percent[0], 2), "width": round(percent[1] - percent[0], 2), "dot": round(percent[2], 2)}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    sides = {}
    for side in ("before", "after"):
        answer = row[side]
        checks = [
            {"label": names.label(names.CHECK + name), "passed": marks[side]}
            for name, marks in row.get("checks", {}).items()
        ]
        sides[side] = answer | {
            "text": _cut(answer["text"]),
            "thinking": _cut(answer.get("thinking") or ""),
            "checks": checks,
        }
    texts = {name: _cut(row.get(name) or "") for name in ("prompt", "reference", "reference_thinking")}
    return row | sides | texts | {"place": place(row)}


def _cut(text: str) -> str:
    return values.cut(text, _LONGEST)


def _ledger(ledger: dict[str, Any]) -> dict[str, Any] | None:
    if not ledger:
        return None
    left_out = dict(ledger.get("left_out") or {})
    places: dict[str, list[str]] = {reason: [] for reason in left_out}
    for row in ledger.get("rows") or []:
        places.setdefault(str(row.get("reason")), []).append(place(row))
    tokens, learned = ledger.get("tokens"), ledger.get("learned_tokens")
    share = ledger.get("learned_share")
    if share is None and tokens and learned is not None:
        share = learned / tokens
    return {
        "rows_in": ledger.get("rows_in"),
        "kept": ledger.get("kept"),
        "left": sum(left_out.values()),
        "reasons": [
            {"reason": reason, "count": count, "places": values.few(places.get(reason, []))}
            for reason, count in left_out.items()
        ],
        "facts": [
            (label, f"{ledger[key]:,}")
            for key, label in (
                ("train", _("rows to train on")), ("held_out", _("rows held out")),
                ("tokens", _("tokens")), ("learned_tokens", _("learned tokens")),
            )
            if isinstance(ledger.get(key), int)
        ],
        "share": None if share is None else round(100 * share, 1),
    }


def _finding(finding: dict[str, Any]) -> dict[str, Any]:
    told = {key: str(finding.get(key, "")) for key in ("severity", "code", "message", "advice")}
    return told | {"places": [place(row) for row in (finding.get("rows") or [])[:PLACES_SHOWN]]}


def _commented(recipe: str) -> list[tuple[str, str]]:
    """Each line as (yaml, comment), so that the comment can be set back. A ``#`` starts one after a space only."""
    lines = []
    for line in recipe.rstrip().splitlines():
        found = re.search(r"(^|\s)#\s.*$", line)
        lines.append((line[: found.start()], line[found.start() :]) if found else (line, ""))
    return lines
