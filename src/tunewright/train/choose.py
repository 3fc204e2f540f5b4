"""Every ``auto`` of a recipe becomes a value with a reason. One function a key; all of the rules stand here.

The learning rate, epochs and replay share were found by measuring (``docs/training.md`` has the tables); the others
follow from the data and the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunewright.data.prepare import Prepared
from tunewright.data.thinking import thinks
from tunewright.model.memory import ModelFacts
from tunewright.recipe.keys import keys
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.tasks import Task
from tunewright.text import _
from tunewright.train import replay

Choice = tuple[Any, str]

# Rows after which a small data set has been seen often enough, and the most epochs that takes, by task.
SEEN_ROWS = {"chat": 400, "linear": 3000, "label_token": 2000, "seq2seq": 6000, "pretrain": 400}
MOST_EPOCHS = {"chat": 5, "linear": 10, "label_token": 3, "seq2seq": 3, "pretrain": 3}
BATCH = {"chat": 8, "linear": 16, "label_token": 8, "seq2seq": 16, "pretrain": 4}
LEARNING_RATE = {
    "chat": {"lora": 4e-4, "freeze": 1e-4, "full": 5e-5},
    "linear": {"lora": 1e-3, "freeze": 1e-4, "full": 5e-5},
    "label_token": {"lora": 4e-4, "freeze": 1e-4, "full": 5e-5},
    "seq2seq": {"lora": 1e-3, "freeze": 2e-4, "full": 1e-4},
    "pretrain": {"lora": 4e-4, "freeze": 1e-4, "full": 5e-5},
}
RETAIN_COST = 0.15  # of the training rows' arithmetic that general prompts may have
SETTLE_COST = 0.03  # of the tokens that were trained, as training rows that are looked at afterwards
SIZES = (1.0, 0.8, 0.6)  # of an adapter, at which they are looked at
MOST_RETAINED = 2.0  # general prompts to a training row, however long the rows are
ANSWERED = 32  # held-out rows whose answers are generated; of outputs all, up to
OUTPUTS = 200
LONG_ANSWER = 256
LONG_THINKING = 1024  # with the answer behind it


@dataclass(frozen=True)
class Known:
    """What the choices depend on. bf16: whether this machine is fast at it, and why."""

    task: Task
    prepared: Prepared
    facts: ModelFacts
    bf16: tuple[bool, str]
    device: str

    @property
    def rows(self) -> int:
        return len(self.prepared.train)


def fill(recipe: Recipe, known: Known) -> tuple[Recipe, dict[str, str]]:
    """The recipe without any ``auto``, and why each value was chosen, by dotted key."""
    reasons: dict[str, str] = {}
    for key, rule in RULES.items():
        section, _dot, name = key.rpartition(".")
        if getattr(getattr(recipe, section) if section else recipe, name) == "auto":
            value, why = rule(recipe, known)
            recipe = changed(recipe, {key: value})
            if why and keys()[key].used_by(recipe):
                reasons[key] = why
    return recipe, reasons


def told(recipe: Recipe, reasons: dict[str, str]) -> list[str]:
    """One line for each choice: key, value, reason."""
    lines = []
    for key, why in reasons.items():
        section, _dot, name = key.rpartition(".")
        value = getattr(getattr(recipe, section) if section else recipe, name)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        shown = shown.lower() if isinstance(value, bool) else shown
        lines.append(f"{key:<24} {shown:<8} {why}")
    return lines


def _held_out(recipe: Recipe, known: Known) -> Choice:
    rows = len(known.prepared.held_out_chats)
    if recipe.data.validation:
        return max(2, rows), _("the validation file has {rows} rows", rows=rows)
    watched = int(known.prepared.ledger.get("watched", 0))
    return max(2, rows + watched), _("about a tenth of the rows, duplicates kept on one side")


def _max_length(recipe: Recipe, known: Known) -> Choice:
    most, longest = known.prepared.max_length, known.prepared.longest
    if known.task.reads == "documents":
        return most, _("documents are joined into rows of this length")
    return most, _("what the base holds; the longest row has {longest} tokens, so nothing is cut", longest=longest)


def _batch_size(recipe: Recipe, known: Known) -> Choice:
    rows, most = known.rows, BATCH[known.task.name]
    size = max(1, min(most, rows // 4))
    if size < most:
        return size, _("{rows} rows are few; smaller steps give more of them", rows=rows)
    return size, _("measured default of this task")


def _epochs(recipe: Recipe, known: Known) -> Choice:
    rows, task = known.rows, known.task.name
    epochs = max(1, min(MOST_EPOCHS[task], round(SEEN_ROWS[task] / rows)))
    if epochs == 1:
        return 1, _("{rows} rows are enough to be seen once", rows=rows)
    return epochs, _("{rows} rows, each seen {epochs} times", rows=rows, epochs=epochs)


def _learning_rate(recipe: Recipe, known: Known) -> Choice:
    method = recipe.train.method
    return LEARNING_RATE[known.task.name][method], _("measured default of method {method}", method=method)


def _dropout(recipe: Recipe, known: Known) -> Choice:
    if known.task.name == "linear":
        return 0.1, _("a new head on few rows overfits less")
    return 0.0, _("a step then depends on its rows alone")


def _precision(recipe: Recipe, known: Known) -> Choice:
    fast, why = known.bf16
    return ("bf16" if fast else "fp32"), why


def _token_budget(recipe: Recipe, known: Known) -> Choice:
    if known.device.startswith("cuda"):
        return max(16_384, known.prepared.longest), _("keeps a GPU busy; halved by itself if memory is short")
    return max(1024, known.prepared.longest), _("small enough for the CPU's caches, large enough for its matrix units")


def _keep(recipe: Recipe, known: Known) -> Choice:
    if known.task.gives == "labels" and known.prepared.watched:
        rows = len(known.prepared.watched)
        return "best", _("the epoch that does best on {rows} rows held out for this choice alone", rows=rows)
    if known.task.gives == "labels":
        return "last", _("too few rows to hold some out for choosing among epochs")
    return "last", _("the learning rate falls to nothing, so the last step is the one meant")


def _retain(recipe: Recipe, known: Known) -> Choice:
    if not known.task.retains:
        return "off", ""
    # A word costs more where it is learned: the output layer is gone through for it. A row that ends in a label has one
    # such word, a general prompt a whole answer of them.
    layers, output = known.facts.linear_weights, known.facts.vocabulary * known.facts.hidden
    own = sum(row.length * layers + row.learned * output for row in known.prepared.train) / max(1, known.rows)
    tokens = replay.tokens(known.prepared.codec, recipe.data.system)
    general = tokens * layers + replay.ANSWER_TOKENS * output
    share = min(MOST_RETAINED, max(0.05, round(RETAIN_COST * own / general, 2)))
    cost = round(100 * share * general / own)
    return share, _("general prompts to a row, answered by the base: it stays itself, +{cost} % work", cost=cost)


def _settle(recipe: Recipe, known: Known) -> Choice:
    if not replay.share(recipe) or recipe.train.method != "lora":
        return False, _("nothing holds the adapter to the base")
    cost = round(100 * SETTLE_COST * len(SIZES) / 2)  # a look is half of a step: nothing is learned
    return True, _("the adapter stays as large as the task needs, more of the base is left; +{cost} % work", cost=cost)


def _save_every(recipe: Recipe, known: Known) -> Choice:
    assert recipe.train.epochs != "auto" and recipe.train.batch_size != "auto"  # rules before this one filled them
    rows = known.rows * (1 + replay.share(recipe))
    steps = math.ceil(rows / recipe.train.batch_size * recipe.train.epochs)
    every = max(10, min(200, math.ceil(steps / 4)))
    return every, _("about {steps} steps; at most a quarter of the work can be lost", steps=steps)


def _evaluated(recipe: Recipe, known: Known) -> Choice:
    rows = len(known.prepared.held_out_chats)
    if known.task.gives == "outputs":
        return min(rows, OUTPUTS), _("outputs are short, so that many can be compared")
    if known.task.gives == "answers":
        return ANSWERED, _("answers take time; the loss is measured on every held-out row")
    return 0, ""


def _max_new_tokens(recipe: Recipe, known: Known) -> Choice:
    if known.task.gives not in ("answers", "outputs"):
        return 1, ""
    rows, thinking = known.prepared.held_out, any(map(thinks, known.prepared.held_out_chats))
    # Reasoning that is not learned is written all the same, so that there the whole row is what may be needed.
    sizes = [row.learned if recipe.data.learn_thinking or not thinking else row.length for row in rows]
    longest = max(sizes, default=64)
    limit = 16 * math.ceil(1.25 * longest / 16)
    if thinking:
        limit = max(LONG_ANSWER, min(LONG_THINKING, limit))
        return limit, _("room to reason and to answer; a held-out row needs up to {longest} tokens", longest=longest)
    return min(LONG_ANSWER, limit), _("the longest held-out answer has {longest} tokens", longest=longest)


# In the order in which they depend on each other.
RULES: dict[str, Callable[[Recipe, Known], Choice]] = {
    "data.held_out": _held_out,
    "data.max_length": _max_length,
    "train.batch_size": _batch_size,
    "train.epochs": _epochs,
    "train.learning_rate": _learning_rate,
    "train.dropout": _dropout,
    "train.precision": _precision,
    "train.token_budget": _token_budget,
    "train.keep": _keep,
    "retain": _retain,
    "lora.settle": _settle,
    "save.every": _save_every,
    "evaluate.rows": _evaluated,
    "evaluate.max_new_tokens": _max_new_tokens,
}
