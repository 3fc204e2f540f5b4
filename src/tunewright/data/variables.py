"""``{{name}}`` in data is filled from ``data.variables``. What stays unfilled is found, never learned."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunewright.example import Chat, Message, Origin

PLACEHOLDER = re.compile(r"\{\{\s*([^\W\d][\w.-]*)\s*\}\}")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_IN_FORMULA = re.compile(r"(?:[\\^}]|\\[A-Za-z]+)$")
_ABOUT_TEMPLATES = re.compile(
    r"\b(?:jinja2?|handlebars|vue(?:\.?js)?|angularjs|django|ansible|latex|f-strings?|"
    r"(?:mustache|liquid|helm) templates?|template (?:engine|language|syntax)s?)\b|模板(?:引擎|语言|语法)",
    re.IGNORECASE,
)


@dataclass
class Filled:
    """chats: with all known placeholders filled.  missing: name of each unknown one to the rows that hold it.  shown:
    the same of those that seem to be shown, not left: in code, in formulas, in texts about templates."""

    chats: list[Chat]
    missing: dict[str, list[Origin]] = field(default_factory=dict)
    shown: dict[str, list[Origin]] = field(default_factory=dict)


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
        left: dict[str, bool] = {}
        for text in texts:
            for name, is_left in _names(text).items():
                left[name] = left.get(name, False) or is_left
        for name, is_left in left.items():
            if name not in variables:
                (done.missing if is_left else done.shown).setdefault(name, []).append(chat.origin)
        messages = tuple(_filled(m, variables) if answers or m.role != "assistant" else m for m in chat.messages)
        done.chats.append(replace(chat, messages=messages))
    return done


def _names(text: str) -> dict[str, bool]:
    """The placeholders of a text, and whether they were left in it; else they are shown."""
    code = [match.span() for match in _CODE.finditer(text)]
    about = _ABOUT_TEMPLATES.search(text) is not None
    names: dict[str, bool] = {}
    for match in PLACEHOLDER.finditer(text):
        begin = match.start()
        shown = (
            about
            or (len(match[1]) == 1 and match[1].isascii())
            or _IN_FORMULA.search(text, max(0, begin - 24), begin) is not None
            or any(start <= begin < end for start, end in code)
        )
        names[match[1]] = names.get(match[1], False) or not shown
    return names


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
