"""Names of columns: found, missed, or the one of several that is meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tunewright.data.read import Row
from tunewright.errors import DataError
from tunewright.example import Origin
from tunewright.text import _

T = TypeVar("T")


def check_names(wanted: Mapping[Any, str], rows: Sequence[Row]) -> None:
    fields = rows[0].fields
    for key, name in wanted.items():
        if name in fields or any(name in row.fields for row in rows):
            continue
        near = difflib.get_close_matches(name, [str(n) for n in fields], n=1, cutoff=0.5)
        where = f"data.columns.{key}" if not str(key).startswith("{") else f"data.prompt or data.answer, {key}"
        raise DataError(
            _("there is no column {name!r}", name=name),
            where=f"{where}; {rows[0].origin}",
            do=(_("did you mean {near!r}? ", near=near[0]) if near else "")
            + _("found are {names}", names=found_names(fields)),
        )


def require_columns(names: Iterable[str], fields: Mapping[str, Any], origin: Origin) -> None:
    """Raises DataError naming those of ``names`` that the row does not have."""
    if missing := [name for name in names if name not in fields]:
        raise DataError(
            _("the row has no {missing}, which other rows have; it has {names}", missing=", ".join(missing),
              names=found_names(fields)),
            where=str(origin), do=_("give the row the same columns"),
        )  # fmt: skip


def require_texts(found: int, trained: int, origin: Origin) -> None:
    """Raises DataError for a labelled row of one text where the training rows have two, or the other way round: a model
    would give either a label, and only one of them would mean anything."""
    if found == trained:
        return
    what = _("the row has one text, and the training rows have two")
    do = _("name both columns: {words}", words="data.columns.text=COLUMN data.columns.pair=COLUMN")
    if found > trained:
        what = _("the row has two texts, and the training rows have one")
        do = _("name the column of the one that is meant: {words}", words="data.columns.text=COLUMN")
    raise DataError(what, where=str(origin), do=do)


def kept_beside(names: Collection[Any]) -> str:
    """How a format's reason ends where rows have columns that it does not read."""
    shown = found_names(names)
    return _("; kept beside the row, not learned: {names}", names=shown) if names else ""


def printable(name: Any) -> str:
    """A column's name; half a character in it, which no file could hold, is written as its code."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def found_names(fields: Iterable[Any]) -> str:
    names = [printable(name) for name in fields]
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "") if names else _("none")


def only_one(readings: Sequence[T], words: Callable[[T], str], origin: Origin, before: str) -> T:
    """The one reading. Raises DataError that shows all of them if there are several; ``words`` writes one as the
    ``key=value`` words that choose it, ``before`` stands before them in the command."""
    if len(readings) == 1:
        return readings[0]
    choices = [words(one) for one in readings]
    raise DataError(
        _("the columns can be read in {count} ways:\n    {readings}", count=len(readings),
          readings="\n    ".join(map(str, readings))),
        where=str(origin),
        do=_("choose one: {choices}", choices=_(" or ").join(choices[:3])),
        command=f"tunewright data check {origin.file} {before} {choices[0]}",
    )  # fmt: skip
