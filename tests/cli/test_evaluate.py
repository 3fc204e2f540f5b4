"""``tunewright evaluate``: the same numbers again, and numbers on other rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.tiny import quick, write_chats

from tunewright import api, rundir
from tunewright.cli.main import main


@pytest.fixture
def run(tiny_run: Path, home: Path) -> Path:
    """A copy of the run whose numbers may be replaced."""
    return Path(shutil.copytree(tiny_run, home / "copy"))


def test_its_own_rows_give_its_own_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((run / rundir.EVALUATION).read_text())
    (run / rundir.EVALUATION).unlink()
    assert main(["evaluate", "copy"]) == 0
    assert json.loads((run / rundir.EVALUATION).read_text()) == before
    assert capsys.readouterr().out.strip() == before["verdict"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["full", "freeze", "lora"])
def test_what_was_measured_is_what_is_opened(method: str, precision: str, home: Path, tiny_base: Path) -> None:
    args = quick(tiny_base, f"train.method={method}", f"train.precision={precision}")
    run = api.train("town.jsonl", args, out="run").folder.path
    before = json.loads((run / rundir.EVALUATION).read_text())
    assert main(["evaluate", "run"]) == 0
    assert json.loads((run / rundir.EVALUATION).read_text()) == before


def test_other_rows_are_shown_and_change_nothing(run: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_chats(home / "other.jsonl", 30, word="Wexley")
    before = {p.name: p.stat().st_mtime_ns for p in run.iterdir()}
    assert main(["evaluate", "copy", "other.jsonl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["rows"] == 30 and found["rows"][0]["file"].endswith("other.jsonl")
    assert {p.name: p.stat().st_mtime_ns for p in run.iterdir()} == before


def test_a_file_that_is_not_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "copy", "twon.jsonl"]) == 2
    said = capsys.readouterr().err
    assert "twon.jsonl" in said and "did you mean" in said and "town.jsonl" in said


def test_changed_data_is_no_second_measurement(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its held-out rows would be others, and the numbers would replace the first ones."""
    run = api.train("town.jsonl", quick(tiny_base, "train.max_steps=1"), out="run").folder.path
    before = (run / rundir.EVALUATION).read_text()
    write_chats(home / "town.jsonl", word="Harlow")
    assert main(["evaluate", "run"]) == 2
    assert "town.jsonl has changed" in capsys.readouterr().err
    assert (run / rundir.EVALUATION).read_text() == before
