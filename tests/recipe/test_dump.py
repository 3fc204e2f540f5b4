"""A written recipe is complete, names its sources, and loads as the same recipe."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.recipe.dump import dump, text
from tunewright.recipe.keys import keys
from tunewright.recipe.load import load
from tunewright.recipe.schema import Recipe


def lines(recipe: Recipe, sources: dict[str, str]) -> dict[str, str]:
    """Each line that gives a value, by its dotted key."""
    found, section = {}, ""
    for line in text(recipe, sources).splitlines()[1:]:
        name = line.split(":")[0].strip()
        section = section if line.startswith(" ") else ""
        found[section + name] = line
        if line.endswith(":"):
            section = name + "."
    return found


def test_every_key_of_the_method_is_written_with_its_source() -> None:
    written = lines(Recipe(), {"train.epochs": "chosen: 96 rows fit four epochs"})
    for name, key in keys().items():
        if key.method in (None, "lora"):
            assert "# " in written[name], name
    assert written["train.epochs"].endswith("# chosen: 96 rows fit four epochs")
    assert written["seed"].endswith("# default")


def test_section_of_another_method_is_left_out() -> None:
    assert "freeze:" not in text(Recipe(), {})
    assert "lora:" not in text(Recipe.model_validate({"train": {"method": "full"}}), {})


def test_source_cannot_break_out_of_its_comment() -> None:
    assert yaml.safe_load(text(Recipe(), {"seed": "chosen:\nseed: 7"}))["seed"] == 0


def test_other_yaml_readers_see_the_same_values(tmp_path: Path) -> None:
    names = {"a": "no", "b": "123", "c": "1e5", "d": "null", "e": "小智", "f": ".inf", "g": "1:30", "h": "2024-01-01"}
    recipe = Recipe.model_validate({"data": {"train": ["/x"], "variables": names}, "train": {"learning_rate": 1e-05}})
    seen = yaml.safe_load(text(recipe, {}))
    assert seen["data"]["variables"] == names
    assert seen["train"]["learning_rate"] == 1e-05


printable = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
recipes = st.builds(
    lambda words, table, number, checks, method: Recipe.model_validate(
        {
            "name": words[0],
            "base": words[1],
            "data": {
                "train": ["/data/x.jsonl"],
                "system": words[2],
                "variables": table,
                "prompt": "p",
                "answer": words[3],
            },
            "train": {"learning_rate": number, "epochs": number * 7, "method": method},
            "checks": [{"contains": check} for check in checks] + ["number"],
        }
    ),
    st.lists(printable, min_size=4, max_size=4),
    st.dictionaries(printable, printable, max_size=3),
    st.floats(1e-12, 1, allow_nan=False),
    st.lists(printable, max_size=3),
    st.sampled_from(["lora", "full", "freeze"]),
)


@settings(max_examples=300, deadline=None)
@given(recipe=recipes)
def test_a_written_recipe_loads_as_the_same(tmp_path_factory, recipe: Recipe) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    base = recipe.base
    dump(recipe, {}, path)
    loaded = load(path).recipe
    if loaded.base != base:  # a base that is a path is made absolute
        loaded = loaded.model_copy(update={"base": base})
    assert loaded == recipe
