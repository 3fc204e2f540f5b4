"""What ``import tunewright`` gives."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import tunewright

ROOT = Path(__file__).parents[1]


def test_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", tunewright.__version__)


def test_train_stays_the_function_when_the_room_of_that_name_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    room = type(sys)("tunewright.train")
    monkeypatch.setitem(sys.modules, "tunewright.train", room)
    tunewright.train = room  # what the import system does
    api = type(sys)("tunewright.api")
    api.train = lambda source: source  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tunewright.api", api)
    assert tunewright.train("x") == "x"


def test_unknown_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError):
        tunewright.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_every_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["serve"], "litellm"]  # the last by the Makefile
    names = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in wanted} - {"pip", "tunewright"}
    assert names <= pins


def test_every_constraint_is_exact() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line
