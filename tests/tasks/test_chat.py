"""What the task ``chat`` makes of a conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Message, Origin
from tunewright.tasks import TASKS
from tunewright.tasks.chat import ask

ORIGIN = Origin("x.jsonl", 1, 1)
TURNS = (
    Message("user", "one"), Message("assistant", "first", learn=True), Message("user", "two"),
    Message("assistant", "second", learn=True),
)  # fmt: skip


@pytest.fixture
def template(tiny_base: Path) -> ChatTemplate:
    return ChatTemplate.from_folder(tiny_base)


def test_a_question_is_the_conversation_up_to_its_last_learned_answer(template: ChatTemplate) -> None:
    question = TASKS["chat"].question(Chat(TURNS, ORIGIN), template)
    assert question is not None
    assert (question.text, question.reference) == ("two", "second")
    assert list(question.prompt) == template.prompt_ids(TURNS[:3])


def test_what_follows_the_last_learned_answer_is_not_asked(template: ChatTemplate) -> None:
    more = (*TURNS, Message("user", "three"), Message("assistant", "third", learn=False))
    question = TASKS["chat"].question(Chat(more, ORIGIN), template)
    assert question is not None and question.reference == "second"


def test_a_conversation_without_learned_answer_has_no_question(template: ChatTemplate) -> None:
    silent = Chat((Message("user", "one"), Message("assistant", "first")), ORIGIN)
    assert TASKS["chat"].question(silent, template) is None


def test_the_question_is_what_precedes_the_answer_in_training(template: ChatTemplate) -> None:
    chat = Chat(TURNS[:2], ORIGIN)
    question = TASKS["chat"].question(chat, template)
    [row] = template.render(chat)
    assert question is not None
    assert row.ids[: len(question.prompt)].tolist() == list(question.prompt)
    assert not row.learn[: len(question.prompt)].any() and row.learn[len(question.prompt)]


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_asking_one_thing_is_a_conversation_of_one_turn(system: str | None, template: ChatTemplate) -> None:
    opening = [Message("system", system)] if system else []
    assert ask("one", template, system) == template.prompt_ids([*opening, Message("user", "one")])


def test_every_task_is_called_by_its_name() -> None:
    assert all(task.name == name for name, task in TASKS.items())
