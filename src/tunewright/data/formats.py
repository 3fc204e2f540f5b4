"""Rows to conversations. The format is read off the columns, with a reason; where two would fit, the person decides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tunewright.data.columns import check_names, found_names, kept_beside, require_columns
from tunewright.data.messages import answered, history_of, parse_messages, style_of, text_of, tools_of
from tunewright.data.read import Row
from tunewright.errors import DataError
from tunewright.example import Chat, Message, Origin
from tunewright.recipe.schema import Data
from tunewright.text import _

Build = Callable[[Mapping[str, Any], Origin, Counter[str]], list[Message]]
Reads = Literal["turns", "labels", "pairs", "documents"]
_FIELD = re.compile(r"\{\{.*?\}\}|\{([^{}]+)\}", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """How rows are read, by what the task learns from them (``Task.reads``).

    labels: names in the order of their numbers; empty for those of the training rows.  names: better names for labels
    as the data writes them.  multi_label: a row has any number of labels.  texts: how many of them a labelled row has,
    as a finished run knows it; 0 where nothing is known.
    """

    reads: Reads = "turns"
    labels: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    multi_label: bool = False
    texts: int = 0


@dataclass(frozen=True)
class Format:
    """name: as in ``data.format``.  needs: columns each row must have.  takes: those it reads where they are.
    build: one row's fields to messages.  saw: what the reason calls it."""

    name: str
    saw: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    build: Build

    def __str__(self) -> str:
        return _("{name}: {saw}", name=self.name, saw=self.saw)


@dataclass
class Conversion:
    """What came of the rows. ignored: fields inside messages that mean nothing here, and how often they were seen."""

    chats: list[Chat]
    name: str
    reason: str
    ignored: Counter[str] = field(default_factory=Counter)


def convert(rows: Sequence[Row], data: Data) -> Conversion:
    """Every row becomes one conversation, in order. Raises DataError naming the row that cannot."""
    chosen = _written_in_recipe(data, rows) or _detect(rows, data.format)
    done = Conversion([], chosen.name, _reason(chosen, rows, data))
    for row in rows:
        done.chats.append(_chat(row, chosen, data, done.ignored))
    return done


def _chat(row: Row, chosen: Format, data: Data, ignored: Counter[str]) -> Chat:
    fields, origin = row.fields, row.origin
    require_columns(chosen.needs, fields, origin)
    messages = chosen.build(fields, origin, ignored)
    if not messages:
        raise DataError(
            _("the row has no message"), where=str(origin), do=_("give it at least a question and an answer")
        )
    messages = _with_system(messages, row, chosen, data)
    read = {*chosen.needs, *chosen.takes}
    extra = {str(name): value for name, value in fields.items() if name not in read}
    tools = tools_of(fields.get("tools"), origin) if "tools" in chosen.takes else ()
    return Chat(tuple(messages), Origin(origin.file, origin.line, origin.row, extra), tools)


def _with_system(messages: list[Message], row: Row, chosen: Format, data: Data) -> list[Message]:
    has_one = any(message.role == "system" for message in messages)
    column = data.columns.get("system", "system")
    written = text_of(row.fields.get(column), column, row.origin) if column in chosen.takes else ""
    if written.strip() and has_one:
        raise DataError(
            _("the row has a system message and a column {column!r} too", column=column),
            where=str(row.origin),
            do=_("keep one of the two"),
        )
    if written.strip():
        return [Message("system", written), *messages]
    if data.system is not None and not has_one:
        return [Message("system", data.system), *messages]
    return messages


# -- the formats -----------------------------------------------------------------------------------------------------


def _listed(name: str, column: str) -> Format:
    """Conversations in a column: ShareGPT's from/value or OpenAI's role/content."""

    def build(fields: Mapping[str, Any], origin: Origin, ignored: Counter[str]) -> list[Message]:
        return parse_messages(fields[column], column, origin, ignored)

    inside = "from/value" if name == "sharegpt" else "role/content"
    saw = _("column {column} with messages of {inside}", column=column, inside=inside)
    return Format(name, saw, (column,), ("tools", "system"), build)


