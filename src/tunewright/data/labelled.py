"""Labelled rows: a text (or two) and what it is. Every row becomes the turns ``text`` and ``label``.

Which column is which is read off their names, with a reason; where two would do, the person decides.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewright.data.columns import check_names, found_names, kept_beside, only_one, require_columns, require_texts
from tunewright.data.formats import Conversion, Reading, convert, flat_formats
from tunewright.data.messages import kind_of, text_of
from tunewright.data.read import Row
from tunewright.errors import DataError
from tunewright.example import Chat, Message, Origin
from tunewright.recipe.schema import Data
from tunewright.text import _

TEXTS = (
    "text", "review", "sentence", "content", "comment", "tweet", "document", "body", "post", "utterance", "passage",
    "message", "query", "title", "headline", "description", "question",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "classes", "category", "categories", "sentiment", "target", "intent", "topic",
    "emotion", "polarity", "rating", "stars", "stance", "tag", "tags", "y",
)  # fmt: skip
PAIRS = (
    ("sentence1", "sentence2"), ("sentence_a", "sentence_b"), ("text1", "text2"), ("text_a", "text_b"),
    ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"), ("question", "passage"),
    ("query", "passage"), ("query", "document"),
)  # fmt: skip
# Names that say nothing about what is in the column; taken as the text only where no better one is there.
_WEAK = ("title", "headline", "description", "question", "query", "message")
_NO_TEXT = ("id", "idx", "index", "guid", "uid", "url", "date", "split", "lang", "language")
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_WHOLE = re.compile(r"([+-]?\d+)(?:\.0+)?")
_NUMBER = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Columns:
    """The columns of a labelled row. pair: of its second text.  flags: instead of ``label``, one column for each label
    that says whether the row has it."""

    text: str
    pair: str | None
    label: str
    flags: tuple[str, ...] = ()

    def labels(self) -> tuple[str, ...]:
        return self.flags or (self.label,)

    def values(self, row: Row, multi_label: bool) -> tuple[str, ...]:
        """The row's labels as text. Raises DataError where there is none, or a flag is neither 0 nor 1."""
        if not self.flags:
            return values_of(row.fields.get(self.label), self.label, row.origin, multi_label)
        return tuple(name for name in self.flags if _flag(row.fields.get(name), name, row.origin))

    def __str__(self) -> str:
        if self.flags:
            names = ", ".join(self.flags)
            return _("the text is in column {text}, a 0 or 1 for each label in {names}", text=self.text, names=names)
        if self.pair is None:
            return _("the text is in column {text}, the label in {label}", text=self.text, label=self.label)
        return _("the texts are in columns {text} and {pair}, the label in {label}",
                 text=self.text, pair=self.pair, label=self.label)  # fmt: skip

    def words(self) -> str:
        """As ``key=value`` words."""
        pair = f" data.columns.pair={self.pair}" if self.pair else ""
        return f"data.columns.text={self.text}{pair} data.columns.label={self.label}"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row before its label has a name. values: labels as the data writes them; one, unless ``multi_label``."""

    texts: tuple[str, ...]
    values: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True)
class _Parsed:
    rows: list[_Row]
    name: str
    reason: str
    ignored: Counter[str]
    flagged: Columns | None = None


@dataclass(frozen=True)
class Names:
    """From a label as the data writes it to its name.

    labels: in the order of their numbers.  given: the recipe names them, so that they are not the training rows'.
    whole: the data writes whole numbers, maybe as 1.0.  numbers: it writes the numbers of ``labels``.
    """

    labels: tuple[str, ...]
    better: Mapping[str, str]
    given: bool
    whole: bool
    numbers: bool
    multi_label: bool

    @classmethod
    def of(cls, rows: Sequence[_Row], reading: Reading) -> Names:
        """What the training rows call their labels."""
        values = dict.fromkeys(value for row in rows for value in row.values)
        whole = bool(values) and all(_WHOLE.fullmatch(value) for value in values)
        plain = list(dict.fromkeys(_plain(value, whole) for value in values))
        better = {_plain(value, whole): name for value, name in reading.names.items()}
        given = bool(reading.labels)
        numbers = given and whole and not any(better.get(value, value) in reading.labels for value in plain)
        labels = reading.labels or tuple(_ordered(plain, better))
        return cls(labels, better, given, whole, numbers, reading.multi_label)

    def chat(self, row: _Row) -> Chat:
        """Raises DataError naming the row whose label is not known."""
        names = {self._name(value, row.origin) for value in row.values}
        chosen = [name for name in self.labels if name in names]
        answer = json.dumps(chosen, ensure_ascii=False) if self.multi_label else chosen[0]
        given = [Message("user", text) for text in row.texts]
        return Chat((*given, Message("assistant", answer, learn=True)), row.origin)

    def _name(self, value: str, origin: Origin) -> str:
        plain = _plain(value, self.whole)
        if self.numbers and _NUMBER.fullmatch(plain) and 0 <= int(plain) < len(self.labels):
            return self.labels[int(plain)]
        name = self.better.get(plain, plain)
        if name in self.labels:
            return name
        folded = {label.casefold().strip(): label for label in self.labels}
        near = [folded[name.casefold().strip()]] if name.casefold().strip() in folded else []
        near = near or difflib.get_close_matches(name, self.labels, n=1, cutoff=0.6)
        what = _("the label {name!r} is not among classify.labels", name=name)
        if not self.given:
            what = _("the label {name!r} stands in no training row", name=name)
        raise DataError(
            what,
            where=str(origin),
            do=(_("did you mean {near!r}? ", near=near[0]) if near else "")
            + _("known are {names}", names=_quoted(self.labels))
            + _("; classify.names gives a label another name"),
            command="tunewright recipe explain classify.names",
        )


def convert_labelled(
    train: Sequence[Row], validation: Sequence[Row], data: Data, reading: Reading, seen: str | None = None
) -> tuple[Conversion, list[Chat], tuple[str, ...]]:
    """The conversion of the training rows, the examples of the validation rows, and all labels in their order.

    ``seen``: why the columns text and label are what they are, where files gave them. Raises DataError naming the row
    without a label, with one that the training rows do not have, or with columns that can be read in several ways.
    """
    parsed = _parse(train, data, reading, seen)
    names = Names.of(parsed.rows, reading)
    reason = parsed.reason
    if names.numbers:
        reason += _("; numbers from 0 to {most} stand for classify.labels in order", most=len(names.labels) - 1)
    done = Conversion([names.chat(row) for row in parsed.rows], parsed.name, reason, parsed.ignored)
    more: list[Chat] = []
    if validation:
        other = _parse(validation, data, reading, seen, parsed.flagged)
        for row in other.rows:
            require_texts(len(row.texts), len(parsed.rows[0].texts), row.origin)
        more = [names.chat(row) for row in other.rows]
        done.ignored += other.ignored
    return done, more, names.labels


# -- rows ------------------------------------------------------------------------------------------------------------


def _parse(
    rows: Sequence[Row], data: Data, reading: Reading, seen: str | None, flagged: Columns | None = None
) -> _Parsed:
    columns = Columns("text", None, "label") if seen is not None else flagged or columns_of(rows, data, reading)
    if columns is None:
        return _from_turns(rows, data, reading)
    used = [columns.text, *([columns.pair] if columns.pair else [])]
    parsed: list[_Row] = []
    extra: dict[str, None] = {}
    for row in rows:
        require_columns(used, row.fields, row.origin)
        texts = tuple(text_of(row.fields[name], name, row.origin) for name in used)
        values = columns.values(row, reading.multi_label)
        taken = (*used, *columns.labels())
        rest = {str(name): value for name, value in row.fields.items() if name not in taken}
        extra |= dict.fromkeys(rest)
        parsed.append(_Row(texts, values, replace(row.origin, extra=rest)))
    reason = seen if seen is not None else str(columns)
    if data.columns:
        reason = _("data.columns: {columns}", columns=columns)
    return _Parsed(parsed, "labelled", reason + kept_beside(extra), Counter(), columns if columns.flags else None)


def columns_of(rows: Sequence[Row], data: Data, reading: Reading) -> Columns | None:
    """The columns of labelled rows, or None where they have the form of a conversation. Raises DataError."""
    turns = data.prompt is not None or data.answer is not None or "answer" in data.columns
    if turns or data.format not in ("auto", "labelled"):
        return None
    if reading.multi_label and (flagged := _flagged(rows, data)):
        return flagged
    if data.format == "auto" and not data.columns and not labelled_columns(rows) and flat_formats(rows):
        return None
    return choose_columns(rows, data)


def _from_turns(rows: Sequence[Row], data: Data, reading: Reading) -> _Parsed:
    """Rows in the form of a conversation: what is asked is the text, the answer is the label."""
    done = convert(rows, data.model_copy(update={"system": None}))  # the system message is part of the prompt
    parsed: list[_Row] = []
    for chat in done.chats:
        turns = [message.role for message in chat.messages]
        if turns not in (["user", "assistant"], ["user", "user", "assistant"]):
            raise DataError(
                _("the row's turns are {turns}; a labelled row is a text and its label", turns=", ".join(turns)),
                where=str(chat.origin), do=_("give it one turn of the user and one answer, or choose task=chat"),
                command=f"tunewright data check {chat.origin.file} task=chat",
            )  # fmt: skip
        texts = tuple(message.content for message in chat.messages[:-1])
        values = values_of(chat.messages[-1].content, "answer", chat.origin, reading.multi_label)
        parsed.append(_Row(texts, values, chat.origin))
    return _Parsed(parsed, done.name, done.reason + _("; the answer is the label"), done.ignored)


# -- labels ----------------------------------------------------------------------------------------------------------


def values_of(value: Any, column: str, origin: Origin, multi_label: bool) -> tuple[str, ...]:
    """A cell's labels as text. Raises DataError where there is none, or several although a row has one label."""
    if multi_label and not isinstance(value, list) and value is not None and value == value:
        value = _listed(value)
    if isinstance(value, list):
        if not multi_label:
            raise DataError(
                _("{column!r} holds a list of {count} labels; a row has one label", column=column, count=len(value)),
                where=str(origin), do=_("for any number of labels to a row: classify.multi_label=true"),
                command=f"tunewright data check {origin.file} task=classify classify.multi_label=true",
            )  # fmt: skip
        return tuple(dict.fromkeys(_value(one, column, origin) for one in value))
    return (_value(value, column, origin),)


