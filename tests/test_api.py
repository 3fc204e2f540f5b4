"""Tunewright from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import environment, quick

import tunewright
from tunewright.errors import RunError
from tunewright.example import Message


def test_importing_it_imports_no_torch(home: Path) -> None:
    heavy = ("torch", "transformers", "peft", "pydantic")
    code = f"import tunewright, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(home))
    assert done.stdout.strip() == "[]", done.stderr


def test_train_gives_a_run_that_answers(home: Path, tiny_base: Path) -> None:
    run = tunewright.train("town.jsonl", quick(tiny_base))
    assert run.verdict == run.evaluation["verdict"]
    answer = run.chat("What is the river number 0 called?", max_new_tokens=8)
    assert isinstance(answer, str) and answer == run.chat("What is the river number 0 called?", max_new_tokens=8)
    assert (run.folder.path / "report.html").exists() and (run.folder.path / "loss_curve.png").exists()


def test_the_last_run_is_opened_without_a_name(tiny_run: Path, in_home: Path) -> None:
    assert tunewright.Run.open().folder.path.resolve() == tiny_run
    assert tunewright.Run.open("town-1").folder.path.resolve() == tiny_run


def test_tuned_and_base_answer_differently(tiny_run: Path, in_home: Path) -> None:
    run = tunewright.Run.open(tiny_run)
    question = "What is the river number 0 called?"
    assert run.chat(question, max_new_tokens=8) != run.chat(question, max_new_tokens=8, tuned=False)


def test_pieces_of_a_conversation(tiny_run: Path, in_home: Path) -> None:
    run = tunewright.Run.open(tiny_run)
    pieces = list(run.stream([Message("user", "What is the river number 0 called?")], 8))
    answer = run.chat("What is the river number 0 called?", max_new_tokens=8)
    assert len(pieces) > 1 and "".join(pieces).strip() == answer


def test_no_run_is_an_error(home: Path) -> None:
    with pytest.raises(RunError, match="there is no run yet"):
        tunewright.Run.open()


def test_a_path_may_be_a_path(tiny_run: Path, in_home: Path) -> None:
    assert tunewright.Run.open(tiny_run).folder.path == tiny_run


def test_a_run_of_labels_does_not_chat(label_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(label_run.parents[1] / "cache"))
    with pytest.raises(RunError, match=r"does not chat: its task is classify[\s\S]*tunewright predict"):
        tunewright.Run.open(label_run).chat("Who are you?")
