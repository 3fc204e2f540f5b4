"""``retain`` as it is written now, and as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright.errors import RecipeError
from tunewright.recipe.dump import text
from tunewright.recipe.load import load


def loaded(folder: Path, lines: str, *overrides: str) -> Any:
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "recipe.yaml").write_text(f"data: {{train: rows.jsonl}}\n{lines}\n")
    return load(folder / "recipe.yaml", overrides)


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ("", "auto"), ("retain: auto", "auto"), ("retain: off", "off"), ("retain: 0.25", 0.25),
        ("retain: {share: 0.5}", 0.5), ("retain:\n  share: auto", "auto"), ("retain:\n  share: 0", 0.0),
    ],
)  # fmt: skip
def test_it_is_read_in_both_forms(lines: str, value: Any, tmp_path: Path) -> None:
    assert loaded(tmp_path, lines).recipe.retain == value


@pytest.mark.parametrize("override", ["retain=0.3", "retain.share=0.3"])
def test_an_override_wins_in_both_forms(override: str, tmp_path: Path) -> None:
    found = loaded(tmp_path, "retain: {share: 0.5}", override)
    assert found.recipe.retain == 0.3 and found.sources["retain"] == "command line"
    assert "\nretain: 0.3" in text(found.recipe, found.sources)


@pytest.mark.parametrize(
    "lines", ["retain: much", "retain: -1", "retain: {shar: 1}", "retain: [1]", "retain: off\nretain: {share: 1}"]
)
def test_anything_else_is_refused_with_its_place(lines: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="retain"):
        loaded(tmp_path, lines)
