"""A run is repeated from its folder, to the bit; and where it is not, what differs first is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import quick, weights, write_chats

from tunewright import api, rundir
from tunewright.cli.main import main


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main(["rerun", *map(str, words)])
    return (code, *capsys.readouterr())


def same_again(run: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, error = told(capsys, run, "--out", out)
    assert code == 0, error
    assert weights(out) == weights(run)
    lines = {line.split()[0]: line.split()[1] for line in said.splitlines() if line.startswith("  ")}
    assert lines.keys() >= {"recipe", "data", "base", "before", "steps", "weights", "after", "answers"}
    assert set(lines.values()) == {"same"} and "The same run." in said


def test_a_chat_run_comes_out_the_same(
    tiny_run: Path, in_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same_again(tiny_run, tmp_path / "again", capsys)


def test_a_run_of_the_whole_model_comes_out_the_same(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.train("town.jsonl", quick(tiny_base, "train.method=full", "train.dropout=0.1"), out="run")
    same_again(home / "run", home / "again", capsys)


def test_a_run_of_labels_comes_out_the_same(
    label_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))  # nothing kept from the first time
    same_again(label_run, tmp_path / "again", capsys)


@pytest.fixture
def copied(tiny_run: Path, in_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "copied"))


def test_what_differs_is_said_with_where_it_begins(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "adapter" / "adapter_model.safetensors"
    stored = load_file(str(path))
    name = min(stored)
    stored[name] += torch.full_like(stored[name], 1e-3)
    save_file(stored, str(path), {"format": "pt"})
    code, said, error = told(capsys, copied, "--out", copied.parent / "again")
    assert code == 2 and "weights   differs" in said and "steps     same" in said
    assert "weights differs first" in error and name in error and "0.001" in error


def test_for_programs_it_says_the_same(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / rundir.METRICS
    lines = path.read_text().splitlines()
    changed = json.loads(lines[3]) | {"loss": 9.0}
    path.write_text("\n".join([*lines[:3], json.dumps(changed), *lines[4:]]) + "\n")
    code, said, _error = told(capsys, copied, "--out", copied.parent / "again", "--json")
    found = json.loads(said)
    assert code == 2 and found["same"] is False and found["differs_first"]["name"] == "steps"
    assert "step 4: loss was 9.0" in found["differs_first"]["says"]


def test_changed_data_is_refused_before_anything_is_trained(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.train("town.jsonl", quick(tiny_base, "train.max_steps=1"), out="run")
    write_chats(home / "town.jsonl", word="Harlow")
    code, _said, error = told(capsys, "run", "--out", "again")
    assert code == 2 and "the data is not what it was when the run began" in error and "town.jsonl" in error
    assert not (home / "again").exists()


def test_a_run_that_is_not_finished_is_refused(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rundir.RunDir(copied).set_status("stopped")
    code, _said, error = told(capsys, copied)
    assert code == 2 and "this run is not finished: stopped" in error and f"tunewright resume {copied}" in error
