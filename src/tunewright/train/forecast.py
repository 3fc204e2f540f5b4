"""Memory and time before any weight is loaded.

Memory comes from ``model/memory.py``. Time is arithmetic divided by speed: the arithmetic is counted from the shapes of
the weights and the lengths of the rows as the steps will hold them, with padding where there is any; the speed is that
of a matrix product of the base's own size, tried on this machine for a second, times the share of it that a whole step
was measured to reach (benchmarks/forecast.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunewright.data.lengths import micro_batches
from tunewright.data.prepare import Prepared
from tunewright.example import Origin, Rendered
from tunewright.model.load import DTYPES
from tunewright.model.loss import CHUNK
from tunewright.model.memory import (
    WIDTH,
    Memory,
    ModelFacts,
    activation_bytes,
    forecast,
    trainable_parameters,
)
from tunewright.recipe.schema import Recipe
from tunewright.tasks import Task
from tunewright.train.batches import Steps
from tunewright.train.replay import share as replay_share

# Shares of the tried speed that were measured on the embedded base (benchmarks/forecast.py): a training step with its
# norms and attention, by precision and method; rows that are scored. An adapter's products are small and slower for it.
TRAIN_SHARE = {
    "bf16": {"lora": 0.56, "full": 0.60, "freeze": 0.60},
    "fp32": {"lora": 0.49, "full": 0.57, "freeze": 0.57},
}
SCORE_SHARE = 0.45
UPDATED = 5e8  # trained weights that AdamW moves a second; it reads and writes each of them seven times
GENERATE_SECONDS_PER_GB = 0.30  # for one token of each row of a batch of answers, which many small layers bound
OVERHEAD_SECONDS = 20.0  # loading, saving, starting
LOOKED_AT = 2000  # steps whose rows are counted; those of a longer training are like them
REPLAYED = 64  # tokens of a general prompt with its answer


@dataclass(frozen=True)
class Plan:
    """Bytes and seconds."""

    memory: dict[str, int]
    seconds: dict[str, float]
    disk: int
    tokens: int
    learned_tokens: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "memory_bytes": self.memory["total"],
            "memory": self.memory,
            "seconds": sum(self.seconds.values()),
            "phases": self.seconds,
            "disk_bytes": self.disk,
            "tokens": self.tokens,
            "learned_tokens": self.learned_tokens,
        }


@dataclass(frozen=True)
class Micro:
    """A micro-batch. tokens: that go through the layers.  seen: how many of them a token may look at, with those after
    it, in the mean."""

    tokens: int
    seen: int


def pads(recipe: Recipe, facts: ModelFacts, device: str) -> bool:
    """Whether a micro-batch is its rows times the longest of them. On a CPU the rows of a usual decoder lie end to end
    (``model/forward.py``), but for those of a new head, which reads the last token of each."""
    return device != "cpu" or not facts.usual or recipe.classify.head == "linear"


def cut(lengths: Sequence[int], budget: int, padded: bool) -> list[Micro]:
    """The micro-batches of one step whose rows have these lengths."""
    sizes = [[lengths[index] for index in group] for group in micro_batches(lengths, budget)]
    if padded:
        return [Micro(len(group) * group[0], group[0]) for group in sizes]
    return [Micro(sum(group), sum(length**2 for length in group) // max(1, sum(group))) for group in sizes]


def step_memory(recipe: Recipe, facts: ModelFacts, prepared: Prepared, micro: Micro, device: str) -> Memory:
    """Peak memory of a step whose largest micro-batch is ``micro``."""
    assert recipe.train.precision != "auto"
    outputs = len(prepared.labels) or facts.vocabulary  # of the layer that the loss is taken on
    return forecast(
        facts, recipe, tokens=micro.tokens, precision=recipe.train.precision, outputs=outputs, logit_tokens=CHUNK,
        device=device, longest=micro.seen,
    )  # fmt: skip


def largest(micros: Sequence[Micro], recipe: Recipe, facts: ModelFacts, device: str) -> Micro:
    """The one that takes most memory."""
    assert recipe.train.precision != "auto"
    width, quick = WIDTH[recipe.train.precision], device == "cpu" and facts.usual

    def size(one: Micro) -> tuple[int, int]:
        return activation_bytes(facts, recipe, width, one.tokens, one.seen, quick), one.tokens

    return max(micros, key=size, default=Micro(0, 0))


def foresee(
    recipe: Recipe, facts: ModelFacts, task: Task, prepared: Prepared, answers: int, replay: int, device: str
) -> Plan:
    """answers: generations before and again after.  replay: general prompts that the base has to answer first."""
    held_out = prepared.held_out
    outputs = len(prepared.labels) or facts.vocabulary
    assert recipe.train.precision != "auto" and recipe.evaluate.max_new_tokens != "auto"
    steps = _steps(recipe, prepared, replay)
    seen = _cut(steps, recipe, facts, device)
    memory = peak(recipe, facts, prepared, replay, device).as_dict()
    speed = matrix_speed(facts, recipe.train.precision, device)
    share = sum(row.learned for row in prepared.train) / max(1, sum(row.length for row in prepared.train))
    training = sum(step_seconds(step, recipe, facts, outputs, share, speed) for step in seen)
    body, head = facts.linear_weights, outputs * facts.hidden
    scored = 2 * (2 * body * sum(r.length for r in held_out) + 2 * head * sum(r.learned for r in held_out))
    each = facts.parameters * WIDTH[recipe.train.precision] / 1e9 * GENERATE_SECONDS_PER_GB
    batches = -(-answers // 16) * recipe.evaluate.max_new_tokens * 2
    seconds = {
        "training": training * len(steps) / max(1, len(seen)),
        "evaluation": scored / (speed * SCORE_SHARE) + batches * each,
        "replay": -(-replay // 16) * 64 * each,
        "overhead": OVERHEAD_SECONDS,
    }
    disk = trainable_parameters(facts, recipe) * 4 * (1 + 3 * recipe.save.keep) + 8_000_000
    tokens, learned = (sum(getattr(row, what) for row in prepared.train) for what in ("length", "learned"))
    return Plan(memory, {k: round(v, 1) for k, v in seconds.items()}, disk, tokens, learned)


def peak(recipe: Recipe, facts: ModelFacts, prepared: Prepared, replay: int, device: str) -> Memory:
    """Memory of the step that takes most."""
    micros = [micro for step in _cut(_steps(recipe, prepared, replay), recipe, facts, device) for micro in step]
    return step_memory(recipe, facts, prepared, largest(micros, recipe, facts, device), device)


def _cut(steps: Steps, recipe: Recipe, facts: ModelFacts, device: str) -> list[list[Micro]]:
    budget, padded = recipe.train.token_budget, pads(recipe, facts, device)
    assert budget != "auto"
    return [cut(steps.lengths(step), budget, padded) for step in range(min(len(steps), LOOKED_AT))]


def step_seconds(
    micros: Sequence[Micro], recipe: Recipe, facts: ModelFacts, outputs: int, share: float, speed: float
) -> float:
    """Time of one step. share: of its tokens that are learned, which alone get logits.  speed: of a matrix product."""
    method, precision, tokens = recipe.train.method, recipe.train.precision, sum(one.tokens for one in micros)
    # Forward and the gradient of the input; training the weights themselves adds theirs.
    passes = 4 if method == "lora" else 6
    trained = trainable_parameters(facts, recipe)
    flops: float = tokens * passes * facts.linear_weights
    flops += tokens * 6 * trained if method == "lora" else 0
    flops += sum(6 * (facts.layers + facts.encoder_layers) * facts.queries * one.seen * one.tokens for one in micros)
    flops += share * tokens * (6 if method == "full" else 4) * outputs * facts.hidden
    return flops / (speed * TRAIN_SHARE[precision][method]) + trained / UPDATED


def _steps(recipe: Recipe, prepared: Prepared, replay: int) -> Steps:
    """The steps of the training, with blank rows in place of general ones, which are not there yet."""
    train = recipe.train
    assert train.epochs != "auto" and train.batch_size != "auto"
    blank = Rendered(np.zeros(REPLAYED, np.int32), np.zeros(REPLAYED, np.bool_), Origin("", 0, 0))
    return Steps(
        prepared.train, train.batch_size, train.epochs, recipe.seed, train.max_steps, [blank] * replay,
        replay_share(recipe),
    )  # fmt: skip


def worked(device: str) -> float:
    """Seconds by a clock that other work on the machine does not move: on a CPU what this process's threads worked, in
    the mean; on a GPU, which is not shared like that, the time."""
    if device.startswith("cuda"):
        return time.monotonic()
    return time.process_time() / torch.get_num_threads()


def matrix_speed(facts: ModelFacts, precision: str, device: str) -> float:
    """Floating-point operations a second of a product of the base's own size: median of a second's tries. Other
    work on the machine does not count as slowness of it."""
    dtype = DTYPES["bf16" if precision == "bf16" else "fp32"]
    rows = 1024
    left = torch.randn(rows, facts.hidden, device=device).to(dtype)
    right = torch.randn(facts.intermediate, facts.hidden, device=device).to(dtype).T
    tries: list[float] = []
    end = time.monotonic() + 1.0
    while time.monotonic() < end or len(tries) < 5:
        began = worked(device)
        left @ right
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        tries.append(worked(device) - began)
    return 2 * rows * facts.hidden * facts.intermediate / max(1e-9, sorted(tries)[len(tries) // 2])
