"""``tunewright compare``: one table of 80 columns, and clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunewright import rundir
from tunewright.cli.main import main


@pytest.fixture
def two(tiny_run: Path, home: Path) -> list[str]:
    """Two copies of a finished run, one of which answers worse."""
    for name in ("first", "second"):
        shutil.copytree(tiny_run, home / "runs" / name)
    file = home / "runs" / "second" / rundir.EVALUATION
    evaluation = json.loads(file.read_text())
    for row in evaluation["rows"]:
        row["after"] |= {"chrf": 0.0, "text": ""}
    evaluation["after"]["chrf"] |= {"value": 0.0, "low": 0.0, "high": 0.0}
    file.write_text(json.dumps(evaluation))
    return ["first", "second"]


def test_runs_stand_in_one_table_within_eighty_columns(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *two]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(text in out for text in ("first", "second", "chrF", "loss", " trained", "held-out rows"))


def test_programs_get_values_and_differences(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *two, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    one, other = found["runs"]
    expected = -one["values"]["chrf"]["value"]
    assert other["difference"]["chrf"]["value"] == pytest.approx(expected, abs=1e-3) and found["verdict"]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["first"], "at least two runs"),
        (["first", "runs/first"], "named twice"),
        (["first", "nowhere"], "there is no run 'nowhere'"),
        (["first", "empty"], "has not been measured yet"),
    ],
)
def test_what_cannot_be_compared_says_why(
    names: list[str], what: str, two: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "runs" / "empty").mkdir()
    (home / "runs" / "empty" / rundir.STATUS).write_text("{}")
    assert main(["compare", *names]) == 2
    said = capsys.readouterr().err
    assert what in said and "Traceback" not in said
