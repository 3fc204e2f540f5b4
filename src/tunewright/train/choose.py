"""Every ``auto`` of a recipe becomes a value with a reason. One function a key; all of the rules stand here.

The learning rate, epochs and replay share were found by measuring (``docs/training.md`` has the tables); the others
follow from the data and the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.example import Rendered
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.text import _

Choice = tuple[Any, str]

SEEN_ROWS = 400  # a small data set is repeated until about so many rows have been seen
MOST_EPOCHS = 5
BATCH = 8
LEARNING_RATE = {"lora": 4e-4, "freeze": 1e-4, "full": 5e-5}
REPLAY_SHARE = 0.5
LONG_ANSWER = 256


@dataclass(frozen=True)
class Known:
    """What the choices depend on. lengths: tokens of each training row.  answers: learned tokens of each held-out
    row.  context: tokens the base holds.  bf16: whether this machine is fast at it, and why."""

    train: Sequence[Rendered]
    held_out: Sequence[Rendered]
    held_out_chats: int
    max_length: int
    longest: int
    context: int
    bf16: tuple[bool, str]
    device: str


def fill(recipe: Recipe, known: Known) -> tuple[Recipe, dict[str, str]]:
    """The recipe without any ``auto``, and why each value was chosen, by dotted key."""
    reasons: dict[str, str] = {}
    for key, rule in RULES.items():
        section, _dot, name = key.partition(".")
        if getattr(getattr(recipe, section), name) == "auto":
            value, reasons[key] = rule(recipe, known)
            recipe = changed(recipe, {key: value})
    return recipe, reasons


def told(recipe: Recipe, reasons: dict[str, str]) -> list[str]:
    """One line for each choice: key, value, reason."""
    lines = []
    for key, why in reasons.items():
        section, _dot, name = key.partition(".")
        value = getattr(getattr(recipe, section), name)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        lines.append(f"{key:<24} {shown:<8} {why}")
    return lines


def _held_out(recipe: Recipe, known: Known) -> Choice:
    rows = max(2, known.held_out_chats)
    if recipe.data.validation:
        return rows, _("the validation file has {rows} rows", rows=known.held_out_chats)
    return rows, _("about a tenth of the rows, duplicates kept on one side")


def _max_length(recipe: Recipe, known: Known) -> Choice:
    return known.max_length, _(
        "what the base holds; the longest row has {longest} tokens, so nothing is cut", longest=known.longest
    )


def _batch_size(recipe: Recipe, known: Known) -> Choice:
    rows = len(known.train)
    size = max(1, min(BATCH, rows // 4))
    if size < BATCH:
        return size, _("{rows} rows are few; smaller steps give more of them", rows=rows)
    return size, _("a common size for adapters; larger ones learn no more from so many rows")


def _epochs(recipe: Recipe, known: Known) -> Choice:
    rows = len(known.train)
    epochs = max(1, min(MOST_EPOCHS, round(SEEN_ROWS / rows)))
    if epochs == 1:
        return 1, _("{rows} rows are enough to be seen once", rows=rows)
    return epochs, _("{rows} rows, each seen {epochs} times", rows=rows, epochs=epochs)


def _learning_rate(recipe: Recipe, known: Known) -> Choice:
    method = recipe.train.method
    return LEARNING_RATE[method], _("measured default of method {method}", method=method)


def _precision(recipe: Recipe, known: Known) -> Choice:
    fast, why = known.bf16
    return ("bf16" if fast else "fp32"), why


def _token_budget(recipe: Recipe, known: Known) -> Choice:
    if known.device.startswith("cuda"):
        return max(16_384, known.longest), _("keeps a GPU busy; halved by itself if memory is short")
    return max(1024, known.longest), _("small enough for the CPU's caches, large enough for its matrix units")


def _share(recipe: Recipe, known: Known) -> Choice:
    return REPLAY_SHARE, _("general prompts answered by the base itself, so that it stays itself")


def _save_every(recipe: Recipe, known: Known) -> Choice:
    assert recipe.train.epochs != "auto" and recipe.train.batch_size != "auto"  # rules before this one filled them
    share = recipe.retain.share
    rows = len(known.train) * (1 + (share if share != "auto" else REPLAY_SHARE))
    steps = math.ceil(rows / recipe.train.batch_size * recipe.train.epochs)
    every = max(10, min(200, math.ceil(steps / 4)))
    return every, _("about {steps} steps; at most a quarter of the work can be lost", steps=steps)


def _max_new_tokens(recipe: Recipe, known: Known) -> Choice:
    longest = max((row.learned for row in known.held_out), default=64)
    limit = min(LONG_ANSWER, 16 * math.ceil(1.25 * longest / 16))
    return limit, _("the longest held-out answer has {longest} tokens", longest=longest)


# In the order in which they depend on each other.
RULES: dict[str, Callable[[Recipe, Known], Choice]] = {
    "data.held_out": _held_out,
    "data.max_length": _max_length,
    "train.batch_size": _batch_size,
    "train.epochs": _epochs,
    "train.learning_rate": _learning_rate,
    "train.precision": _precision,
    "train.token_budget": _token_budget,
    "retain.share": _share,
    "save.every": _save_every,
    "evaluate.max_new_tokens": _max_new_tokens,
}
