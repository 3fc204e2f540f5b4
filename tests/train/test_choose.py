"""Every ``auto`` gets a value and a reason."""

from __future__ import annotations

from typing import Any

import pytest
from tests.tiny import prepared

from tunewright.recipe.keys import keys
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.tasks import TASKS
from tunewright.train.choose import RULES, Known, fill, told


def known(train: int = 100, longest: int = 40, device: str = "cpu", bf16: bool = True, task: str = "chat") -> Known:
    return Known(TASKS[task], prepared(train, 10, longest), None, (bf16, "because"), device)  # type: ignore[arg-type]


def value(recipe: Recipe, key: str) -> Any:
    section, _dot, name = key.rpartition(".")
    return getattr(getattr(recipe, section) if section else recipe, name)


def test_every_key_that_may_be_auto_has_a_rule() -> None:
    recipe = Recipe()
    auto = {name for name in keys() if value(recipe, name) == "auto"}
    elsewhere = {"task", "base", "data.format", "classify.head"}  # chosen by the reader, and by decide.py
    assert auto - elsewhere == set(RULES)


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
@pytest.mark.parametrize("train", [8, 11, 100, 5000])
def test_nothing_stays_auto_and_everything_has_a_reason(train: int, method: str) -> None:
    recipe, reasons = fill(changed(Recipe(), {"train.method": method}), known(train))
    assert set(reasons) == set(RULES) and all(len(why) > 10 or why == "because" for why in reasons.values())
    assert all(value(recipe, key) != "auto" for key in RULES)
    assert len(told(recipe, reasons)) == len(RULES)


@pytest.mark.parametrize("key", RULES)
def test_what_was_given_is_left_alone(key: str) -> None:
    given = {
        "data.max_length": 77, "train.precision": "fp32", "train.learning_rate": 0.5, "train.keep": "best",
        "train.dropout": 0.2,
    }.get(key, 3)  # fmt: skip
    recipe, reasons = fill(changed(Recipe(), {key: given}), known())
    assert value(recipe, key) == given and key not in reasons


def test_precision_follows_the_machine() -> None:
    for fast, name in ((True, "bf16"), (False, "fp32")):
        recipe, reasons = fill(Recipe(), known(bf16=fast))
        assert recipe.train.precision == name and reasons["train.precision"] == "because"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_longest_row_always_fits_the_budget(device: str) -> None:
    recipe, _reasons = fill(Recipe(), known(longest=30_000, device=device))
    assert int(recipe.train.token_budget) >= 30_000


def test_few_rows_are_seen_more_often_than_many() -> None:
    few, many = (fill(Recipe(), known(count))[0].train.epochs for count in (50, 5000))
    assert few > many == 1
