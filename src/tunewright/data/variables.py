"""``{{name}}`` in data is filled from ``data.variables``. What stays unfilled is found, never learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
    """Fills what every message says and thinks; ``answers=False`` leaves what the assistant says as it is. A value is
    never searched for placeholders again."""
    done = Filled([])
    for chat in chats:
        open_ = [m for m in chat.messages if answers or m.role != "assistant"]
        if not any("{{" in m.content or (m.thinking and "{{" in m.thinking) for m in open_):
            done.chats.append(chat)
            continue
        for name in dict.fromkeys(
            match[1] for m in open_ for match in PLACEHOLDER.finditer(f"{m.content}\n{m.thinking or ''}")
        ):
            if name not in variables:
                done.missing.setdefault(name, []).append(chat.origin)
        messages = tuple(_filled(m, variables) if answers or m.role != "assistant" else m for m in chat.messages)
        done.chats.append(replace(chat, messages=messages))
    return done


def _filled(message: Message, variables: Mapping[str, str]) -> Message:
    thinking = None if message.thinking is None else fill(message.thinking, variables)
    return replace(message, content=fill(message.content, variables), thinking=thinking)
