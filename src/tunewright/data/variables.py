"""``{{name}}`` in data is filled from ``data.variables``. What stays unfilled is found, never learned."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunewright.example import Chat, Message, Origin

PLACEHOLDER = re.compile(r"\{\{\s*([^\W\d][\w.-]*)\s*\}\}")


@dataclass
class Filled:
    """chats: with all known placeholders filled.  missing: name of each unknown one to the rows that hold it."""

    chats: list[Chat]
    missing: dict[str, list[Origin]] = field(default_factory=dict)


def fill(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with its placeholders filled; one that has no value stays as it is."""
    return PLACEHOLDER.sub(lambda match: variables.get(match[1], match[0]), text)


def fill_all(chats: Sequence[Chat], variables: Mapping[str, str], answers: bool = True) -> Filled:
    """Fills what every message says, thinks and calls; ``answers=False`` leaves what the assistant says as it is. A
    value is never searched for placeholders again."""
    done = Filled([])
    for chat in chats:
        open_ = [m for m in chat.messages if answers or m.role != "assistant"]
        texts = [text for m in open_ for text in (m.content, m.thinking or "", calls_text(m)) if "{{" in text]
        if not texts:
            done.chats.append(chat)
            continue
        for name in dict.fromkeys(match[1] for text in texts for match in PLACEHOLDER.finditer(text)):
            if name not in variables:
                done.missing.setdefault(name, []).append(chat.origin)
        messages = tuple(_filled(m, variables) if answers or m.role != "assistant" else m for m in chat.messages)
        done.chats.append(replace(chat, messages=messages))
    return done


def calls_text(message: Message) -> str:
    """The tool calls of a message as text; they are learned like what it says."""
    return json.dumps(message.tool_calls, ensure_ascii=False, default=str) if message.tool_calls else ""


def _filled(message: Message, variables: Mapping[str, str]) -> Message:
    thinking = None if message.thinking is None else fill(message.thinking, variables)
    calls = tuple(_filled_call(call, variables) for call in message.tool_calls)
    return replace(message, content=fill(message.content, variables), thinking=thinking, tool_calls=calls)


def _filled_call(value: Any, variables: Mapping[str, str], is_json: bool = False) -> Any:
    """``is_json``: the text is JSON, as arguments usually are, so that a value in it is written as JSON writes it."""
    if isinstance(value, str):
        if is_json:
            variables = {name: json.dumps(text, ensure_ascii=False)[1:-1] for name, text in variables.items()}
        return fill(value, variables)
    if isinstance(value, list):
        return [_filled_call(one, variables) for one in value]
    if isinstance(value, Mapping):
        return {name: _filled_call(one, variables, name in ("arguments", "parameters")) for name, one in value.items()}
    return value
