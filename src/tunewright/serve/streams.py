"""Tokens as text while they come: half characters and what may become a stop string are held back."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tunewright.data.codec import Codec
from tunewright.infer.live import End, Step

HALF = "\ufffd"  # what the bytes of half a character decode to
MOST_HELD = 8  # tokens; a character has four bytes, so what is half for longer is no character


@dataclass(frozen=True, slots=True)
class Piece:
    """text: to be shown next, may be empty.  steps: the tokens that it is made of.  tokens: generated so far, without
    the one that ended the answer.  end: set on the last piece.  places: of each step, characters of the answer before
    its own; a step that ends a character stands where that character begins."""

    text: str
    steps: tuple[Step, ...]
    tokens: int
    end: End | None = None
    places: tuple[int, ...] = ()


class Detokenizer:
    """Ids to text one by one; all pieces joined are the text of all ids.

    keep: special tokens that are a part of what was said (marks around reasoning and tool calls).

    places: characters of the text before each token's own, of the tokens whose text was given; who reads them takes
    them out.
    """

    def __init__(self, codec: Codec, keep: Sequence[str] = ()) -> None:
        self.codec, self.keep = codec, keep
        self.places: deque[int] = deque()
        self._unplaced: list[int] = []  # ids before each token that waits for the rest of its text
        self._given = 0  # characters
        self._ids: list[int] = []
        self._done = self._read = 0  # before `done` nothing is looked at again; up to `read` it was given
        self._known: dict[int, bool] = {}

    def add(self, token: int) -> str:
        """What ``token`` adds; empty while a character is not whole."""
        self._unplaced.append(len(self._ids))
        if self._is_structure(token):
            return ""
        self._ids.append(token)
        given = self.codec.decode(self._ids[self._done : self._read])
        whole = self.codec.decode(self._ids[self._done :])
        if whole.endswith(HALF) and len(self._ids) - self._read < MOST_HELD:
            return ""
        return self._give(given, whole)

    def rest(self) -> str:
        given, whole = self.codec.decode(self._ids[self._done : self._read]), self.codec.decode(self._ids[self._done :])
        return self._give(given, whole)

    def _give(self, given: str, whole: str) -> str:
        for before in self._unplaced:
            # What stands before a token reads as the whole text does, up to half a character.
            known = given if before == self._read else self.codec.decode(self._ids[self._done : before])
            self.places.append(self._given + max(0, _shared(known, whole) - len(given)))
        self._unplaced.clear()
        self._given += max(0, len(whole) - len(given))
        self._done, self._read = self._read, len(self._ids)
        if self._done > 4096:  # what lies behind is never looked at again
            del self._ids[: self._done]
            self._read -= self._done
            self._done = 0
        return whole[len(given) :]

    def _is_structure(self, token: int) -> bool:
        if token not in self._known:
            text = self.codec.decode([token])
            self._known[token] = bool(text) and text.strip() not in self.keep and not self.codec.decode([token], True)
        return self._known[token]


def _shared(left: str, right: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(left), len(right)))


class StopStrings:
    """Text up to the first of ``stops``. What may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.held = ""
        self.found = False

    def add(self, text: str) -> str:
        """What may be shown."""
        if not self.stops:
            return text
        self.held += text
        places = [place for place in (self.held.find(stop) for stop in self.stops) if place >= 0]
        if places:
            self.found = True
            shown, self.held = self.held[: min(places)], ""
            return shown
        keep = max(beginning(self.held, stop) for stop in self.stops)
        shown = self.held[: len(self.held) - keep]
        self.held = self.held[len(self.held) - keep :]
        return shown

    def rest(self) -> str:
        shown, self.held = self.held, ""
        return shown


def beginning(text: str, mark: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``mark``."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)


async def pieces(
    answer: AsyncIterator[Step], detokenizer: Detokenizer, stops: Sequence[str] = (),
    first: Callable[[], None] | None = None,
) -> AsyncIterator[Piece]:  # fmt: skip
    """The text of one answer as it comes; the last piece has ``end``. A stop string ends the answer, and its place at
    the engine. first: called when the first token has come."""
    stopping, waiting, places = StopStrings(stops), deque[Step](), detokenizer.places
    tokens = shown = 0
    async with aclosing(answer) as steps:  # type: ignore[type-var]  # engines write generators
        async for step in steps:
            if first is not None:
                first()
                first = None
            text = ""
            if step.end != "stop":
                tokens += 1
                waiting.append(step)
                text = detokenizer.add(step.token)
            if step.end:
                text += detokenizer.rest()
            visible = stopping.add(text)
            if step.end and not stopping.found:
                visible += stopping.rest()
            shown += len(visible)
            end: End | None = "stop" if stopping.found else step.end
            if visible or end:
                everything = end is not None and not stopping.found
                count = sum(everything or place < shown for place in places)  # they never go back
                made = tuple(waiting.popleft() for _step in range(count))
                yield Piece(visible, made, tokens, end, tuple(places.popleft() for _step in made))
            if end:
                return
