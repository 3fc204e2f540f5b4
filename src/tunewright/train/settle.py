"""How much of a trained adapter is kept: the last steps towards the task are the dearest to what the base can do.

From the base (size 0) to the adapter as it was trained (size 1) the loss of the task falls steeply at first and hardly
at the end, while the divergence from the base grows ever faster. So the adapter is made a little smaller, to where the
two together are lowest. Nothing held out is looked at: the loss is that of training rows, the divergence that at the
watched general prompts, known from the end of the training; it grows about with the square of the size. The loss counts
by its reciprocal, which is what five trainings asked for (docs/retention.md): a task whose words are nearly certain by
now (who the model is) depends on its last steps, one whose loss is still high (reasoning) has mostly learned its rows
by heart with them, which is no loss to lose. Robust fine-tuning by averaging weights with the base (WiSE-FT, Wortsman
et al. 2021) is the same way, walked on the whole model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunewright.example import Rendered
from tunewright.infer.engine import Progress
from tunewright.train.choose import SETTLE_COST, SIZES
from tunewright.train.measuring import mean_loss

PULL = 0.8  # of a nat of divergence, against the reciprocal of the task's loss (docs/retention.md)
LEAST_LEARNED = 32  # learned tokens that a loss can be taken from, where there are as many
MOST_ROWS = 64
NEAR = 0.03  # nats a token from the base; nearer than that nothing was lost that could be told from chance


@dataclass(frozen=True)
class Settled:
    """size: of the adapter that is kept.  divergence: of the whole adapter from the base.  looks: (size, loss of
    training rows), the largest first.  Both in nats a token."""

    size: float
    divergence: float
    looks: tuple[tuple[float, float], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        looks = [{"size": size, "loss": round(loss, 6)} for size, loss in self.looks]
        return {"size": self.size, "divergence": round(self.divergence, 6), "looks": looks}


def sample(rows: Sequence[Rendered], trained_tokens: int, seed: int) -> list[Rendered]:
    """Training rows, always the same: of about ``SETTLE_COST`` of the tokens that were trained, and more where they
    have fewer than ``LEAST_LEARNED`` learned tokens."""
    found: list[Rendered] = []
    tokens = learned = 0
    for number in np.random.default_rng(seed).permutation(len(rows))[:MOST_ROWS].tolist():
        row = rows[number]
        tokens += row.length
        if learned >= LEAST_LEARNED and tokens > SETTLE_COST * trained_tokens:
            break
        found.append(row)
        learned += row.learned
    return found


def settle(
    model: torch.nn.Module, engine: Any, rows: Sequence[Rendered], divergence: float, progress: Progress
) -> Settled:
    """Make the adapter in ``model`` as large as it stays. ``engine`` asks that model; ``rows`` were trained on.
    divergence: from the base, as it is."""
    if divergence < NEAR:
        progress(len(SIZES))
        return Settled(1.0, divergence)
    full = {parameter: parameter.detach().clone() for parameter in _outputs(model)}
    looks: list[tuple[float, float]] = []
    for size in SIZES:
        _resize(full, size)
        looks.append((size, mean_loss(engine.score(rows))))
        progress(1)
    size = _lowest([(size, price(loss, divergence * size**2)) for size, loss in looks])
    _resize(full, size)
    return Settled(size, divergence, tuple(looks))


def price(loss: float, divergence: float) -> float:
    """Of a size at which training rows have that ``loss`` and the model that ``divergence`` from its base."""
    return PULL * divergence - 1 / loss if loss > 0 else math.nan


def _outputs(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The second matrix of each pair of an adapter: with it an adapter's output grows and shrinks."""
    return [parameter for name, parameter in model.named_parameters() if "lora_B" in name and parameter.requires_grad]


@torch.no_grad()
def _resize(full: dict[torch.nn.Parameter, torch.Tensor], size: float) -> None:
    for parameter, values in full.items():
        parameter.copy_(values * size)


def _lowest(seen: Sequence[tuple[float, float]]) -> float:
    """The size, between those looked at, at which a parabola through their prices is lowest, in hundredths."""
    (high, a), (middle, b), (low, c) = seen
    if not all(map(math.isfinite, (a, b, c))):
        return high
    bend, slope = a - 2 * b + c, (a - c) / 2
    if bend <= 0:
        return min(seen, key=lambda pair: pair[1])[0]
    return round(min(high, max(low, middle - slope / bend * (high - middle))), 2)
