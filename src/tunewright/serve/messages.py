"""Clients' messages and tools as our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunewright.data.messages import ROLES
from tunewright.example import Message
from tunewright.infer.live import Served
from tunewright.serve.errors import ApiError, bad
from tunewright.serve.protocol import ChatMessage, Tool
from tunewright.text import _


def messages_of(asked: Sequence[ChatMessage], served: Served) -> list[Message]:
    """In their order, behind the system message that the model was trained with where the client sent none.

    Raises ApiError 400 for content that is no text.
    """
    found = [_message(message, number) for number, message in enumerate(asked)]
    if served.system and all(message.role != "system" for message in found):
        found.insert(0, Message("system", served.system))
    return found


def source_of(asked: Sequence[ChatMessage]) -> str:
    """What an encoder-decoder reads of a conversation: the last user's message, below a system message if there is
    one. Raises ApiError 400 where no user speaks."""
    messages = [_message(message, number) for number, message in enumerate(asked)]
    said = [message.content for message in messages if message.role == "user"]
    if not said:
        raise bad(_("There is no user message for this model to read."), "messages", "invalid_value")
    return "\n\n".join([*(message.content for message in messages if message.role == "system"), said[-1]])


def tools_of(asked: Sequence[Tool] | None, choice: Any) -> tuple[list[dict[str, Any]], bool]:
    """The tools that the model is shown, as templates read them, and whether it has to call one; none with
    ``tool_choice: none``. Raises ApiError 400 for a choice that is none of them."""
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": tool.function.model_dump(exclude_none=True)} for tool in asked or ()
    ]
    if choice in (None, "auto", "none") or not tools:
        if choice not in (None, "auto", "none"):
            raise bad(_("'tool_choice' is only allowed when 'tools' are specified."), "tool_choice", "invalid_value")
        return ([] if choice == "none" else tools), False
    if choice == "required":
        return tools, True
    named = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    wanted = named.get("name") if isinstance(named, Mapping) else None
    found = [tool for tool in tools if tool["function"]["name"] == wanted]
    if not found:
        raise bad(
            _("Invalid value for 'tool_choice': 'none', 'auto', 'required' or one of the tools is expected."),
            "tool_choice", "invalid_value",
        )  # fmt: skip
    return found, True


def _message(asked: ChatMessage, number: int) -> Message:
    where = f"messages[{number}]"
    if asked.content is None and asked.role != "assistant":
        raise _missing(f"{where}.content")
    if asked.role == "tool" and asked.tool_call_id is None:
        raise _missing(f"{where}.tool_call_id")
    calls = tuple(call.model_dump(exclude_none=True, exclude={"index"}) for call in asked.tool_calls or ())
    if asked.role == "assistant" and asked.content is None and not calls:
        raise _missing(f"{where}.content")
    if calls and asked.role != "assistant":
        name = f"{where}.tool_calls"
        raise bad(_("'{name}' is only for messages of the assistant.", name=name), name, "invalid_value")
    return Message(
        ROLES[asked.role], _text(asked.content, f"{where}.content"), thinking=asked.reasoning_content, name=asked.name,
        tool_calls=calls, tool_call_id=asked.tool_call_id,
    )  # fmt: skip


def _text(content: str | list[dict[str, Any]] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not content:
        raise bad(_("Invalid value for '{name}': a part is expected.", name=where), where, "invalid_value")
    return "".join(_part(part, f"{where}[{number}]") for number, part in enumerate(content))


def _part(part: Mapping[str, Any], where: str) -> str:
    kind, text = part.get("type"), part.get("text")
    if kind != "text":
        name = f"{where}.type"
        raise bad(
            _("Invalid content type {kind!r}: this model reads text alone.", kind=kind), name, "unsupported_value"
        )  # fmt: skip
    if not isinstance(text, str):
        raise _missing(f"{where}.text")
    if unknown := sorted(set(part) - {"type", "text", "prompt_cache_breakpoint"}):
        name = f"{where}.{unknown[0]}"
        raise bad(_("Unrecognized request argument supplied: {name}", name=name), name, "unknown_parameter")
    return text


def _missing(name: str) -> ApiError:
    return bad(_("Missing required parameter: '{name}'.", name=name), name, "missing_required_parameter")
