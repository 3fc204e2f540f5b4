"""A chain of thought and the answer behind it: told apart in what a model writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from tunewright.example import Chat, Message


class Said(NamedTuple):
    """thinking: None where there was none.  finished: the answer was begun; thinking that never ends has none."""

    thinking: str | None
    answer: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Marks:
    """What a template writes around the reasoning. opened: its generation prompt ends inside the reasoning already, so
    that what the model writes begins with a thought and no mark."""

    open: str = "<think>"
    close: str = "</think>"
    opened: bool = False

    def before(self, thinking: str) -> str:
        """The reasoning as it stands before an answer, for templates that have no place for it."""
        return f"{self.open}\n{thinking}\n{self.close}\n\n"


THINK = Marks()


def split_thinking(text: str, marks: Marks = THINK) -> Said:
    """What a model wrote, as its chain of thought and its answer.

        "<think>\\nSix and one.\\n</think>\\n\\nSeven."  ->  ("Six and one.", "Seven.", finished)
        "<think>\\nSix and one, or"                    ->  ("Six and one, or", "", not finished)
        "Seven."                                      ->  (None, "Seven.", finished)

    Only reasoning at the beginning counts: an answer may speak of the marks. A closing mark without an opening one
    ends reasoning that the prompt opened. An empty chain of thought is none.
    """
    thoughts: list[str] = []
    rest, inside = text.strip(), marks.opened
    while True:
        if marks.open and rest.startswith(marks.open):
            rest, inside = rest[len(marks.open) :].lstrip(), True
            continue
        thought, found, after = rest.partition(marks.close)
        if not inside and (thoughts or not found or (marks.open and marks.open in thought)):
            return Said("\n".join(thoughts) or None, rest, True)
        thoughts += [thought.strip()] if thought.strip() else []
        if not found:
            return Said("\n".join(thoughts) or None, "", False)
        rest, inside = after.strip(), False
        if not (marks.open and rest.startswith(marks.open)):
            return Said("\n".join(thoughts) or None, rest, True)


def apart(message: Message, marks: Marks = THINK) -> Message:
    """An assistant's message whose text opens with a whole chain of thought, with that as its ``thinking``; an empty
    ``thinking`` is none."""
    if message.thinking is not None:
        return message if message.thinking.strip() else replace(message, thinking=None)
    for known in dict.fromkeys((marks.open, THINK.open)):
        close = marks.close if known == marks.open else THINK.close
        typed = Marks(known, close)
        if not is_typed(message, typed):
            continue
        said = split_thinking(message.content, typed)
        if said.finished and said.thinking:
            return replace(message, content=said.answer, thinking=said.thinking)
    return message


def is_typed(message: Message, marks: Marks = THINK) -> bool:
    """Does the reasoning stand in the answer's text, as it does in conversations that models wrote?"""
    typed = message.role == "assistant" and message.thinking is None
    return typed and bool(marks.open) and message.content.lstrip().startswith(marks.open)


def thinks(chat: Chat) -> bool:
    """Does any of the answers have reasoning, in its own field or typed before the text?"""
    return any(apart(message).thinking for message in chat.messages if message.role == "assistant")


def stretches(pieces: Iterable[str], marks: Marks = THINK) -> Iterator[tuple[str, bool]]:
    """A streamed answer in pieces, each with whether it is reasoning (its marks included; the opening one is added
    where the prompt has it). Nothing is held back longer than a mark takes to be told from other text."""
    held, inside, begun, over = "", marks.opened, False, False
    if inside:
        yield marks.open + "\n", True
    for piece in pieces:
        held += piece
        if not begun:
            held = held.lstrip()
            if not inside and marks.open.startswith(held[: len(marks.open)]) and len(held) < len(marks.open):
                continue  # it may still become the opening mark
            inside, begun = inside or (bool(marks.open) and held.startswith(marks.open)), True
        if not inside or over:
            yield held, False
            held = ""
            continue
        thought, found, after = held.partition(marks.close)
        if found:
            yield thought + found, True
            held, over = after, True
            if held:
                yield held, False
                held = ""
            continue
        safe = len(held) - _started(held, marks.close)
        if safe:
            yield held[:safe], True
            held = held[safe:]
    if held:
        yield held, inside and not over


def _started(text: str, mark: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``mark``."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)
