"""Memory and time before any weight is loaded.

Memory comes from ``model/memory.py``. Time is arithmetic divided by speed: the arithmetic is counted from the shapes of
the weights and the lengths of the rows, the speed is that of a matrix product of the base's own size, tried on this
machine for half a second, times the share of it that a whole step was measured to reach.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from tunewright.data.lengths import micro_batches
from tunewright.data.prepare import Prepared
from tunewright.model.load import DTYPES
from tunewright.model.loss import CHUNK
from tunewright.model.memory import ModelFacts, forecast
from tunewright.recipe.schema import Recipe
from tunewright.tasks import Task

# Shares of the tried speed that were measured on the embedded base (benchmarks/plan.py): a training step with its
# norms, attention and optimizer; one token of a batch being generated, which is bound by many small layers.
TRAIN_SHARE = 0.40
SCORE_SHARE = 0.45
GENERATE_SECONDS_PER_GB = 0.30  # for one token of each row of a batch
OVERHEAD_SECONDS = 20.0  # loading, saving, starting


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


def foresee(
    recipe: Recipe, facts: ModelFacts, task: Task, prepared: Prepared, answers: int, replay: int, device: str
) -> Plan:
    """answers: generations before and again after.  replay: general prompts that the base has to answer first."""
    train, held_out = prepared.train, prepared.held_out
    settings = recipe.train
    outputs = len(prepared.labels) or facts.vocabulary  # of the layer that the loss is taken on
    assert settings.epochs != "auto" and settings.token_budget != "auto" and settings.precision != "auto"
    assert recipe.retain.share != "auto" and recipe.evaluate.max_new_tokens != "auto"
    lengths = [row.length for row in train]
    groups = micro_batches(sorted(lengths, reverse=True)[: int(recipe.train.batch_size)], settings.token_budget)
    widest = max(len(group) * lengths_of for group in groups for lengths_of in [max(lengths)]) if groups else 0
    tokens = min(max(widest, max(lengths, default=0)), max(settings.token_budget, max(lengths, default=0)))
    memory = forecast(
        facts, recipe, tokens=tokens, precision=settings.precision, outputs=outputs, logit_tokens=CHUNK, device=device
    ).as_dict()  # fmt: skip
    mean = sum(lengths) / max(1, len(lengths))
    seen = settings.epochs * (sum(lengths) + recipe.retain.share * len(lengths) * mean)
    learned = settings.epochs * sum(row.learned for row in train) * (1 + recipe.retain.share)
    if settings.max_steps is not None:
        share = min(1.0, settings.max_steps * int(recipe.train.batch_size) / max(1.0, settings.epochs * len(lengths)))
        seen, learned = seen * share, learned * share
    body = sum(prod(shape) for shape in facts.linear().values())
    head = outputs * facts.hidden
    passes = 4 if settings.method == "lora" else 6  # forward and input gradient; full training adds the weights'
    speed = matrix_speed(facts, settings.precision, device)
    scored = 2 * (2 * body * sum(r.length for r in held_out) + 2 * head * sum(r.learned for r in held_out))
    each = facts.parameters * (2 if settings.precision == "bf16" else 4) / 1e9 * GENERATE_SECONDS_PER_GB
    batches = -(-answers // 16) * recipe.evaluate.max_new_tokens * 2
    seconds = {
        "training": (passes * body * seen + 4 * head * learned) / (speed * TRAIN_SHARE),
        "evaluation": scored / (speed * SCORE_SHARE) + batches * each,
        "replay": -(-replay // 16) * 64 * each,
        "overhead": OVERHEAD_SECONDS,
    }
    trained = memory["trainable"] // 8
    disk = trained * 4 * (1 + 3 * recipe.save.keep) + 8_000_000
    return Plan(memory, {k: round(v, 1) for k, v in seconds.items()}, disk, sum(lengths), sum(r.learned for r in train))


def matrix_speed(facts: ModelFacts, precision: str, device: str) -> float:
    """Floating-point operations a second of a product of the base's own size: median of half a second's tries."""
    dtype = DTYPES["bf16" if precision == "bf16" else "fp32"]
    rows = 1024
    left = torch.randn(rows, facts.hidden, device=device).to(dtype)
    right = torch.randn(facts.intermediate, facts.hidden, device=device).to(dtype).T
    tries: list[float] = []
    end = time.monotonic() + 0.5
    while time.monotonic() < end or len(tries) < 5:
        began = time.perf_counter()
        left @ right
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        tries.append(time.perf_counter() - began)
    return 2 * rows * facts.hidden * facts.intermediate / sorted(tries)[len(tries) // 2]