def _listed(value: Any) -> list[Any]:
    """A cell of several labels: a JSON list as text, or names with commas between. Nothing is no label."""
    if not isinstance(value, str):
        return [value]
    if value.strip().startswith("["):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return found
    return [one.strip() for one in value.split(",")] if value.strip() else []


def _value(value: Any, column: str, origin: Origin) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == value:
        if value.is_integer():
            return str(int(value))
        raise DataError(
            _("the label {value} is a number with a fraction, not a class", value=value),
            where=str(origin),
            do=_("write classes as text or whole numbers; a quantity cannot be learned as a label"),
        )
    if isinstance(value, dict):
        raise DataError(
            _("{column!r} holds {kind}, not a label", column=column, kind=kind_of(value)), where=str(origin),
            do=_("name the column that holds the label: data.columns.label=COLUMN"),
        )  # fmt: skip
    text = text_of(value, column, origin)
    if not text.strip():
        raise DataError(
            _("the row has no label: {column!r} is empty", column=column), where=str(origin),
            do=_("fill it in, or take the row out of the file"),
        )  # fmt: skip
    return text


def _plain(value: str, whole: bool) -> str:
    """Where all labels are whole numbers, 1.0 is another way to write 1."""
    match = _WHOLE.fullmatch(value) if whole else None
    return str(int(match[1])) if match else value


