"""One streamed answer as its parts: the reasoning before it, what is said, and calls of tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.data.thinking import Marks
from tunewright.serve import calls
from tunewright.serve.calls import Forms
from tunewright.serve.streams import beginning

Kind = Literal["reasoning", "content", "call"]


@dataclass(frozen=True, slots=True)
class Part:
    """call: in OpenAI's form, for a part of that kind."""

    kind: Kind
    text: str = ""
    call: dict[str, Any] | None = None


class Parts:
    """Fed with text as it comes; gives parts of it, in order. Nothing is held back longer than it takes to tell what
    it is, except calls, which are whole or are text.

    marks: around reasoning, None where none is looked for.  forms: around calls, None where no tools were given.
    single: one call at most, the first.
    """

    def __init__(self, marks: Marks | None, forms: Forms | None, single: bool = False) -> None:
        self.marks, self.forms, self.single = marks, forms, single
        self.called = 0
        self._held = ""
        if marks is not None and marks.opened:
            self._state = "reasoning"
        else:
            self._state = "opening" if marks is not None and marks.open else "content"
        self._begun = False  # something of the present part was given

    def feed(self, text: str, last: bool = False) -> list[Part]:
        self._held += text
        return list(self._parts(last))

    def _parts(self, last: bool) -> Iterator[Part]:
        before = None
        while before != (self._state, self._held):  # until nothing more can be told
            before = (self._state, self._held)
            yield from getattr(self, f"_{self._state}")(last)

    def _opening(self, last: bool) -> Iterator[Part]:
        """Before anything was said: is it reasoning?"""
        assert self.marks is not None
        text = self._held.lstrip()
        if text.startswith(self.marks.open):
            self._held, self._state = text[len(self.marks.open) :], "reasoning"
        elif not self.marks.open.startswith(text) or last:
            self._state = "content"
        yield from ()

    def _reasoning(self, last: bool) -> Iterator[Part]:
        assert self.marks is not None
        if not self._begun:
            self._held = self._held.lstrip()
        thought, found, after = self._held.partition(self.marks.close)
        if found:
            yield from self._given("reasoning", thought.rstrip())
            self._held, self._state, self._begun = after, "answer", False
            return
        safe = len(self._held) if last else self._before(self.marks.close)
        yield from self._given("reasoning", self._held[:safe])
        self._held = self._held[safe:]

    def _answer(self, last: bool) -> Iterator[Part]:
        """Behind the reasoning or a call: blanks, which say nothing, then the answer."""
        self._held = self._held.lstrip()
        if self._held:
            self._state = "content"
        yield from ()

    def _content(self, last: bool) -> Iterator[Part]:
        forms = self.forms
        if forms is None:
            yield from self._said(len(self._held))
        elif not forms.open:
            yield from self._bare(last)
        else:
            before, found, after = self._held.partition(forms.open)
            if found:
                yield from self._given("content", before.rstrip())
                self._held, self._state = after, "call"
            else:
                yield from self._said(len(self._held) if last else self._before(forms.open))

    def _bare(self, last: bool) -> Iterator[Part]:
        """A template that writes calls as nothing but JSON: an answer that begins like it is held until its end."""
        if not self._begun and self._held.lstrip()[:1] in ("", "{", "["):
            found = calls.parse(self._held) if last else []
            yield from self._calls(found)
            if found:
                self._held = ""
        if self._begun or last or self._held.lstrip()[:1] not in ("", "{", "["):
            yield from self._said(len(self._held))

    def _call(self, last: bool) -> Iterator[Part]:
        """Inside a call."""
        assert self.forms is not None
        inside, found, after = self._ended(self.forms.close, last)
        if not found and not last:
            return
        parsed = calls.parse(inside)
        yield from self._calls(parsed)
        if not parsed:  # no call after all: what was written, as it was written
            yield from self._given("content", self.forms.open + inside + found)
        self._held, self._state = after, "answer" if parsed else "content"

    def _ended(self, close: str, last: bool) -> tuple[str, str, str]:
        """What is held, cut where the call ends: at the first mark that stands in none of its own strings, or at the
        first of all where nothing more comes."""
        pieces = self._held.split(close) if close else [self._held]
        for number in range(1, len(pieces)):
            inside = close.join(pieces[:number])
            if not calls.in_a_string(inside):
                return inside, close, close.join(pieces[number:])
        return self._held.partition(close) if close and last else (self._held, "", "")

    def _before(self, mark: str) -> int:
        """How much of what is held surely stands before ``mark``: blanks in front of it are no part of the text."""
        return len(self._held[: len(self._held) - beginning(self._held, mark)].rstrip())

    def _calls(self, found: list[dict[str, Any]]) -> Iterator[Part]:
        for call in found:
            if not (self.single and self.called):
                self.called += 1
                yield Part("call", call=call)

    def _said(self, length: int) -> Iterator[Part]:
        yield from self._given("content", self._held[:length])
        self._held = self._held[length:]

    def _given(self, kind: Kind, text: str) -> Iterator[Part]:
        if text:
            self._begun = True
            yield Part(kind, text)
