"""``tunewright chat``: what goes to standard output, and what does not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tunewright

from tunewright import Run
from tunewright.cli.main import main
from tunewright.infer.transformers import TransformersEngine

QUESTION = "What is the river number 0 called?"
SHORT = ["--max-new-tokens", "8"]


def ask(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["chat", *args, *SHORT]) == 0
    return capsys.readouterr().out


def test_one_question_prints_the_answer_alone(tiny_run: Path, in_home: Path) -> None:
    done = tunewright("chat", "-m", QUESTION, *SHORT, cwd=in_home, cache=in_home / "cache")
    assert done.returncode == 0, done.stderr
    assert done.stdout == Run.open(tiny_run).chat(QUESTION, max_new_tokens=8) + "\n"


def test_a_run_is_named_by_folder_or_path(tiny_run: Path, in_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = ask(capsys, "-m", QUESTION)
    assert last.strip() and last == ask(capsys, "town-1", "-m", QUESTION) == ask(capsys, str(tiny_run), "-m", QUESTION)


def test_a_base_is_asked_as_it_is(tiny_base: Path, in_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "--base", str(tiny_base), "-m", QUESTION) != ask(capsys, "-m", QUESTION)


def test_both_are_shown_side_by_side(tiny_run: Path, in_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = ask(capsys, "-m", QUESTION).rstrip("\n")
    lines = ask(capsys, "--compare", "-m", QUESTION).rstrip("\n").split("\n")
    assert lines[0].startswith("base: ") and f"tuned: {tuned}" in "\n".join(lines)


def test_greedy_answers_are_always_the_same(in_home: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "-m", QUESTION) == ask(capsys, "-m", QUESTION)


def test_a_piped_conversation_remembers_and_new_forgets(
    tiny_run: Path, in_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    stream = TransformersEngine.stream

    def listen(self: TransformersEngine, prompt: Any, *more: Any) -> Any:
        asked.append(self.template.decode(prompt))
        return stream(self, prompt, *more)

    monkeypatch.setattr(TransformersEngine, "stream", listen)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Who are you?\n{QUESTION}\n/new\n{QUESTION}\n\nnever read\n"))
    answers = ask(capsys).splitlines()
    assert [text.count("<|im_start|>user") for text in asked] == [1, 2, 1]
    assert "Who are you?" in asked[1] and answers[0] in asked[1]
    assert "Who are you?" not in asked[2]


def test_an_empty_input_ends_at_once(in_home: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert ask(capsys) == ""


WRONG = {
    "no run at all": (["-m", "x"], "there is no run yet"),
    "no such run": (["nowhere", "-m", "x"], "there is no run 'nowhere'"),
    "a base and a run": (["town-1", "--base", "b", "-m", "x"], "--base takes neither"),
    "no such base": (["--base", "smollm3", "-m", "x"], "there is no base"),
    "a temperature below zero": (["--temperature", "-1", "-m", "x"], "temperature"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_talked_to_is_said(kind: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args, text = WRONG[kind]
    assert main(["chat", *args]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and "  type:  tunewright" in captured.err and captured.out == ""
