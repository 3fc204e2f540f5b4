"""Rows to be answered: read as the training rows were, without what a model is to find out.

What is wanted (the label, the target, the answer) may be missing; where it is there, it is put aside and a placeholder
stands for it, so that the readers of training rows read these as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunewright.data.columns import found_names, only_one, require_texts
from tunewright.data.formats import Reading, convert, fields_in
from tunewright.data.labelled import PAIRS as TEXT_PAIRS
from tunewright.data.labelled import choose_columns, convert_labelled, labelled_columns
from tunewright.data.parallel import PAIRS, convert_pairs, is_language, parallel_columns
from tunewright.data.read import Row
from tunewright.data.variables import fill_all
from tunewright.errors import DataError
from tunewright.example import Chat, Message
from tunewright.recipe.schema import Data
from tunewright.text import _

PLACEHOLDER = "-"
# What a format with columns of its own asks with, and the columns that it wants.
_TURNS: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("messages", {}),
    "conversations": ("sharegpt", {}),
    "instruction": ("instruction", {"output": PLACEHOLDER}),
    "prompt": ("prompt_completion", {"completion": PLACEHOLDER}),
    "Question": ("reasoning", {"Complex_CoT": "", "Response": PLACEHOLDER}),
}
_QUESTIONS = ("question", "query", "instruction", "prompt", "input", "user", "text", "message", "content", "sentence")
_ANSWERS = ("answer", "answers", "response", "output", "completion", "reply", "target", "label")


@dataclass(frozen=True)
class Asking:
    """data: with the format and the columns spelled out, so that every row of a file is read alike.  answer: what
    stands in place of an answer.  wanted: the columns that are put aside, and what stands for them.  seen: how rows
    are read, for people.  unused: which of the wanted columns the file has."""

    data: Data
    reading: Reading
    answer: str
    wanted: Mapping[str, Any] = field(default_factory=dict)
    seen: str = ""
    unused: tuple[str, ...] = ()

    def chats(self, rows: Sequence[Row]) -> list[Chat]:
        """One example to each row, with a placeholder for the answer. Raises DataError naming the row."""
        if not rows:
            return []
        complete = [Row(row.fields | dict(self.wanted), row.origin) for row in rows]
        try:
            chats = self._converted(complete)
            for chat in chats if self.reading.texts else ():
                require_texts(sum(m.role == "user" for m in chat.messages), self.reading.texts, chat.origin)
            return fill_all(chats, self.data.variables, answers=False).chats
        except DataError as error:
            raise _ours(error) from None

    def _converted(self, rows: Sequence[Row]) -> list[Chat]:
        if self.data.format == "labelled":
            done = convert_labelled(rows, [], self.data, self.reading)[0]
        elif self.data.format == "parallel":
            done = convert_pairs(rows, self.data)
        else:
            done = convert(rows, self.data)
        return [_asked(chat, self.answer) for chat in done.chats]


def asking(rows: Sequence[Row], data: Data, reading: Reading) -> Asking:
    """How rows like these first ones are read. ``data``: of the run's recipe; its columns and prompt come first.

    Raises DataError where no column, or more than one, could be what is asked.
    """
    try:
        found = _BY_READS[reading.reads](rows, data, reading)
    except DataError as error:
        raise _ours(error) from None
    there = [name for name in found.wanted if any(row.fields.get(name) is not None for row in rows)]
    return replace(found, unused=tuple(there))


def line_column(data: Data) -> str:
    """The column that a line of plain text stands for. Raises DataError if the run's prompt takes several."""
    for part in ("text", "source", "question"):
        if part in data.columns:
            return data.columns[part]
    fields = list(dict.fromkeys(fields_in(data.prompt or "")))
    if len(fields) > 1:
        raise DataError(
            _("lines of text cannot fill {fields}, which the run's data.prompt asks for",
              fields=", ".join(f"{{{name}}}" for name in fields)),
            where="data.prompt", do=_("give the rows as a table or JSON Lines with these columns"),
            command="tunewright predict --help",
        )  # fmt: skip
    return fields[0] if fields else "text"


def is_blank(chat: Chat) -> bool:
    """Whether a text that should be read is missing: of labels and pairs any, of a conversation the last turn."""
    asked = [message for message in chat.messages[:-1] if message.role in ("user", "tool")]
    return not asked or not asked[-1].content.strip() or not asked[0].content.strip()


# -- what is read, by what the task learns from rows -----------------------------------------------------------------


def _labels(rows: Sequence[Row], data: Data, reading: Reading) -> Asking:
    value = "[]" if reading.multi_label else reading.labels[0]
    reading = replace(reading, names={})
    named = any(part in data.columns for part in ("text", "pair", "label"))
    if not named and (_describes_turns(data) or (_turn_column(rows) and not _has_text(rows))):
        return _turns(rows, data, reading, value)
    label = data.columns.get("label") or next((columns.label for columns in labelled_columns(rows)), "label")
    if label in (data.columns.get("text"), data.columns.get("pair")):
        label = f"{label} "  # a name that no column has
    given: dict[str, str] = {part: name for part, name in data.columns.items() if part in ("text", "pair")}
    known = _with(data, "labelled", {**given, "label": label})
    columns = choose_columns([Row(row.fields | {label: value}, row.origin) for row in rows], known)
    names = {"text": columns.text, **({"pair": columns.pair} if columns.pair else {}), "label": label}
    seen = _("text is {text}", text=columns.text)
    if columns.pair:
        seen = _("the texts are {text} and {pair}", text=columns.text, pair=columns.pair)
    return Asking(_with(data, "labelled", names), reading, value, {label: value}, seen)


