"""``tunewright new``: an example, copied and filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.cli.main import main
from tunewright.cli.new import examples
from tunewright.recipe.load import load


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_go_into_the_recipe_and_placeholders_stay_in_the_data(here: Path) -> None:
    assert main(["new", "identity", "--name", "小智", "--author", "智汇云"]) == 0
    recipe = load(here / "identity").recipe
    assert recipe.data.variables == {"name": "小智", "author": "智汇云"}
    assert recipe.data.train == [str(here / "identity" / "identity.jsonl")]
    data = (here / "identity" / "identity.jsonl").read_text(encoding="utf-8")
    assert "{{name}}" in data and "小智" not in data


@pytest.mark.parametrize(
    "name", ["no", "null", "123", 'a "b"', "a: b # c", "O'Hara", "-", "{{x}}", "C:\\x", "line\nbreak"]
)
def test_any_name_survives(here: Path, name: str) -> None:
    assert main(["new", "identity", "--name", name]) == 0
    assert load(here / "identity").recipe.data.variables["name"] == name


def test_comments_of_the_recipe_stay(here: Path) -> None:
    assert main(["new", "identity", "--name", "Zed", "--out", "mine"]) == 0
    text = (here / "mine" / "recipe.yaml").read_text(encoding="utf-8")
    shipped = (examples()["identity"] / "recipe.yaml").read_text(encoding="utf-8")
    assert text.replace("Zed", "Wren") == shipped


def test_nothing_is_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "identity").mkdir()
    (here / "identity" / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(["new", "identity"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [p.name for p in (here / "identity").iterdir()] == ["mine.txt"]


def test_unknown_example_and_empty_name_write_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "idendity"]) == 2
    assert "identity" in capsys.readouterr().err
    assert main(["new", "identity", "--name", " "]) == 2
    assert list(here.iterdir()) == []


def test_without_a_name_the_examples_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new"]) == 0
    assert "identity" in capsys.readouterr().out
    assert main(["new", "--json"]) == 0
    assert {"identity"} <= {entry["name"] for entry in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("name", examples())
def test_every_example_has_a_sound_recipe_and_a_page(name: str) -> None:
    folder = examples()[name]
    loaded = load(folder / "recipe.yaml")
    assert all(Path(path).exists() for path in loaded.recipe.data.train)
    assert (folder / "README.md").exists()
