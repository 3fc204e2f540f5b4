"""What a person is told about a key comes from its declaration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.errors import RecipeError
from tunewright.recipe.explain import explain, overview
from tunewright.recipe.keys import keys, sections
from tunewright.recipe.load import load


@pytest.mark.parametrize("name", keys())
def test_every_key_says_what_it_means_allows_and_is(name: str) -> None:
    text = explain(name)
    assert keys()[name].description
    for part in (name, keys()[name].description, "allowed:", "default:", "used by:", "example:"):
        assert part in text


@pytest.mark.parametrize("name", keys())
def test_every_example_is_allowed(name: str, tmp_path: Path) -> None:
    key = keys()[name]
    together = {
        "data.prompt": ["data.answer=a"],
        "data.answer": ["data.prompt=q"],
        "freeze.layers": ["train.method=freeze"],
    }
    (tmp_path / "recipe.yaml").write_text("data: {train: x.jsonl}", encoding="utf-8")
    for example in key.examples:
        loaded = load(tmp_path / "recipe.yaml", [f"{name}={example}", *together.get(name, [])])
        assert "command line" in {value for key, value in loaded.sources.items() if key.startswith(name)}


def test_section_lists_its_keys() -> None:
    for section in sections():
        for name in keys():
            assert (f"  {name} " in explain(section)) == name.startswith(section + ".")


def test_entry_of_a_table_is_explained_by_the_table() -> None:
    assert explain("data.variables.name").startswith("data.variables\n")


def test_key_of_one_method_says_so() -> None:
    assert "`train.method: lora` only" in explain("lora.rank")


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean `train\.epochs`"):
        explain("train.epoch")


def test_overview_fits_a_terminal_and_names_every_key() -> None:
    text = overview()
    assert max(map(len, text.splitlines())) <= 80
    for name in keys():
        assert name.rpartition(".")[2] in text
