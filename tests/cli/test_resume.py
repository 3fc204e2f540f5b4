"""``tunewright resume`` on the command line; what it does is tested in tests/train/test_resume.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunewright import rundir
from tunewright.cli.main import main


def test_a_finished_run_says_what_to_do_instead(
    tiny_run: Path, in_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir() if p.name != ".lock"}
    assert main(["resume"]) == 2
    captured = capsys.readouterr()
    assert "this run is finished" in captured.err and "tunewright chat" in captured.err.splitlines()[-1]
    assert {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir() if p.name != ".lock"} == before


def test_no_run_is_an_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "nowhere"]) == 2
    assert "there is no run 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"base": {}}'])
def test_a_damaged_manifest_is_named(
    content: str, tiny_run: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run, home / "copy")
    (home / "copy" / rundir.MANIFEST).write_text(content)
    (home / "copy" / rundir.STATUS).write_text(json.dumps({"state": "training"}))
    for words in (["resume", "copy"], ["chat", "copy", "-m", "hello"]):
        assert main(words) == 2
        assert "manifest.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["report", "copy"], ["compare", "run", "copy"]])
def test_a_damaged_evaluation_is_named(
    words: list[str], tiny_run: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run", "copy"):
        shutil.copytree(tiny_run, home / name)
    (home / "copy" / rundir.EVALUATION).write_text("[]")
    assert main(words) == 2
    assert "evaluation.json is damaged: it is no JSON object" in capsys.readouterr().err
