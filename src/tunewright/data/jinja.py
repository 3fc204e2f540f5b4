"""Runs a base's chat template in a sandbox, in the environment that chat templates are written for.

Templates come with downloaded bases, so they are foreign code: they run in Jinja's immutable sandbox and see only
plain JSON values. ``{% generation %}`` blocks are found by two marker characters that Unicode reserves for use
inside programs and that no text may contain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Unicode's noncharacters U+FDD0..U+FDEF are never text, so they can mark places in it.
MARK_OPEN = "\ufdd0"
MARK_CLOSE = "\ufdd1"

Span = tuple[int, int]


class TemplateRefusal(Exception):
    """The template itself said no, or failed on these messages."""


class _Generation(Extension):
    """The block tag that says: this text is written by the model."""

    tags = {"generation"}  # noqa: RUF012 - the attribute that Jinja reads

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return f"{MARK_OPEN}{caller()}{MARK_CLOSE}"


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Jinja's own filter writes < as \\u003c, which no model has seen in its training.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


@dataclass(frozen=True, slots=True)
class Rendering:
    """text: what the template wrote.  marks: spans of characters that stood in ``{% generation %}`` blocks."""

    text: str
    marks: tuple[Span, ...]


class Program:
    """One compiled template. ``source`` is its text; ``names`` are values like ``bos_token`` that it may use."""

    def __init__(self, source: str, names: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        self.source = source
        self.names = dict(names)
        self._template = environment.from_string(source)  # raises jinja2.TemplateSyntaxError
        self.has_marks = re.search(r"\{%-?\+?\s*generation\s*-?\+?%\}", source) is not None
        self.reads_clock = "strftime_now" in source

    def run(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), prompt: bool = False
    ) -> Rendering:
        """The conversation as the template writes it; ``prompt`` adds what stands before the model's next answer.

        Raises TemplateRefusal with the template's own words.
        """
        try:
            text = self._template.render(
                messages=list(messages),
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=prompt,
                **self.names,
            )
        except Exception as error:  # a template is foreign code and may fail in any way
            raise TemplateRefusal(str(error) or type(error).__name__) from None
        return _without_marks(text) if MARK_OPEN in text else Rendering(text, ())


def _without_marks(text: str) -> Rendering:
    pieces: list[str] = []
    marks: list[Span] = []
    length = opened = 0
    for index, piece in enumerate(text.split(MARK_OPEN)):
        inside, closed, after = piece.partition(MARK_CLOSE) if index else (piece, "", "")
        pieces.append(inside)
        opened, length = length, length + len(inside)
        if closed:
            marks.append((opened, length))
            pieces.append(after)
            length += len(after)
    return Rendering("".join(pieces), tuple(marks))
