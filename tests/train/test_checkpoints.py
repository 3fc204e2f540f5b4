"""A checkpoint is whole or does not count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tunewright.train import checkpoints
from tunewright.train.checkpoints import COMPLETE, SAVING, finish, newest, prune


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 9 and 10."""
    for step in (9, 10):
        write(tmp_path, step)
    return tmp_path


def write(folder: Path, step: int) -> None:
    staging = folder / SAVING / "inner"
    (staging / "deep").mkdir(parents=True)
    (staging / "weights").write_bytes(bytes([step]) * 100)
    (staging / "deep" / "state").write_text("state")
    finish(staging, folder, step, token_budget=64)
    (folder / SAVING).rmdir()


def test_the_newest_is_found_by_number_not_by_spelling(folder: Path) -> None:
    found, skipped = newest(folder)
    assert found is not None and (found.step, found.token_budget, skipped) == (10, 64, [])


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, [])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)


def edit(folder: Path, name: str, value: int) -> None:
    seal = json.loads((folder / COMPLETE).read_text())
    (folder / COMPLETE).write_text(json.dumps(seal | {name: value}))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no seal": (lambda p: (p / COMPLETE).unlink(), COMPLETE),
    "half a seal": (lambda p: (p / COMPLETE).write_text('{"step": 10'), COMPLETE),
    "another seal": (lambda p: (p / COMPLETE).write_text(json.dumps({"step": 10})), COMPLETE),
    "a seal of another step": (lambda p: edit(p, "step", 11), f"{COMPLETE} is damaged"),
    "an edited seal": (lambda p: edit(p, "token_budget", 65), f"{COMPLETE} is damaged"),
    "a flipped bit": (lambda p: flip(p / "weights"), "weights is damaged"),
    "a cut file": (lambda p: (p / "weights").write_bytes(b"\x0a" * 99), "weights is damaged"),
    "a missing file": (lambda p: (p / "deep" / "state").unlink(), "deep/state is missing"),
    "an empty folder": (lambda p: [f.unlink() for f in p.rglob("*") if f.is_file()] and None, COMPLETE),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_is_skipped_and_said(kind: str, folder: Path) -> None:
    damage, said = DAMAGE[kind]
    damage(folder / "step-10")
    found, skipped = newest(folder)
    assert found is not None and found.step == 9
    assert len(skipped) == 1 and str(folder / "step-10") in skipped[0] and said in skipped[0]


def test_one_that_was_being_written_is_said(folder: Path) -> None:
    (folder / SAVING).mkdir()
    found, skipped = newest(folder)
    assert found is not None and found.step == 10 and SAVING in skipped[0]


def test_all_damaged_is_none_with_a_sentence_for_each(folder: Path) -> None:
    for step in (9, 10):
        flip(folder / f"step-{step}" / "weights")
    found, skipped = newest(folder)
    assert found is None and len(skipped) == 2


def test_a_damaged_one_of_the_same_step_is_replaced(folder: Path) -> None:
    flip(folder / "step-10" / "weights")
    write(folder, 10)
    assert newest(folder)[1] == []


def test_the_oldest_go_first(folder: Path) -> None:
    write(folder, 100)
    prune(folder, 2)
    assert sorted(p.name for p in folder.iterdir()) == ["step-10", "step-100"]


def test_a_crash_between_writing_and_naming_leaves_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write(folder, 11)
    monkeypatch.undo()
    found, skipped = newest(folder)
    assert found is not None and found.step == 10 and len(skipped) == 1
