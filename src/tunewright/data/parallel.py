"""Pairs of texts, one written from the other: translations, summaries, answers to instructions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from tunewright.data.columns import check_names, found_names, kept_beside, only_one, require_columns
from tunewright.data.formats import Conversion, convert, flat_formats
from tunewright.data.messages import answered, kind_of, text_of
from tunewright.data.read import Row
from tunewright.errors import DataError
from tunewright.example import Chat
from tunewright.recipe.schema import Data
from tunewright.text import _

PAIRS = (
    ("source", "target"), ("src", "tgt"), ("source_text", "target_text"), ("input_text", "target_text"),
    ("input", "target"), ("document", "summary"), ("text", "summary"), ("dialogue", "summary"),
    ("article", "highlights"), ("article", "summary"),
)  # fmt: skip
# ISO 639-1, the languages that parallel corpora name their columns by; also with a script or a country behind it.
_CODES = """
    af am ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu ha he hi hr hu hy id ig is it ja ka
    kk km kn ko ky la lb lo lt lv mg mk ml mn mr ms mt my ne nl no nn nb or pa pl ps pt ro ru rw sd si sk sl so sq sr
    sv sw ta te tg th tk tl tr tt ug uk ur uz vi xh yi yo zh zu
"""
LANGUAGES = frozenset(_CODES.split())
_LANGUAGE = re.compile(r"([a-z]{2})(?:[-_][a-z]{2,4})?|[a-z]{3}_[a-z]{4}", re.IGNORECASE)


def is_language(name: str) -> bool:
    """Whether ``name`` is a language's code: en, zh-CN, eng_Latn."""
    match = _LANGUAGE.fullmatch(name.strip())
    return match is not None and (match[1] is None or match[1].lower() in LANGUAGES)


@dataclass(frozen=True)
class Columns:
    """Where source and target stand. inside: the column whose object holds both, as the hub writes translations."""

    source: str
    target: str
    inside: str | None = None
    by_order: bool = False

    def __str__(self) -> str:
        text = _("the source is in column {source}, the target in {target}", source=self.source, target=self.target)
        if self.inside:
            text += _(" of {column}", column=self.inside)
        if self.by_order:
            text += _(" (in the order of the columns; the other way: {words})", words=self.turned())
        return text

    def words(self) -> str:
        return f"data.columns.source={self.source} data.columns.target={self.target}"

    def turned(self) -> str:
        return Columns(self.target, self.source).words()

    def fields(self, row: Row) -> Mapping[str, Any]:
        if self.inside is None:
            return row.fields
        held = row.fields.get(self.inside)
        if not isinstance(held, Mapping):
            raise DataError(
                _("{column!r} holds {kind}, not an object with two languages", column=self.inside, kind=kind_of(held)),
                where=str(row.origin), do=_("write it as {example}", example='{"en": "…", "fr": "…"}'),
            )  # fmt: skip
        return held


def convert_pairs(rows: Sequence[Row], data: Data, seen: str | None = None) -> Conversion:
    """Every row becomes a source and a target. ``seen``: why, where two files gave them. Raises DataError."""
    if seen is None and not _is_parallel(rows, data):
        return _from_turns(rows, data)
    columns = Columns("source", "target") if seen is not None else _choose(rows, data)
    chats: list[Chat] = []
    extra: dict[str, None] = {}
    for row in rows:
        fields = columns.fields(row)
        require_columns((columns.source, columns.target), fields, row.origin)
        source, target = (text_of(fields[name], name, row.origin) for name in (columns.source, columns.target))
        used = (columns.inside,) if columns.inside else (columns.source, columns.target)
        rest = {str(name): value for name, value in row.fields.items() if name not in used}
        extra |= dict.fromkeys(rest)
        chats.append(Chat(tuple(answered(source, target)), replace(row.origin, extra=rest)))
    reason = seen if seen is not None else str(columns)
    if data.columns:
        reason = _("data.columns: {columns}", columns=columns)
    return Conversion(chats, "parallel", reason + kept_beside(extra), Counter())


