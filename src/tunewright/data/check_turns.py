"""What is odd about the order of turns and about tool calls, as findings D208 and D215."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tunewright.data.findings import Spots, finding, named
from tunewright.example import Chat, Finding, Message, Origin
from tunewright.text import _

_WRITTEN = re.compile(r"<(tool_call|functioncall|function_call)>\s*(.*?)\s*(?:</\1>|\Z)", re.DOTALL)
_NAMED = re.compile(r"<function=([\w.-]+)>\s*(\{.*?)\s*(?:</function>|\Z)", re.DOTALL)  # its arguments as JSON
_NAMES_A_CALL = re.compile(r'"(?:name|function)"[\s\S]{0,300}?"(?:arguments|parameters)"')


def check_turns(chats: Sequence[Chat]) -> Iterator[Finding]:
    oddities: Counter[str] = Counter()
    rows: list[Origin] = []
    calls = Spots()
    for chat in chats:
        if odd := _oddity([message.role for message in chat.messages]):
            oddities[odd] += 1
            rows.append(chat.origin)
        if why := _broken_call(chat):
            calls.add(chat.origin, why)
    if rows:
        yield finding("D208", rows, examples=named(oddities))
    yield from calls.finding("D215")


def _oddity(roles: Sequence[str]) -> str | None:
    if roles == ["user", "assistant"]:
        return None
    spoken = [role for role in roles if role != "system"]
    if "system" in roles[1:]:
        return _("a system message after the first message")
    if spoken and spoken[0] == "assistant":
        return _("opens with the assistant")
    if spoken and spoken[0] == "tool":
        return _("opens with a tool")
    if any(one == other == "user" for one, other in pairwise(spoken)):
        return _("the user speaks twice in a row")
    if any(one == other == "assistant" for one, other in pairwise(spoken)):
        return _("the assistant speaks twice in a row")
    if any(one == "user" and other == "tool" for one, other in pairwise(spoken)):
        return _("a tool answers the user")
    if spoken and spoken[-1] == "user":
        return _("ends with the user")
    return None


# -- tool calls ------------------------------------------------------------------------------------------------------


def _broken_call(chat: Chat) -> str | None:
    """Why a call in this conversation could not be carried out, or None."""
    known = {_name(tool) for tool in chat.tools} - {None}
    for number, message in enumerate(chat.messages):
        if message.role != "assistant":
            continue
        for call in message.tool_calls:
            if why := _wrong(call, known):
                return why
        if not message.tool_calls and (why := _wrong_text(message, known)):
            return why
        answered = number + 1 < len(chat.messages) and chat.messages[number + 1].role == "tool"
        if answered and not message.tool_calls and not any(sign in message.content for sign in "{<["):
            return _("a tool answers, but no call stands before it")
    return None


def _wrong(call: Mapping[str, Any], known: set[str | None]) -> str | None:
    inner = call.get("function", call)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"]:
        return _("a call without the name of a function")
    arguments = inner.get("arguments", inner.get("parameters"))
    if isinstance(arguments, str) and (why := _not_an_object(arguments)):
        return _("the arguments of {name} are {why}", name=inner["name"], why=why)
    if arguments is not None and not isinstance(arguments, str | Mapping):
        return _("the arguments of {name} are no object", name=inner["name"])
    if known and inner["name"] not in known:
        return _("{name} is called, but is not among the tools", name=inner["name"])
    return None


def _wrong_text(message: Message, known: set[str | None]) -> str | None:
    """A call that is written into the text, in tags or as the whole answer."""
    text = message.content.strip().removeprefix("[TOOL_CALLS]").lstrip()  # Mistral's mark
    written = [match[2] for match in _WRITTEN.finditer(text)]
    in_tags = bool(written)
    if not written and text[:1] in ("{", "[") and _NAMES_A_CALL.search(text[:2000]):
        written = [text]
    for one in written:
        if in_tags and one.startswith("<function="):  # told below
            continue
        try:
            calls = json.loads(one)
        except (ValueError, RecursionError) as error:
            return _("a call is no JSON: {why}", why=str(error).partition(":")[0])
        if why := _wrong_calls(calls, known, in_tags):
            return why
    for match in _NAMED.finditer(text):
        if why := _wrong({"name": match[1], "arguments": match[2]}, known):
            return why
    return None


def _wrong_calls(calls: Any, known: set[str | None], in_tags: bool) -> str | None:
    """The same of calls that are JSON. Outside of tags an object may be something else than a call."""
    for call in calls if isinstance(calls, list) else [calls]:
        if not isinstance(call, Mapping):
            if in_tags:
                return _("a call is no object")
        elif (in_tags or known) and (why := _wrong(call, known)):
            return why
    return None


def _not_an_object(text: str) -> str | None:
    if not text.strip():
        return _("empty")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _("no JSON: {why}", why=str(error).partition(":")[0])
    return None if isinstance(value, dict) else _("no object")


def _name(tool: Mapping[str, Any]) -> str | None:
    inner = tool.get("function", tool)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None
