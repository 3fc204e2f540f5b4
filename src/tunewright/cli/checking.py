"""What ``data check`` prints: findings as text, and what became of a cleaned copy."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.text import _

if TYPE_CHECKING:
    from tunewright.data.fix import Fixed
    from tunewright.data.load import Loaded
    from tunewright.example import Finding


def as_json(task: str, loaded: Loaded, found: Sequence[Finding], fixed: Fixed | None) -> dict[str, Any]:
    """For programs; each finding with all of its rows."""
    data = {
        "task": task,
        "rows": len(loaded.chats) + len(loaded.validation),
        "format": loaded.format_name,
        "reason": loaded.format_reason,
        "labels": list(loaded.labels),
        "errors": sum(finding.severity == "error" for finding in found),
        "findings": [finding.as_dict() for finding in found],
    }
    if fixed is not None:
        told = ("rows_in", "kept", "removed", "changed_rows", "changed")
        data["fixed"] = {
            "file": str(fixed.path),
            "format": fixed.format_name,
            **{name: fixed.ledger[name] for name in told},
            "errors": sum(finding.severity == "error" for finding in fixed.left),
            "findings": [finding.as_dict() for finding in fixed.left],
        }
    return data


def as_text(
    words: Sequence[str], task: str, loaded: Loaded, found: Sequence[Finding], fixed: Fixed | None, html: str | None
) -> str:
    """``words``: what was typed behind ``data check``, source first.  html: the page that was written."""
    rows = len(loaded.chats) + len(loaded.validation)
    lines = [
        _(
            "{rows} rows, read as {format} for the task {task} ({reason})",
            rows=rows, task=task, format=loaded.format_name, reason=loaded.format_reason,
        )
    ]  # fmt: skip
    for finding in found:
        lines += ["", *_finding_lines(finding)]
    lines.append("")
    if html is not None:
        lines += [_("Wrote {file}, a page with examples of each finding.", file=html), ""]
    if fixed is not None:
        lines += [*_fixed_lines(fixed), ""]
        words, found = _words_of_copy(words, fixed), fixed.left
    return "\n".join([*lines, *_next(" ".join(words), found)])


def _finding_lines(finding: Finding) -> list[str]:
    from tunewright.data.findings import catalogue, places, short

    lines = [
        f"{finding.severity:8}{finding.code}  {_(catalogue()[finding.code].title)}",
        *_wrapped("", finding.message),
    ]
    if finding.rows:
        lines += _wrapped(_("where: "), places(finding, short))
    if finding.severity != "info":
        lines += _wrapped(_("do:    "), finding.advice)
    return lines


def _wrapped(label: str, text: str) -> list[str]:
    """Lines of at most 80 columns, indented behind ``label``; a path is never broken."""
    indent = " " * (8 + len(label))
    return textwrap.wrap(
        text,
        80,
        initial_indent=" " * 8 + label,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _next(words: str, found: Sequence[Finding]) -> list[str]:
    from tunewright.data.findings import mend

    errors = [finding for finding in found if finding.severity == "error"]
    if not errors:
        return [
            _("Nothing stands in the way of training."),
            _("  type:  tunewright data show {words}", words=words),
            _("     or  tunewright train {words}", words=words),
        ]
    more = [word for finding in errors for word in mend(finding)]
    return [
        _("A training on these rows would be refused. Mend what is marked as error, then"),
        _("  type:  tunewright data check {words}", words=" ".join([words, *dict.fromkeys(more)])),
    ]


# -- the copy --------------------------------------------------------------------------------------------------------


def _fixed_lines(fixed: Fixed) -> list[str]:
    from tunewright.data.fix import CHANGED, LEDGER, REMOVED

    ledger = fixed.ledger
    lines = [
        _(
            "Wrote {file} ({format}): {rows_in} rows in = {kept} kept + {removed} removed; {changed} changed",
            file=fixed.path, format=fixed.format_name, rows_in=ledger["rows_in"], kept=ledger["kept"],
            removed=sum(ledger["removed"].values()), changed=ledger["changed_rows"],
        )
    ]  # fmt: skip
    for title, reasons, counts in (
        (_("removed"), REMOVED, ledger["removed"]),
        (_("changed"), CHANGED, ledger["changed"]),
    ):
        for reason, count in counts.items():
            lines += _wrapped(f"{title} {count:>5}  ", f"{reason}: {_(reasons[reason])}")
    lines += _wrapped("", _("Each of them with file and line: {file}", file=f"{fixed.path}{LEDGER}"))
    left = [f"{finding.code} ({finding.count})" for finding in fixed.left if finding.severity != "info"]
    if left:
        lines += _wrapped("", _("Still there, because somebody has to decide: {codes}", codes=", ".join(left)))
    return lines


def _words_of_copy(words: Sequence[str], fixed: Fixed) -> list[str]:
    """What to type for the copy in place of its input. It holds all that text files gave, so these are not named."""
    source, *more = words
    if source.lower().endswith((".yaml", ".yml")):
        return [source, *more, f"data.train={fixed.path}"]
    return [str(fixed.path), *(word for word in more if not word.startswith(("data.target=", "data.train=")))]
