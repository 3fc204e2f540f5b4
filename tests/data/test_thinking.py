"""Reasoning and answer are told apart in what a model writes, whole or piece by piece."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.thinking import Marks, Said, apart, split_thinking, stretches, thinks
from tunewright.example import Chat, Message, Origin

OPENED = Marks(opened=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Seven.", Said(None, "Seven.", True)),
        ("<think>\nSix and one.\n</think>\n\nSeven.", Said("Six and one.", "Seven.", True)),
        ("  <think>a</think>b", Said("a", "b", True)),
        ("<think>\nSix and one, or", Said("Six and one, or", "", False)),
        ("<think>", Said(None, "", False)),
        ("<think>\n\n</think>\n\nSeven.", Said(None, "Seven.", True)),
        ("<think>a</think>", Said("a", "", True)),
        ("<think>a</think>\n<think>b</think>\nc", Said("a\nb", "c", True)),
        ("<think><think>a</think>b", Said("a", "b", True)),
        ("<think>a</think>The mark </think> ends it.", Said("a", "The mark </think> ends it.", True)),
        ("The mark <think> begins it.", Said(None, "The mark <think> begins it.", True)),
        ("The marks <think> and </think>.", Said(None, "The marks <think> and </think>.", True)),
        ("a thought</think>b", Said("a thought", "b", True)),
        ("", Said(None, "", True)),
    ],
)
def test_reasoning_at_the_beginning_is_no_answer(text: str, said: Said) -> None:
    assert split_thinking(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Six.\n</think>\n\nSeven.", Said("Six.", "Seven.", True)),
        ("Six, or", Said("Six, or", "", False)),
        ("<think>Six.</think>Seven.", Said("Six.", "Seven.", True)),
        ("\n</think>\n\nSeven.", Said(None, "Seven.", True)),
        ("", Said(None, "", False)),
    ],
)
def test_reasoning_that_the_prompt_opened_needs_no_mark(text: str, said: Said) -> None:
    assert split_thinking(text, OPENED) == said


def test_other_marks_are_known() -> None:
    assert split_thinking("[THINK]a[/THINK]b", Marks("[THINK]", "[/THINK]")) == Said("a", "b", True)


@given(st.text(), st.booleans())
def test_any_text_is_told_apart_without_loss(text: str, opened: bool) -> None:
    said = split_thinking(text, Marks(opened=opened))
    assert said.answer in text and (said.finished or said.answer == "")


@given(st.text(alphabet="ab \n"), st.text(alphabet="ab \n</>"), st.booleans(), st.data())
def test_a_stream_is_told_apart_as_the_whole_text_is(
    thought: str, answer: str, opened: bool, data: st.DataObject
) -> None:
    whole = ("" if opened else "<think>\n") + thought + "\n</think>\n\n" + answer
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    shown = list(stretches(pieces, Marks(opened=opened)))
    reasoning = "".join(text for text, is_thinking in shown if is_thinking)
    assert split_thinking(reasoning) == Said(thought.strip() or None, "", True)
    assert "".join(text for text, is_thinking in shown if not is_thinking).strip() == answer.strip()


@pytest.mark.parametrize("whole", ["Seven, <think> and </think>.", "<thin", "< 7", "", "<b>"])
def test_a_stream_without_reasoning_passes_as_it_is(whole: str) -> None:
    shown = list(stretches(list(whole)))
    assert "".join(text for text, _thinking in shown) == whole and not any(thinking for _text, thinking in shown)


def test_a_stream_that_never_ends_its_reasoning_is_reasoning() -> None:
    shown = list(stretches(["<th", "ink>Six </thi"]))
    assert "".join(text for text, _thinking in shown) == "<think>Six </thi"
    assert all(thinking for _text, thinking in shown)


def test_an_answer_s_typed_reasoning_becomes_its_thinking() -> None:
    typed = Message("assistant", "<think>\nhm\n</think>\n\nYes.", learn=True)
    assert apart(typed) == Message("assistant", "Yes.", learn=True, thinking="hm")
    assert apart(typed, Marks("[THINK]", "[/THINK]")).thinking == "hm", "the usual marks are known to every base"
    for kept in (
        Message("user", "<think>hm</think>Yes?"),
        Message("assistant", "<think>\n\n</think>\n\nYes."),
        Message("assistant", "<think>hm"),
        Message("assistant", "<think>a</think>b", thinking="c"),
    ):
        assert apart(kept) == kept
    assert apart(Message("assistant", "Yes.", thinking=" ")).thinking is None
    origin = Origin("a", 1, 1)
    assert thinks(Chat((typed,), origin)) and not thinks(Chat((Message("user", "<think>a</think>b"),), origin))
