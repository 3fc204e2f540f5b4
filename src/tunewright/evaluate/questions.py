"""The bundled questions and prompts that show what a tuned model still can do of what its base could."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.infer.engine import Choices

PACKAGE = "tunewright.evaluate"
QUESTIONS, PROMPTS = "questions.txt", "prompts.txt"


@dataclass(frozen=True, slots=True)
class Question:
    """options: four answers, of which the first is right."""

    category: str
    language: str
    text: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its prompt and its answers as token ids."""

    question: Question
    choices: Choices


def read_lines(package: str, name: str) -> list[str]:
    """The lines of a bundled text that say something: neither empty nor a remark (``# …``)."""
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("# ")]


def parse_questions(text: str) -> list[Question]:
    """Lines of ``question | right | wrong | wrong | wrong`` below headings ``## category language``."""
    category = language = ""
    found = []
    for line in text.splitlines():
        if line.startswith("## "):
            category, _space, language = line[3:].strip().rpartition(" ")
        elif line.strip() and not line.startswith("#"):
            asked, *options = (part.strip() for part in line.split(" | "))
            found.append(Question(category, language, asked, tuple(options)))
    return found


@cache
def questions() -> tuple[Question, ...]:
    """The bundled questions."""
    return tuple(parse_questions("\n".join(read_lines(PACKAGE, QUESTIONS))))


@cache
def prompts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The bundled prompts: those of the report, and those that watch a training."""
    lines = read_lines(PACKAGE, PROMPTS)
    border = lines.index("## watched")
    return tuple(lines[1:border]), tuple(lines[border + 1 :])


def ask(template: ChatTemplate, system: str | None = None) -> list[Asked]:
    """The bundled questions as the base's template writes them."""
    opening = (Message("system", system),) if system else ()
    chats = [
        Chat((*opening, Message("user", one.text), Message("assistant", option, learn=True)), Origin(QUESTIONS, 0, 0))
        for one in questions()
        for option in one.options
    ]
    rows = iter(template.render_many(chats))
    return [Asked(one, _choices([next(rows)[-1] for _option in one.options], template)) for one in questions()]


def _choices(rows: Sequence[Rendered], template: ChatTemplate) -> Choices:
    """Renderings of one question with its options: what they share, and each option without the end of the turn."""
    start = int(rows[0].learn.argmax())
    return Choices(tuple(rows[0].ids[:start].tolist()), tuple(_answer(row, template) for row in rows))


def _answer(row: Rendered, template: ChatTemplate) -> tuple[int, ...]:
    ids = row.ids[row.learn].tolist()
    while len(ids) > 1 and ids[-1] in template.stop_ids:
        ids.pop()
    return tuple(ids)
