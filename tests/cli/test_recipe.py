"""``tunewright recipe``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.cli.main import main
from tunewright.recipe.keys import keys


def test_a_key_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "explain", "train.epochs"]) == 0
    assert "How often each row is seen." in capsys.readouterr().out


def test_all_keys_are_listed_and_given_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "explain"]) == 0
    assert "learning_rate" in capsys.readouterr().out
    assert main(["recipe", "explain", "--json"]) == 0
    assert [fact["key"] for fact in json.loads(capsys.readouterr().out)] == list(keys())


def test_a_misspelt_key_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "explain", "epcohs"]) == 2
    assert "train.epochs" in capsys.readouterr().err


def test_a_recipe_is_checked_and_printed_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {train: x.jsonl}", encoding="utf-8")
    assert main(["recipe", "check", str(tmp_path / "recipe.yaml"), "train.epochs=3"]) == 0
    out = capsys.readouterr().out
    assert "epochs: 3" in out and "# command line" in out
    assert main(["recipe", "check", str(tmp_path / "recipe.yaml"), "train.epcohs=3"]) == 2