def _ordered(values: Sequence[str], better: Mapping[str, str]) -> dict[str, None]:
    """Names: by the numbers that the data writes, so that these stay the labels' numbers; else by the names."""
    if all(_NUMBER.fullmatch(value) for value in values):
        return dict.fromkeys(better.get(value, value) for value in sorted(values, key=lambda v: (int(v), v)))
    return dict.fromkeys(sorted(better.get(value, value) for value in values))


def _quoted(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(map(repr, names[:most])) + (" …" if len(names) > most else "")


# -- columns ---------------------------------------------------------------------------------------------------------


def choose_columns(rows: Sequence[Row], data: Data) -> Columns:
    """The columns that ``data.columns`` names, else those whose names say so. Raises DataError: none, or several."""
    given: dict[str, str] = {part: name for part, name in data.columns.items() if part in ("text", "pair", "label")}
    if others := [part for part in data.columns if part not in given]:
        raise DataError(
            _("data.columns.{part} has no meaning in a labelled row", part=others[0]), where="data.columns",
            do=_("name text and label (and pair, a second text)"),
        )  # fmt: skip
    check_names(given, rows)
    readings = labelled_columns(rows, given)
    if not readings:
        raise _no_columns(rows, given)
    return only_one(readings, Columns.words, rows[0].origin, "task=classify")


def _flagged(rows: Sequence[Row], data: Data) -> Columns | None:
    """One column to each label, as tables of several labels to a row often have it; None if there is another reading.
    They are columns of 0 and 1 alone, at least two, with no column of labels beside them."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    if "label" in data.columns or "pair" in data.columns or any(map(_is_label, names)):
        return None
    free = [name for name in names if name.strip().casefold() not in _NO_TEXT]
    flags = tuple(name for name in free if all(_is_flag(row.fields.get(name)) for row in rows))
    texts = [(data.columns["text"], None)] if "text" in data.columns else _texts(
        [name for name in names if name not in flags], None, rows
    )  # fmt: skip
    if len(flags) < 2 or len(texts) != 1 or texts[0][1] is not None:
        return None
    return Columns(texts[0][0], None, "", flags)


def _is_flag(value: Any) -> bool:
    return str(value).strip().casefold() in _FLAGS


def _flag(value: Any, name: str, origin: Origin) -> bool:
    if not _is_flag(value):
        raise DataError(
            _("{name!r} is {value!r}, where 0 or 1 says whether the row has this label", name=name, value=value),
            where=str(origin), do=_("write 0 or 1"),
        )  # fmt: skip
    return _FLAGS[str(value).strip().casefold()]


def labelled_columns(rows: Sequence[Row], given: Mapping[str, str] | None = None) -> list[Columns]:
    """Every way in which the columns' names can be read."""
    given = given or {}
    names = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    labels = [given["label"]] if "label" in given else [name for name in names if _is_label(name)]
    found: list[Columns] = []
    for label in labels:
        free = [name for name in names if name not in (label, given.get("pair"))]
        texts = [(given["text"], given.get("pair"))] if "text" in given else _texts(free, given.get("pair"), rows)
        found += [Columns(text, pair, label) for text, pair in texts if label not in (text, pair)]
    return found


def _is_label(name: str) -> bool:
    name = name.strip().casefold()
    return name in LABELS or name.endswith("_label") or name.startswith("label_")


def _texts(names: Sequence[str], pair: str | None, rows: Sequence[Row]) -> list[tuple[str, str | None]]:
    lower = {name.strip().casefold(): name for name in names}
    if pair is None:
        pairs = [(lower[one], lower[other]) for one, other in PAIRS if one in lower and other in lower]
        if pairs:
            taken = {name for both in pairs for name in both}
            strong = [name for low, name in lower.items() if low in TEXTS and low not in _WEAK and name not in taken]
            return [*pairs, *((name, None) for name in strong)]
    for known in ([name for name in TEXTS if name not in _WEAK], _WEAK):
        if found := [lower[name] for name in known if name in lower]:
            return [(name, pair) for name in found]
    other = [name for name in names if name.strip().casefold() not in _NO_TEXT and not _is_label(name)]
    texts = [name for name in other if any(isinstance(row.fields.get(name), str) for row in rows[:100])]
    return [(texts[0], pair)] if len(texts) == 1 else []


def _no_columns(rows: Sequence[Row], given: Mapping[str, str]) -> DataError:
    names = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    label = given.get("label") or next((name for name in names if _is_label(name)), None)
    part = _("text") if label else _("label")
    text = given.get("text") or next((name for name in names if name.casefold() in TEXTS), None)
    guess = f"data.columns.text={text or 'COLUMN'} data.columns.label={label or 'COLUMN'}"
    return DataError(
        _("no column is known to hold the {part}; found are {names}", part=part, names=found_names(names)),
        where=str(rows[0].origin),
        do=_("name the columns: {guess}", guess=guess),
        command=f"tunewright data check {rows[0].origin.file} task=classify {guess}",
    )


