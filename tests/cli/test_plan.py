"""``tunewright plan``: numbers before anything is loaded."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import quick

from tunewright.cli.main import main
from tunewright.train import learner


def plan(base: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["plan", "town.jsonl", *quick(base, *more), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_it_names_memory_time_disk_and_tokens(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(tiny_base, capsys)
    assert found["memory_bytes"] == found["memory"]["total"] > 400_000_000
    assert found["seconds"] == pytest.approx(sum(found["phases"].values())) and found["seconds"] > 0
    assert found["disk_bytes"] > 0 and found["tokens"] > found["learned_tokens"] > 0
    assert all(reason.startswith("chosen: ") for reason in found["chosen"].values())


def test_it_is_a_few_lines_for_people(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "town.jsonl", *quick(tiny_base)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out if line[0] != " "] == ["Memory", "Time", "Disk", "Tokens"]
    assert all(len(line) <= 80 for line in out)


def test_it_makes_no_run(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(tiny_base, capsys)
    assert not (home / "runs").exists()


def test_no_weight_is_read(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are holes in a file of terabytes, which no machine could read."""
    base = Path(shutil.copytree(tiny_base, home / "base"))
    shape, size = [1 << 18, 1 << 18], (1 << 36) * 4
    tensors = {
        f"model.layers.{n}.mlp.up_proj.weight": {
            "dtype": "F32", "shape": shape, "data_offsets": [n * size, n * size + size]
        }
        for n in range(8)
    }  # fmt: skip
    header = json.dumps(tensors).encode()
    with open(base / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 8 * size)
    monkeypatch.setattr("tunewright.model.source.hashes.folder_hashes", lambda folder: {"model.safetensors": "0" * 64})
    found = plan(base, capsys)
    assert found["memory_bytes"] > 8 * size


def test_loading_is_not_called(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str],
                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(learner, "load", lambda *_what: pytest.fail("weights were loaded"))
    assert plan(tiny_base, capsys)["tokens"] > 0


def test_a_larger_budget_needs_no_less_memory(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [plan(tiny_base, capsys, f"train.token_budget={budget}")["memory_bytes"] for budget in (1, 64, 128, 4096)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


@pytest.mark.parametrize("method", ["lora", "freeze", "full"])
def test_every_method_has_a_plan(method: str, home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tiny_base, capsys, f"train.method={method}")["memory"]["trainable"] > 0
