"""Task against retention, epoch by epoch: how far the model moved from its base, and what that gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import rundir
from tunewright.report.curves import ticks
from tunewright.rundir import RunDir
from tunewright.text import _


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the model stood. divergence: nats a token from the base at general prompts.  loss: of held-out rows."""

    name: str
    divergence: float
    loss: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A path in a box of 1000 x 1000 (y down), and names and axis labels with their place in percent."""

    path: str
    dots: tuple[tuple[float, float], ...]
    names: tuple[tuple[float, float, str], ...]
    x_labels: tuple[tuple[float, str], ...]
    y_labels: tuple[tuple[float, str], ...]
    summary: str


def stands(metrics: Iterable[dict[str, Any]], evaluation: dict[str, Any]) -> list[Stand]:
    """The base, the end of each epoch, and the tuned model. Empty where the divergence was not measured."""
    far = (evaluation.get("general") or {}).get("watched_divergence")
    before, after = ((evaluation.get(side, {}).get("loss") or {}).get("value") for side in ("before", "after"))
    if far is None or before is None or after is None:
        return []
    found = [Stand(_("base"), 0.0, float(before))]
    for line in metrics:
        numbers: list[Any] = [line.get(key) for key in ("epoch", "divergence", "held_out_loss")]
        if all(isinstance(number, int | float) for number in numbers):
            epoch, divergence, loss = map(float, numbers)
            found.append(Stand(f"{epoch:.3g}", divergence, loss))
    return [*found, Stand(_("tuned"), float(far), float(after))]


def picture(places: Sequence[Stand]) -> Picture | None:
    """Right is further from the base, down is a lower loss: a good training goes down and stays left."""
    if not places:
        return None
    x_ticks = ticks(0.0, max(one.divergence for one in places) or 0.01)
    losses = [one.loss for one in places]
    y_ticks = ticks(min(0.0, *losses), max(losses) or 1.0)

    def place(one: Stand) -> tuple[float, float]:
        across = 1000 * one.divergence / x_ticks[-1]
        down = 1000 * (y_ticks[-1] - one.loss) / (y_ticks[-1] - y_ticks[0])
        return round(across, 1), round(down, 1)

    dots = tuple(map(place, places))
    first, last = places[0], places[-1]
    return Picture(
        path="M" + " L".join(f"{x:g} {y:g}" for x, y in dots),
        dots=dots,
        names=tuple((x / 10, y / 10, one.name) for one, (x, y) in zip(places, dots, strict=True)),
        x_labels=tuple((100 * tick / x_ticks[-1], f"{tick:g}") for tick in x_ticks),
        y_labels=tuple((100 * (y_ticks[-1] - t) / (y_ticks[-1] - y_ticks[0]), f"{t:g}") for t in y_ticks),
        summary=_(
            "Held-out loss from {before} to {after} while the model moved {far} nats a token from its base.",
            before=f"{first.loss:.2f}", after=f"{last.loss:.2f}", far=f"{last.divergence:.3f}",
        ),
    )


def of_run(run: RunDir) -> Picture | None:
    evaluation = run.read(rundir.EVALUATION)
    return picture(stands(rundir.read_lines(run.file(rundir.METRICS)), evaluation)) if evaluation else None
