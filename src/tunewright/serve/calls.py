"""Tool calls as a base's own template writes them: whether it knows tools at all is found out by asking it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunewright.data.template import ChatTemplate
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Message
from tunewright.infer import grammar

_NAME, _KEY = "qzxw_lookup", "qzxw_key"  # in no template
_USER = Message("user", "A")


@dataclass(frozen=True, slots=True)
class Forms:
    """open, close: what stands around the JSON of a call. Both empty: an answer that is nothing but JSON is one.
    arguments: how the JSON calls them.  listed: calls are a list, also where there is one."""

    open: str = ""
    close: str = ""
    arguments: str = "arguments"
    listed: bool = False


@lru_cache(maxsize=64)
def forms_of(template: ChatTemplate) -> Forms | None:
    """How the template writes calls; None if it does not know tools, or writes calls in a form that is no JSON."""
    tool = {"type": "function", "function": {"name": _NAME, "description": "B", "parameters": _parameters()}}
    call = {"id": "call00001", "type": "function", "function": {"name": _NAME, "arguments": {_KEY: "C"}}}
    try:
        if _NAME not in template.text([_USER], [tool], prompt=True):
            return None
        asked = template.text([_USER], prompt=True)
        whole = template.text([_USER, Message("assistant", "", tool_calls=(call,))])
    except (DataError, BaseModelError):
        return None
    shared = 0
    while shared < min(len(asked), len(whole)) and asked[shared] == whole[shared]:
        shared += 1
    said = whole[shared:]
    return _around(said, template)


def _around(said: str, template: ChatTemplate) -> Forms | None:
    name = said.find(_NAME)
    for start in range(max(0, name)):
        if said[start] not in "[{":
            continue
        try:
            found, end = json.JSONDecoder().raw_decode(said, start)
        except ValueError:
            continue
        if not calls_in(found):
            continue
        after = said[end:]
        ends = [after.find(template.decode([stop])) for stop in template.stop_ids]
        places = [place for place in ends if place >= 0]
        close = (after[: min(places)] if places else after).strip()
        listed = isinstance(found, list)
        one = found[0] if listed else found
        return Forms(said[:start].strip(), close, "parameters" if "parameters" in one else "arguments", listed)
    return None


def forced(forms: Forms, tools: Sequence[Mapping[str, Any]], template: ChatTemplate) -> str:
    """The grammar of an answer that is one call of one of ``tools``. Raises DataError for parameters that are no
    schema."""
    ways = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                forms.arguments: tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", forms.arguments],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    call: dict[str, Any] = ways[0] if len(ways) == 1 else {"anyOf": ways}
    schema = {"type": "array", "items": call, "minItems": 1, "maxItems": 1} if forms.listed else call
    return grammar.between(_mark(forms.open, template), schema, _mark(forms.close, template))


def _mark(text: str, template: ChatTemplate) -> str | int:
    return template.text_ids(text)[-1] if text in template.special_tokens else text


def _parameters() -> dict[str, Any]:
    return {"type": "object", "properties": {_KEY: {"type": "string"}}, "required": [_KEY]}


def parse(text: str) -> list[dict[str, Any]]:
    """The calls that a text holds, in OpenAI's form; none if it is no call."""
    try:
        return calls_in(json.loads(text.strip()))
    except (ValueError, RecursionError):
        return []


def calls_in(found: Any) -> list[dict[str, Any]]:
    """The calls of a JSON value: one object or a list of them, each with a name and arguments (or parameters)."""
    listed: Sequence[Any] = found if isinstance(found, list) else [found]
    calls = [_call(one) for one in listed]
    whole = [call for call in calls if call is not None]
    return whole if whole and len(whole) == len(calls) else []


def _call(found: Any) -> dict[str, Any] | None:
    if isinstance(found, Mapping) and isinstance(found.get("function"), Mapping):
        found = found["function"]
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", found.get("parameters"))
    if arguments is None or not isinstance(arguments, Mapping | str):
        return None
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": found["name"], "arguments": text}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