def _instruction(fields: Mapping[str, Any], origin: Origin, ignored: Counter[str]) -> list[Message]:
    question = text_of(fields["instruction"], "instruction", origin)
    more = text_of(fields.get("input"), "input", origin)
    if more.strip():
        question = f"{question}\n{more}" if question.strip() else more
    answer = text_of(fields["output"], "output", origin)
    return [*history_of(fields.get("history"), origin), *answered(question, answer)]


def _prompt_completion(fields: Mapping[str, Any], origin: Origin, ignored: Counter[str]) -> list[Message]:
    prompt, completion = fields["prompt"], fields["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        asked = parse_messages(prompt, "prompt", origin, ignored)
        context = [Message(m.role, m.content, False, m.thinking, m.name, m.tool_calls, m.tool_call_id) for m in asked]
        return [*context, *parse_messages(completion, "completion", origin, ignored)]
    return answered(text_of(prompt, "prompt", origin), text_of(completion, "completion", origin))


def _reasoning(fields: Mapping[str, Any], origin: Origin, ignored: Counter[str]) -> list[Message]:
    thinking = text_of(fields["Complex_CoT"], "Complex_CoT", origin)
    return answered(
        text_of(fields["Question"], "Question", origin),
        text_of(fields["Response"], "Response", origin),
        thinking if thinking.strip() else None,
    )


def _no_preference(fields: Mapping[str, Any], origin: Origin, ignored: Counter[str]) -> list[Message]:
    raise DataError(
        _("these are preference pairs (chosen and rejected); the task chat learns from one answer to a row"),
        where=str(origin),
        do=_("name the columns with data.columns.question=… data.columns.answer=chosen, or choose data.format"),
    )


_LISTED = {
    (name, column): _listed(name, column)
    for name in ("sharegpt", "messages")
    for column in ("conversations", "messages")
}
_FLAT = (
    Format(
        "instruction",
        "columns instruction and output, with input after the instruction where there is one",
        ("instruction", "output"),
        ("input", "system", "history"),
        _instruction,
    ),
    Format(
        "prompt_completion", "columns prompt and completion", ("prompt", "completion"), ("tools",), _prompt_completion
    ),
    Format(
        "reasoning",
        "columns Question, Complex_CoT and Response; the chain of thought is learned as thinking",
        ("Question", "Complex_CoT", "Response"),
        ("system",),
        _reasoning,
    ),
    Format("preference", "columns chosen and rejected", ("chosen", "rejected"), (), _no_preference),
)


def _candidates(fields: Mapping[str, Any], style: Mapping[str, str]) -> list[Format]:
    found: list[Format] = []
    for column, seen in style.items():
        if seen in ("sharegpt", "messages"):
            found.append(_LISTED[seen, column])
        else:  # empty, or no list at all: what the column's name suggests, and the row itself will say what is wrong
            found.append(_LISTED["sharegpt" if column == "conversations" else "messages", column])
    return found + [known for known in _FLAT if all(name in fields for name in known.needs)]


def flat_formats(rows: Sequence[Row]) -> list[str]:
    """Names of the formats that the first row could have, conversations among them."""
    fields = rows[0].fields
    style: dict[str, str] = {
        column: style_of(fields[column]) for column in ("conversations", "messages") if column in fields
    }
    return [found.name for found in _candidates(fields, style)]


# -- choosing --------------------------------------------------------------------------------------------------------


def _detect(rows: Sequence[Row], wanted: str) -> Format:
    """The one format that all rows have. Raises DataError: no format, several, or not the same in all rows."""
    seen: dict[tuple[Any, ...], tuple[Row, list[Format]]] = {}
    for row in rows:
        style: dict[str, str] = {
            column: style_of(row.fields[column]) for column in ("conversations", "messages") if column in row.fields
        }
        key = (tuple(row.fields), tuple(style.values()))
        if key not in seen:
            seen[key] = (row, _candidates(row.fields, style))
    shared: list[Format] | None = None
    first = rows[0]
    for row, candidates in seen.values():
        named = [found for found in candidates if wanted in ("auto", found.name)]
        if not named:
            raise _wrong_columns(row, wanted)
        before, shared = shared, named if shared is None else [found for found in shared if found in named]
        if not shared:
            raise DataError(
                _(
                    "two formats in one set of rows: {one} and {two}",
                    one=before[0].name if before else "?",
                    two=named[0].name,
                ),
                where=f"{first.origin} and {row.origin}",
                do=_("give all rows the same columns, or train on one kind at a time"),
            )
    assert shared is not None
    if len(shared) > 1:
        names = [found.name for found in shared if found.name != "preference"]
        raise DataError(
            _(
                "the columns can be read in {count} ways:\n    {readings}",
                count=len(shared),
                readings="\n    ".join(map(str, shared)),
            ),
            where=str(first.origin),
            do=_("choose one: {choices}", choices=_(" or ").join(f"data.format={name}" for name in names)),
            command=f"tunewright data check {first.origin.file} data.format={names[0]}" if names else None,
        )
    return shared[0]


def _written_in_recipe(data: Data, rows: Sequence[Row]) -> Format | None:
    """The format that ``data.columns`` or ``data.prompt`` and ``data.answer`` describe, if they are set."""
    templated = data.prompt is not None or data.answer is not None
    named = "question" in data.columns or "answer" in data.columns
    if templated and named:
        raise DataError(
            _("data.columns names question or answer, and data.prompt or data.answer writes them"),
            where="data.columns, data.prompt",
            do=_("keep one of the two"),
        )
    if data.format == "template" and not templated:
        raise DataError(
            _("data.format is template, but no data.prompt is given"),
            where="data.format",
            do=_('write data.prompt: "… {column} …" and data.answer: "{column}"'),
        )
    if data.format == "columns" and not named:
        raise DataError(
            _("data.format is columns, but data.columns names none"),
            where="data.format",
            do=_("add data.columns.question=… data.columns.answer=…"),
        )
    if not templated and not named:
        if data.columns:
            raise DataError(
                _("data.columns names neither question nor answer"),
                where="data.columns",
                do=_("add data.columns.question=… data.columns.answer=…"),
            )
        return None
    kind = "template" if templated else "columns"
    if data.format not in ("auto", kind):
        where = "data.prompt" if templated else "data.columns"
        raise DataError(
            _("data.format is {wanted}, but {where} describes other rows", wanted=data.format, where=where),
            where="data.format",
            do=_("remove one of the two"),
        )
    return _templated(data, rows) if templated else _columns(data, rows)


def _columns(data: Data, rows: Sequence[Row]) -> Format:
    for part in ("question", "answer"):
        if part not in data.columns:
            raise DataError(
                _("data.columns names no {part}", part=part),
                where="data.columns",
                do=_("add data.columns.{part}=COLUMN", part=part),
            )
    check_names(data.columns, rows)
    names = data.columns

    def build(fields: Mapping[str, Any], origin: Origin, ignored: Counter[str]) -> list[Message]:
        return answered(
            text_of(fields[names["question"]], names["question"], origin),
            text_of(fields[names["answer"]], names["answer"], origin),
            _thinking(fields, names, origin),
        )

    saw = _("data.columns: question is {question}, answer is {answer}", **names)
    return Format("columns", saw, tuple(n for p, n in names.items() if p != "system"), _system(names), build)


def _templated(data: Data, rows: Sequence[Row]) -> Format:
    for key, text in (("prompt", data.prompt), ("answer", data.answer)):
        if text is None:
            raise DataError(
                _("data.{key} is missing", key=key),
                where=f"data.{key}",
                do=_('write both: data.prompt: "… {column} …" and data.answer: "{column}"'),
            )
        if not any(fields_in(text)):
            raise DataError(
                _("data.{key} names no column", key=key),
                where=f"data.{key}",
                do=_("write a column's name in braces; found are {names}", names=found_names(rows[0].fields)),
            )
    prompt, answer = data.prompt or "", data.answer or ""
    names = data.columns
    used = dict.fromkeys([*fields_in(prompt), *fields_in(answer)])
    check_names({f"{{{name}}}": name for name in used} | dict(names), rows)

    def build(fields: Mapping[str, Any], origin: Origin, ignored: Counter[str]) -> list[Message]:
        def fill(text: str) -> str:
            return _FIELD.sub(lambda m: text_of(fields[m[1]], m[1], origin) if m[1] else m[0], text)

        return answered(fill(prompt), fill(answer), _thinking(fields, names, origin))

    needs = (*used, *(name for part, name in names.items() if part == "thinking" and name not in used))
    return Format("template", _("data.prompt and data.answer of the recipe"), needs, _system(names), build)


def fields_in(text: str) -> list[str]:
    """The columns that a ``data.prompt`` or ``data.answer`` names, in order."""
    return [match[1] for match in _FIELD.finditer(text) if match[1]]


def _thinking(fields: Mapping[str, Any], names: Mapping[Any, str], origin: Origin) -> str | None:
    if "thinking" not in names:
        return None
    thinking = text_of(fields[names["thinking"]], names["thinking"], origin)
    return thinking if thinking.strip() else None


def _system(names: Mapping[Any, str]) -> tuple[str, ...]:
    return (names["system"],) if "system" in names else ()


# -- saying what was found -------------------------------------------------------------------------------------------


def _wrong_columns(row: Row, wanted: str) -> DataError:
    """The columns that were found, beside those that would do."""
    fields = row.fields
    usable = [
        _("conversations: [{from, value}, …]"),
        _("messages: [{role, content}, …]"),
        "instruction, (input,) output",
        "prompt, completion",
        "Question, Complex_CoT, Response",
        _("any two, named with data.columns"),
        _("text, label: with task=classify"),
    ]
    what = _("no known format has these columns: {names}", names=found_names(fields))
    if wanted != "auto":
        names = found_names(fields)
        what = _("data.format is {wanted}, but the row has the columns {names}", wanted=wanted, names=names)
    nested = [
        name for name, value in fields.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    texts = [name for name, value in fields.items() if isinstance(value, str)]
    hint = _("one of:\n           {usable}", usable="\n           ".join(usable))
    command = None
    if nested and len(fields) <= 3:
        hint = _("the rows seem to stand below {name!r}: write that list alone into a file; or ", name=nested[0]) + hint
    elif len(texts) >= 2:
        question, answer = _guess_columns(texts)
        command = (
            f"tunewright data check {row.origin.file} data.columns.question={question} data.columns.answer={answer}"
        )
    return DataError(what, where=str(row.origin), do=hint, command=command)


def _guess_columns(names: Sequence[str]) -> tuple[str, str]:
    """Two columns to suggest, never to use: by usual names, else the first two."""
    lower = {name.lower(): name for name in names}
    asked = next(
        (lower[n] for n in ("question", "query", "prompt", "input", "text", "instruction") if n in lower), names[0]
    )
    rest = [name for name in names if name != asked]
    told = next((lower[n] for n in ("answer", "response", "output", "completion", "target") if n in lower), rest[0])
    return asked, told if told != asked else rest[0]


def _reason(chosen: Format, rows: Sequence[Row], data: Data) -> str:
    read = {*chosen.needs, *chosen.takes}
    others = dict.fromkeys(str(name) for row in rows for name in row.fields if name not in read)
    reason = chosen.saw if data.format in ("auto", chosen.name) else f"data.format={data.format}"
    if data.format == chosen.name and data.format not in ("columns", "template"):
        reason = _("{saw} (chosen with data.format)", saw=chosen.saw)
    return reason + kept_beside(others)
