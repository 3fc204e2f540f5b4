"""What ``tunewright data`` writes never replaces what it reads, nor a file that is no page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tunewright.cli.main import main

Capture = pytest.CaptureFixture[str]


def rows(count: int = 60) -> list[dict[str, Any]]:
    return [{"instruction": f"Tell me fact {n}.", "output": f"The number {n} is {n * n} in all."} for n in range(count)]


def put(path: Path, content: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in content), encoding="utf-8")
    return str(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows, a second name for them, a recipe, pairs of lines, a note and two older pages."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "rows.jsonl", rows())
    put(tmp_path / "held.jsonl", [{"instruction": "New?", "output": "As new as the day."}])
    (tmp_path / "link.html").symlink_to("rows.jsonl")
    (tmp_path / "r.yaml").write_text("data:\n  train: rows.jsonl\n", encoding="utf-8")
    (tmp_path / "a.en").write_text("".join(f"House {n}.\n" for n in range(60)), encoding="utf-8")
    lines = ["<!doctype html>\n", *(f"Maison {n}.\n" for n in range(59))]
    (tmp_path / "a.html").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "note.html").write_text("my note", encoding="utf-8")
    (tmp_path / "old.html").write_text("<!DOCTYPE html><p>older", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    put(tmp_path / "folder" / "rows.jsonl", rows())
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "rows.jsonl --html rows.jsonl",
        "rows.jsonl --html ./folder/../rows.jsonl",
        "rows.jsonl --html link.html",
        "rows.jsonl data.validation=held.jsonl --html held.jsonl",
        "r.yaml --html r.yaml",
        "r.yaml --html rows.jsonl",
        "a.en data.target=a.html task=seq2seq --html a.html",
        "rows.jsonl --html note.html",
        "rows.jsonl --html copy.jsonl --fix copy.jsonl",
        "rows.jsonl --html copy.jsonl --fix copy.jsonl --overwrite",
        "rows.jsonl --html copy.jsonl.ledger.json --fix copy.jsonl",
        "folder --html folder/page.html",
    ],
)
def test_a_page_replaces_nothing_but_a_page(here: Path, capsys: Capture, words: str) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert main(["data", "check", *words.split()]) == 2
    assert "do:" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_an_older_page_is_replaced_and_an_empty_file_too(here: Path, capsys: Capture) -> None:
    (here / "empty").write_text("")
    for name in ("old.html", "empty", "new/page.html"):
        assert main(["data", "check", "rows.jsonl", "--html", name]) == 0
        assert (here / name).read_text(encoding="utf-8").startswith("<!doctype html>\n<html")


def test_the_page_of_a_row_replaces_no_data(here: Path, tiny_base: Path, capsys: Capture) -> None:
    before = (here / "rows.jsonl").read_bytes()
    words = ["data", "show", "rows.jsonl", "--base", str(tiny_base), "--html"]
    assert main([*words, "rows.jsonl"]) == 2 and (here / "rows.jsonl").read_bytes() == before
    assert main([*words, "note.html"]) == 2 and main([*words, "old.html"]) == 0
    assert "no page" in capsys.readouterr().err


def test_the_ledger_of_a_copy_replaces_no_input(here: Path, capsys: Capture) -> None:
    path = here / "out.jsonl.ledger.json"
    path.write_text(json.dumps(rows()), encoding="utf-8")
    before = path.read_bytes()
    assert main(["data", "check", path.name, "--fix", "out.jsonl", "--overwrite"]) == 2
    assert "replace its input" in capsys.readouterr().err
    assert path.read_bytes() == before and not (here / "out.jsonl").exists()


def test_an_older_ledger_stays_until_the_copy_has_its_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "out.jsonl").write_text("older copy")
    (here / "out.jsonl.ledger.json").write_text("older ledger")
    names = sorted(path.name for path in here.iterdir())
    replace = os.replace

    def stuck(one: Any, other: Any) -> None:
        if Path(other).name == "out.jsonl" and Path(other).parent == Path():
            raise OSError(1, "Operation not permitted")
        replace(one, other)

    monkeypatch.setattr(os, "replace", stuck)
    assert main(["data", "check", "rows.jsonl", "--fix", "out.jsonl", "--overwrite"]) == 2
    assert (here / "out.jsonl").read_text() == "older copy"
    assert (here / "out.jsonl.ledger.json").read_text() == "older ledger"
    assert sorted(path.name for path in here.iterdir()) == names


def test_a_folder_in_the_ledgers_place_is_not_overwritten(here: Path, capsys: Capture) -> None:
    (here / "out.jsonl.ledger.json").mkdir()
    assert main(["data", "check", "rows.jsonl", "--fix", "out.jsonl", "--overwrite"]) == 2
    told = capsys.readouterr().err
    assert "folder" in told and "--overwrite" not in told and not (here / "out.jsonl").exists()


@pytest.mark.parametrize("option", ["--fix", "--html"])
def test_what_cannot_be_written_is_told_without_options_that_are_not_there(
    here: Path, capsys: Capture, option: str
) -> None:
    assert main(["data", "check", "rows.jsonl", option, "note.html/copy.jsonl"]) == 2
    told = capsys.readouterr().err
    assert "cannot write" in told and "another file" in told and "--out" not in told
