"""All that the rest of the house knows of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Rendered


@dataclass(frozen=True, slots=True)
class Question:
    """A row turned into something to ask. prompt: ids up to where the answer begins.  text: the last user turn, for
    people.  reference: the answer that the row holds."""

    prompt: Sequence[int]
    text: str
    reference: str


class Task(Protocol):
    """A new task is a new file with one of these."""

    name: str

    def renderer(self, template: ChatTemplate) -> Callable[[Chat], list[Rendered]]:
        """How an example becomes ids and learn mask."""
        ...

    def question(self, chat: Chat, template: ChatTemplate) -> Question | None:
        """How an example is asked, None if it has no learned answer to compare with."""
        ...

    def ask(self, text: str, template: ChatTemplate, system: str | None = None) -> list[int]:
        """Ids of a prompt that holds one user turn."""
        ...