def _has_text(rows: Sequence[Row]) -> bool:
    """Whether a column has the name of a text to be labelled, though another is a conversation's."""
    names = {str(name).strip().casefold() for row in rows for name in row.fields}
    return any(one in names and other in names for one, other in TEXT_PAIRS) or bool({"text", "review"} & names)


def _pairs(rows: Sequence[Row], data: Data, reading: Reading) -> Asking:
    source, target = data.columns.get("source"), data.columns.get("target")
    if source is None:
        if _describes_turns(data):
            return _turns(rows, data, reading)
        if readings := parallel_columns(rows):
            found = only_one(readings, lambda one: one.words(), rows[0].origin, "task=seq2seq")
            columns = {"source": found.source, "target": found.target}
            wanted = {} if found.inside else {found.target: PLACEHOLDER}
            return Asking(
                _with(data, "parallel", columns), reading, PLACEHOLDER, wanted,
                _("source is {source}", source=found.source),
            )  # fmt: skip
        if _turn_column(rows):
            return _turns(rows, data, reading)
        source = _only(rows, [one for one, _other in PAIRS] + list(_QUESTIONS), "source", _is_language)
    target = target or _free("target", rows)
    known = _with(data, "parallel", {"source": source, "target": target})
    return Asking(known, reading, PLACEHOLDER, {target: PLACEHOLDER}, _("source is {source}", source=source))


def _is_language(name: str) -> bool:
    """``id`` is Indonesian, and far more often the number of a row."""
    return is_language(name) and name.casefold() != "id"


def _turns(rows: Sequence[Row], data: Data, reading: Reading, value: str = PLACEHOLDER) -> Asking:
    columns: dict[str, str] = {str(part): name for part, name in data.columns.items()}
    if data.prompt is not None:
        asked = {*fields_in(data.prompt), *columns.values()}
        wanted: dict[str, Any] = {name: PLACEHOLDER for name in fields_in(data.answer or "") if name not in asked}
        known = data.model_copy(update={"format": "template"})
        return Asking(known, reading, value, wanted, _("data.prompt of the run's recipe"))
    if "question" not in columns and (own := _own_format(rows)):
        name, wanted = own
        return Asking(_with(data, name, {}), reading, value, wanted, _("rows in the form of {format}", format=name))
    question = columns.get("question") or _only(rows, _QUESTIONS, "question")
    answer = columns.get("answer") or _free("answer", rows)
    wanted = {answer: PLACEHOLDER, **({columns["thinking"]: ""} if "thinking" in columns else {})}
    known = _with(data, "columns", columns | {"question": question, "answer": answer})
    return Asking(known, reading, value, wanted, _("question is {question}", question=question))


_BY_READS = {"labels": _labels, "pairs": _pairs, "turns": _turns}


# -- finding columns -------------------------------------------------------------------------------------------------


def _describes_turns(data: Data) -> bool:
    return data.prompt is not None or data.answer is not None or "question" in data.columns


def _with(data: Data, format_: str, columns: Mapping[str, str]) -> Data:
    """The run's own way to write a row does not count where columns are named instead."""
    return data.model_copy(update={"format": format_, "columns": dict(columns), "prompt": None, "answer": None})


def _turn_column(rows: Sequence[Row]) -> str | None:
    return next((name for name in _TURNS if all(name in row.fields for row in rows)), None)


def _own_format(rows: Sequence[Row]) -> tuple[str, dict[str, Any]] | None:
    """The format that has columns of its own, and what it wants."""
    column = _turn_column(rows)
    if column is None:
        return None
    name, wanted = _TURNS[column]
    held = rows[0].fields[column]
    if column in ("messages", "conversations"):
        first = held[0] if isinstance(held, list) and held and isinstance(held[0], Mapping) else {}
        name = "sharegpt" if "from" in first else "messages"
    elif column == "prompt" and isinstance(held, list):
        wanted = {"completion": []}
    return name, wanted


def _only(
    rows: Sequence[Row], known: Sequence[str], part: str, likely: Callable[[str], bool] = lambda name: False
) -> str:
    """The column with one of the ``known`` names, the first in their order; else the only one with a ``likely`` name;
    else the only one that holds text."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    lower = {name.strip().casefold(): name for name in names}
    found = next((lower[name] for name in known if name in lower), None)
    if found is not None:
        return found
    texts = [name for name in names if any(isinstance(row.fields.get(name), str) for row in rows)]
    free = [name for name in texts if likely(name)]
    free = free or [name for name in texts if name.strip().casefold() not in _ANSWERS]
    if len(free) == 1:
        return free[0]
    raise DataError(
        _("no column is known to hold the {part}; found are {names}", part=part, names=found_names(names)),
        where=str(rows[0].origin), do=_("name it: {words}", words=f"data.columns.{part}=COLUMN"),
    )  # fmt: skip


def _free(name: str, rows: Sequence[Row]) -> str:
    """A name for the column of what is wanted."""
    return next((found for row in rows for found in map(str, row.fields) if found.casefold() == name), name)


# -- examples --------------------------------------------------------------------------------------------------------


def _asked(chat: Chat, answer: str) -> Chat:
    """The conversation up to what was said last to the model, with a placeholder for its answer."""
    last = max((i for i, m in enumerate(chat.messages) if m.role in ("user", "tool")), default=-1)
    before = tuple(replace(message, learn=False) for message in chat.messages[: last + 1])
    return replace(chat, messages=(*before, Message("assistant", answer, learn=True)))


def _ours(error: DataError) -> DataError:
    """The same with this verb's command."""
    return DataError(error.what, where=error.where, do=error.do, command="tunewright predict --help")
