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
# Keywords of JSON Schema that hold schemas by names of a person's own, and those that hold values and no schema.
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
_VALUES = frozenset({"enum", "const", "default", "examples", "example"})


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
    root = "#/items" if forms.listed else "#"
    if len(tools) == 1:
        call = _one_of(tools[0], forms, root)
    else:
        call = {"anyOf": [_one_of(tool, forms, f"{root}/anyOf/{number}") for number, tool in enumerate(tools)]}
    schema = {"type": "array", "items": call, "minItems": 1, "maxItems": 1} if forms.listed else call
    return grammar.between(_mark(forms.open, template), schema, _mark(forms.close, template))


def _one_of(tool: Mapping[str, Any], forms: Forms, root: str) -> dict[str, Any]:
    """The schema of a call of ``tool``. root: the pointer to where it will stand."""
    parameters = tool["function"].get("parameters") or {"type": "object"}
    # Its own name would keep its pointers from being found where they lead now, and that of two may be the same.
    own = {key: value for key, value in parameters.items() if key != "$id"}
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool["function"]["name"]},
            forms.arguments: _moved(own, f"{root}/properties/{forms.arguments}"),
        },
        "required": ["name", forms.arguments],
        "additionalProperties": False,
    }


def _moved(schema: Any, root: str) -> Any:
    """A schema that will stand at ``root`` of a larger one: its pointers to its own parts lead there."""
    if isinstance(schema, list):
        return [_moved(one, root) for one in schema]
    if not isinstance(schema, Mapping) or isinstance(schema.get("$id"), str):  # with a name of its own it is its root
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            moved[key] = root + value[1:]
        elif key in _BY_NAME and isinstance(value, Mapping):
            moved[key] = {name: _moved(one, root) for name, one in value.items()}
        else:
            moved[key] = value if key in _VALUES else _moved(value, root)
    return moved


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


def in_a_string(text: str) -> bool:
    """Whether a JSON text ends within one of its strings."""
    try:
        json.loads(text.strip())
    except ValueError as error:
        return str(error).startswith("Unterminated string")
    except RecursionError:
        pass
    return False


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
