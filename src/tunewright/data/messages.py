"""One row's list of messages, in ShareGPT's form (from/value) or OpenAI's (role/content), as typed messages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunewright.errors import DataError
from tunewright.example import Message, Origin, Role
from tunewright.text import _

# ShareGPT's names for the four roles, and the names other exporters write there.
SPEAKERS: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_OPENAI = {"role", "content", "name", "weight", "tool_calls", "tool_call_id", "reasoning_content", "thinking"}
_SHAREGPT = {"from", "value", "weight"}


def style_of(value: Any) -> str:
    """``sharegpt``, ``messages``, ``both`` or ``neither``, by the fields of the first message."""
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, Mapping):
        return "neither"
    shared, opened = first.get("from") is not None, first.get("role") is not None
    return "both" if shared and opened else "sharegpt" if shared else "messages" if opened else "neither"


def parse_messages(value: Any, column: str, origin: Origin, ignored: Counter[str]) -> list[Message]:
    """The messages of one row. Fields that mean nothing here are counted in ``ignored``. Raises DataError."""
    if not isinstance(value, list):
        raise DataError(
            _("{column!r} holds {kind}, not a list of messages", column=column, kind=kind_of(value)),
            where=str(origin),
            do=_("write it as {example}", example='[{"role": "user", "content": "…"}, {"role": "assistant", …}]'),
        )
    return [_message(entry, number, column, origin, ignored) for number, entry in enumerate(value, start=1)]


def _message(entry: Any, number: int, column: str, origin: Origin, ignored: Counter[str]) -> Message:
    def wrong(what: str, do: str) -> DataError:
        return DataError(what, where=_("{origin}, message {number}", origin=str(origin), number=number), do=do)

    if not isinstance(entry, Mapping):
        raise wrong(_("the message is {kind}, not an object", kind=kind_of(entry)), _("give it role and content"))
    shared = entry.get("from") is not None
    speaker, text, roles = ("from", "value", SPEAKERS) if shared else ("role", "content", ROLES)
    if entry.get("role") is not None and shared:
        raise wrong(_("the message has both 'from' and 'role'"), _("keep one of the two forms"))
    said = entry.get(speaker)
    if said is None:
        raise wrong(
            _(
                "the message says neither 'role' nor 'from'; it has {names}",
                names=", ".join(map(repr, entry)) or "nothing",
            ),
            _("give it role and content, or from and value"),
        )
    role = roles.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise wrong(_("{said!r} is no role", said=said), _("known are {names}", names=", ".join(roles)))
    for name in entry:
        if name not in (_SHAREGPT if shared else _OPENAI) and entry[name] is not None:
            ignored[str(name).encode("utf-8", "backslashreplace").decode()] += 1  # half a character can be printed
    calls = () if shared else _calls(entry.get("tool_calls"), origin)
    if entry.get(text) is None and text not in entry and not calls:
        raise wrong(_("the message has no {name!r}", name=text), _("write {name}, even if it is empty", name=text))
    content = _content(entry.get(text), f"{column}[{number}].{text}", origin)
    if shared and said.lower() == "function_call":
        content, calls = _written_call(content)
    thinking = None if shared else entry.get("reasoning_content") or entry.get("thinking")
    return Message(
        role=role,
        content=content,
        learn=_learn(entry.get("weight"), role, wrong),
        thinking=None if thinking is None else text_of(thinking, f"{column}[{number}].reasoning_content", origin),
        name=None if shared or entry.get("name") is None else text_of(entry["name"], "name", origin),
        tool_calls=calls,
        tool_call_id=None
        if shared or entry.get("tool_call_id") is None
        else text_of(entry["tool_call_id"], "tool_call_id", origin),
    )


def _learn(weight: Any, role: Role, wrong: Any) -> bool:
    if weight is None:
        return role == "assistant"
    if isinstance(weight, bool) or weight not in (0, 1):
        raise wrong(_("weight is {weight!r}", weight=weight), _("a message's weight is 0 (context) or 1 (learned)"))
    if weight == 1 and role != "assistant":
        raise wrong(
            _("a message of {role} has weight 1", role=role),
            _("only what the assistant says is learned; remove weight"),
        )
    return bool(weight)


def _content(value: Any, name: str, origin: Origin) -> str:
    """Text, or OpenAI's list of parts if all of them are text."""
    if not isinstance(value, list):
        return text_of(value, name, origin)
    pieces: list[str] = []
    for part in value:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
            raise DataError(
                _("{name} holds a part of type {kind!r}", name=name, kind=kind),
                where=str(origin),
                do=_("only parts of type 'text' can be learned"),
            )
        pieces.append(text_of(part.get("text"), name, origin))
    return "".join(pieces)


def _calls(value: Any, origin: Origin) -> tuple[Mapping[str, Any], ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(isinstance(call, Mapping) for call in value):
        raise DataError(_("tool_calls is no list of objects"), where=str(origin), do=_("write it as OpenAI's API does"))
    _check_unicode(json.dumps(value, ensure_ascii=False, default=str), "tool_calls", origin)
    return tuple(value)


def _written_call(content: str) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """ShareGPT writes a tool call as JSON text: ``{"name": …, "arguments": …}``. Anything else stays text."""
    try:
        call = json.loads(content)
    except (ValueError, RecursionError):
        return content, ()
    calls = call if isinstance(call, list) else [call]
    if not calls or not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in calls):
        return content, ()
    return "", tuple({"type": "function", "function": one} for one in calls)


def tools_of(value: Any, origin: Origin) -> tuple[Mapping[str, Any], ...]:
    """The tools a conversation may use: a list, or that list as JSON text."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(
                _("tools is no JSON: {why}", why=str(error).partition(":")[0]), where=str(origin),
                do=_("write it as OpenAI's API does, or leave it empty"),
            ) from None  # fmt: skip
    if not value or (isinstance(value, str) and not value.strip()):
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise DataError(_("tools is no list of objects"), where=str(origin), do=_("write it as OpenAI's API does"))
    _check_unicode(json.dumps(value, ensure_ascii=False, default=str), "tools", origin)
    return tuple(value)


def history_of(value: Any, origin: Origin) -> list[Message]:
    """Earlier turns of an instruction row: a list of [question, answer] pairs."""
    if not value:
        return []
    if not isinstance(value, list) or not all(
        isinstance(p, Sequence) and not isinstance(p, str) and len(p) == 2 for p in value
    ):
        raise DataError(
            _("history is no list of [question, answer] pairs"), where=str(origin), do=_("rename the column")
        )
    messages: list[Message] = []
    for question, answer in value:
        messages += answered(text_of(question, "history", origin), text_of(answer, "history", origin))
    return messages


def answered(question: str, answer: str, thinking: str | None = None) -> list[Message]:
    return [Message("user", question), Message("assistant", answer, learn=True, thinking=thinking)]


def text_of(value: Any, name: str, origin: Origin) -> str:
    """A cell as text. Numbers are written as JSON writes them; nothing (null, or the NaN that tables write for it) is
    the empty text. Raises DataError."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, name, origin)
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise DataError(
        _("{name!r} holds {kind}, not text", name=name, kind=kind_of(value)),
        where=str(origin),
        do=_("write it as text, or name another column with data.columns"),
    )


def _check_unicode(text: str, name: str, origin: Origin) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            _("{name!r} holds half a character (U+{code})", name=name, code=f"{ord(text[error.start]):04X}"),
            where=str(origin),
            do=_("write the file again from its source: an emoji was cut in two"),
        ) from None


def kind_of(value: Any) -> str:
    """For people: what a JSON value is."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
