"""Every ``auto`` gets a value and a reason."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.tiny import prepared

from tunewright.model.memory import from_config
from tunewright.recipe.keys import keys
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.tasks import TASKS
from tunewright.train.choose import RULES, Known, fill, told

# Of SmolLM2-135M: of its arithmetic a fifth is the output matrix.
FACTS = from_config({
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "num_hidden_layers": 30,
    "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "tie_word_embeddings": True,
})  # fmt: skip


def known(train: int = 100, longest: int = 40, device: str = "cpu", bf16: bool = True, task: str = "chat") -> Known:
    return Known(TASKS[task], prepared(train, 10, longest), FACTS, (bf16, "because"), device)


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
    used = {key for key in RULES if keys()[key].used_by(recipe)}
    assert set(reasons) == used and all(len(why) > 10 or why == "because" for why in reasons.values())
    assert all(value(recipe, key) != "auto" for key in RULES)
    assert len(told(recipe, reasons)) == len(used)


@pytest.mark.parametrize("key", RULES)
def test_what_was_given_is_left_alone(key: str) -> None:
    given = {
        "data.max_length": 77, "train.precision": "fp32", "train.learning_rate": 0.5, "train.keep": "best",
        "train.dropout": 0.2, "lora.settle": True,
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


def test_rows_that_end_in_a_label_pay_for_fewer_general_prompts() -> None:
    """They cost less than rows of their length that are learned whole, and general prompts may cost a share of them."""
    shares = []
    for learned in (2, 119):
        one = known(longest=120)
        mask = np.arange(120) >= 120 - learned
        train = [replace(row, ids=np.zeros(120, np.int32), learn=mask) for row in one.prepared.train]
        recipe, reasons = fill(Recipe(), replace(one, prepared=replace(one.prepared, train=train)))
        assert re.search(r"\+1[3-6] % work$", reasons["retain"])
        shares.append(float(recipe.retain))
    assert 1.1 < shares[1] / shares[0] < 1.3  # 119 words of 28 M weights each, beside 120 times 106 M