def _is_parallel(rows: Sequence[Row], data: Data) -> bool:
    """Whether source and target are columns, rather than turns of a format that conversations have."""
    if data.format != "auto":
        return data.format == "parallel"
    if data.columns:
        return "source" in data.columns or "target" in data.columns
    if data.prompt is not None or data.answer is not None:
        return False
    return bool(parallel_columns(rows)) or not flat_formats(rows)


def _from_turns(rows: Sequence[Row], data: Data) -> Conversion:
    done = convert(rows, data)
    for chat in done.chats:
        turns = [message.role for message in chat.messages]
        if turns != ["user", "assistant"] or chat.messages[1].thinking is not None:
            what = _("a chain of thought") if turns == ["user", "assistant"] else ", ".join(turns)
            raise DataError(
                _("the row has {what}; a pair is one source and one target", what=what), where=str(chat.origin),
                do=_("give it one question and one answer, or choose task=chat"),
                command=f"tunewright data check {chat.origin.file} task=chat",
            )  # fmt: skip
    return done


def _choose(rows: Sequence[Row], data: Data) -> Columns:
    """Raises DataError: no columns that would do, or several ways to read them."""
    given = data.columns
    if others := [part for part in given if part not in ("source", "target")]:
        raise DataError(
            _("data.columns.{part} has no meaning in a pair", part=others[0]), where="data.columns",
            do=_("name source and target"),
        )  # fmt: skip
    readings = parallel_columns(rows)
    if given:
        for part in ("source", "target"):
            if part not in given:
                raise DataError(
                    _("data.columns names no {part}", part=part), where="data.columns",
                    do=_("add data.columns.{part}=COLUMN", part=part),
                )  # fmt: skip
        source, target = given["source"], given["target"]
        for inside in _objects(rows):
            held = rows[0].fields[inside]
            if source in held and target in held:
                return Columns(source, target, inside)
        check_names(given, rows)
        return Columns(source, target)
    if not readings:
        names = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
        raise DataError(
            _("no columns are known to hold source and target; found are {names}", names=found_names(names)),
            where=str(rows[0].origin),
            do=_("name them: {words}", words="data.columns.source=COLUMN data.columns.target=COLUMN"),
            command=f"tunewright data check {rows[0].origin.file} task=seq2seq data.columns.source=COLUMN "
            "data.columns.target=COLUMN",
        )
    return only_one(readings, Columns.words, rows[0].origin, "task=seq2seq")


def parallel_columns(rows: Sequence[Row]) -> list[Columns]:
    """Every way in which the columns' names can be read."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    lower = {name.strip().casefold(): name for name in names}
    found = [Columns(lower[one], lower[other]) for one, other in PAIRS if one in lower and other in lower]
    for inside in _objects(rows):
        keys = [str(key) for key in rows[0].fields[inside]]
        found += [Columns(one, other, inside, True) for one, other in combinations(keys, 2)]
    languages = [name for name in names if is_language(name) and _holds_text(name, rows)]
    return found + [Columns(one, other, None, True) for one, other in combinations(languages, 2)]


def _holds_text(name: str, rows: Sequence[Row]) -> bool:
    """Whether a column named like a language holds one: ``id`` is Indonesian, and more often a number or a key."""
    values = [value for row in rows[:100] if (value := row.fields.get(name))]
    if not values or not all(isinstance(value, str) for value in values):
        return False
    if name.strip().casefold() in ("id", "no"):
        return sum(" " in value.strip() for value in values) * 2 > len(values)
    return any(char.isalpha() for value in values for char in value)


def _objects(rows: Sequence[Row]) -> list[str]:
    """Columns whose first value is an object with languages as keys."""
    return [
        str(name)
        for name, value in rows[0].fields.items()
        if isinstance(value, Mapping) and len(value) >= 2 and all(is_language(str(key)) for key in value)
    ]
