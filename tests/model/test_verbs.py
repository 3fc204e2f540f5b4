"""`tunewright models` and `tunewright doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunewright.cli.doctor import command as doctor
from tunewright.cli.models import command as models
from tunewright.model.catalog import catalog, nearest

pytestmark = pytest.mark.usefixtures("cache")


def test_models_fits_eighty_columns_and_says_what_to_type() -> None:
    done = CliRunner().invoke(models)
    lines = done.output.splitlines()
    assert done.exit_code == 0 and max(map(len, lines)) <= 80
    assert all(any(line.startswith(name) for line in lines) for name in catalog())
    assert lines[-1].startswith("Next: tunewright train")


def test_models_json_has_every_fact() -> None:
    rows = json.loads(CliRunner().invoke(models, ["--json"]).output)
    assert [row["name"] for row in rows] == list(catalog())
    assert not any(row["here"] for row in rows) and all(row["licence"] for row in rows)


def test_doctor_finds_this_machine_fit() -> None:
    done = CliRunner().invoke(doctor, ["--json"])
    found = json.loads(done.output)
    assert done.exit_code == 0 and found["ok"]
    assert {"python", "torch", "bf16", "memory", "disk", "cache", "pip"} <= {line["what"] for line in found["lines"]}


def test_doctor_exits_2_where_the_cache_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "file" / "cache"))
    done = CliRunner().invoke(doctor)
    assert done.exit_code == 2 and "TUNEWRIGHT_CACHE" in done.output and "Traceback" not in done.output


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("smollm2", "smollm2-135m-instruct"),
        ("Qwen/Qwen3-0.6", "qwen3-0.6b"),
        ("SmolLM2-360M-Instrukt", "smollm2-360m-instruct"),
    ],
)
def test_nearest_name(typed: str, meant: str) -> None:
    assert nearest(typed) == meant


def test_nearest_of_something_else_is_nothing() -> None:
    assert nearest("zzzzzzzz") is None
