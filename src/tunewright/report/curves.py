"""The loss of each step and of the held-out rows: read from ``metrics.jsonl``, drawn as PNG and as SVG paths."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tunewright import rundir
from tunewright.rundir import RunDir
from tunewright.text import _

Point = tuple[float, float]  # (step, loss)

ACCENT = "#0b7261"
_GREY = "#8a8f98"
_INK = "#24292f"
_WARN = "#b3362b"
_SMOOTH_FROM = 12  # with fewer steps every point is worth seeing as it is


@dataclass(frozen=True, slots=True)
class Curve:
    """train, held_out: (step, loss) in the order of steps.  smooth: train as a moving average, empty if it is short.
    per_label: the loss is that of labels, not of tokens.  turned: the lowest held-out point, where the loss rose from
    there on while training rows went on falling."""

    train: tuple[Point, ...]
    smooth: tuple[Point, ...]
    held_out: tuple[Point, ...]
    per_label: bool = False
    turned: Point | None = None

    def __bool__(self) -> bool:
        return bool(self.train or self.held_out)


def curve(metrics: Iterable[dict[str, Any]], evaluation: dict[str, Any] | None = None) -> Curve:
    """The points of ``metrics.jsonl``. A resumed run may have written a step twice; the later one counts.

    The held-out loss before training (step 0) comes from ``evaluation.json``, and the one after it too if none was
    measured in between.
    """
    train: dict[float, float] = {}
    held_out: dict[float, float] = {}
    for row in metrics:
        step = _finite(row.get("step"))
        if step is None:
            continue
        for key, points in (("loss", train), ("held_out_loss", held_out)):
            value = _finite(row.get(key))
            if value is not None:
                points[step] = value
    if evaluation and train:
        before, after = (_finite(evaluation.get(side, {}).get("loss", {}).get("value")) for side in ("before", "after"))
        if after is not None and not held_out:
            held_out[max(train)] = after
        if before is not None:
            held_out.setdefault(0.0, before)
    line = tuple(sorted(train.items()))
    per_label = (evaluation or {}).get("gives") == "labels"
    learning = (evaluation or {}).get("learning") or {}
    for one in learning.get("epochs", []):  # the last epoch is measured with the run's end
        held_out.setdefault(float(one["step"]), one["held_out"])
    turned = (float(learning["lowest"]["step"]), learning["lowest"]["held_out"]) if learning.get("overfitted") else None
    return Curve(line, _smooth(line), tuple(sorted(held_out.items())), per_label, turned)


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _smooth(points: Sequence[Point]) -> tuple[Point, ...]:
    """Moving average over about a tenth of the steps. Centred, so that it does not lag; at the start the window is as
    short as what lies before, so that the first loss is shown as high as it was."""
    if len(points) < _SMOOTH_FROM:
        return ()
    reach = max(1, len(points) // 20)
    result = []
    for index, (step, _loss) in enumerate(points):
        back = min(reach, index)
        window = [loss for _step, loss in points[index - back : index + back + 1]]
        result.append((step, sum(window) / len(window)))
    return tuple(result)


# --- PNG ------------------------------------------------------------------------------------------------------------


def png(points: Curve) -> bytes:
    """A picture of 960 x 540 pixels on white."""
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    marker = "o" if len(points.train) < _SMOOTH_FROM else ""
    if points.smooth:
        axes.plot(*zip(*points.train, strict=True), color=_GREY, alpha=0.35, linewidth=0.9)
        axes.plot(*zip(*points.smooth, strict=True), color=_GREY, linewidth=1.8, label=_("training rows (smoothed)"))
    elif points.train:
        axes.plot(*zip(*points.train, strict=True), color=_GREY, marker=marker, markersize=4, linewidth=1.5,
                  label=_("training rows"))
    if points.held_out:
        axes.plot(*zip(*points.held_out, strict=True), color=ACCENT, marker="o", markersize=4.5, linewidth=1.8,
                  label=_("held-out rows"))
    if points.turned:
        axes.axvline(points.turned[0], color=_WARN, linestyle=(0, (4, 3)), linewidth=1.2,
                     label=_("overfitting from here"))
    axes.set_xlabel(_("step"), color=_INK)
    axes.set_ylabel(_("loss per label") if points.per_label else _("loss per learned token"), color=_INK)
    axes.set_ylim(bottom=0 if min(_losses(points)) >= 0 else None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(points.train) == 1 and not points.held_out:  # one point has no range of its own
        axes.set_xlim(points.train[0][0] - 1, points.train[0][0] + 1)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c9cdd2")
    axes.legend(frameon=False, labelcolor=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def write(run: RunDir) -> Path | None:
    """(Re)write ``loss_curve.png``; None if no step was made yet."""
    points = of_run(run)
    if not points:
        return None
    path = run.file(rundir.LOSS_CURVE)
    rundir.write_bytes(path, png(points))
    return path


def of_run(run: RunDir) -> Curve:
    evaluation = run.read(rundir.EVALUATION) or None
    with run.reading(rundir.EVALUATION):
        return curve(rundir.read_lines(run.file(rundir.METRICS)), evaluation)


def _losses(points: Curve) -> list[float]:
    return [loss for _step, loss in (*points.train, *points.held_out)]


# --- for the page ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawing:
    """Paths in a box of 1000 x 1000 (y down) and axis labels with their place in percent.

    The page stretches the box and keeps strokes and letters at their size, so that one drawing serves every width.
    """

    train: str
    smooth: str
    held_out: str
    dots: tuple[Point, ...]
    alone: tuple[Point, ...]
    turned: float | None
    x_labels: tuple[tuple[float, str], ...]
    y_labels: tuple[tuple[float, str], ...]
    summary: str


def drawing(points: Curve) -> Drawing | None:
    if not points:
        return None
    steps = [step for step, _loss in (*points.train, *points.held_out)]
    left, right = min(steps), max(steps)
    if left == right:
        left, right = left - 1, right + 1
    y_ticks = ticks(min(0.0, *_losses(points)), max(_losses(points)) or 1.0)
    bottom, top = y_ticks[0], y_ticks[-1]

    def place(point: Point) -> Point:
        return round(1000 * (point[0] - left) / (right - left), 1), round(1000 * (top - point[1]) / (top - bottom), 1)

    def path(line: Sequence[Point]) -> str:
        return "M" + " L".join(f"{x:g} {y:g}" for x, y in map(place, line)) if line else ""

    inside = [tick for tick in ticks(left, right) if left <= tick <= right and tick % 1 == 0]
    dots = points.held_out if len(points.held_out) <= 40 else ()
    alone = points.train if len(points.train) == 1 else ()  # a line of one point would not be seen
    return Drawing(
        train=path(points.train),
        smooth=path(points.smooth),
        held_out=path(points.held_out),
        dots=tuple(map(place, dots)),
        alone=tuple(map(place, alone)),
        turned=place(points.turned)[0] if points.turned else None,
        x_labels=tuple((place((tick, 0))[0] / 10, f"{tick:g}") for tick in inside),
        y_labels=tuple((place((0, tick))[1] / 10, f"{tick:g}") for tick in y_ticks),
        summary=_summary(points),
    )


def _summary(points: Curve) -> str:
    """The drawing in words, for who cannot see it."""
    line = points.held_out or points.train
    name = _("held-out rows") if points.held_out else _("training rows")
    (start, first), (end, last) = line[0], line[-1]
    said = _(
        "Loss on {name}: {first} at step {start}, {last} at step {end}.",
        name=name, first=f"{first:.2f}", start=f"{start:g}", last=f"{last:.2f}", end=f"{end:g}",
    )
    if points.turned is None:
        return said
    step, loss = points.turned
    turned = _("Lowest at step {step} ({loss}); it overfits from there on.", step=f"{step:g}", loss=f"{loss:.2f}")
    return f"{said} {turned}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from at or below ``low`` to at or above ``high``."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]
