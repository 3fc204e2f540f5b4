from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tunewright import rundir
from tunewright.report import curves


def steps(*losses: float) -> list[dict[str, Any]]:
    return [{"step": n, "loss": loss} for n, loss in enumerate(losses, 1)]


@pytest.mark.parametrize("count", [1, 2, 11, 12, 500])
def test_any_number_of_steps_makes_a_picture(count: int) -> None:
    points = curves.curve(steps(*(3 / n for n in range(1, count + 1))))
    picture = imread(io.BytesIO(curves.png(points)))
    assert picture.shape[:2] == (540, 960)
    assert np.unique(picture.reshape(-1, picture.shape[2]), axis=0).shape[0] > 10, "something is drawn"
    assert curves.drawing(points) is not None


def test_the_same_run_gives_the_same_file() -> None:
    points = curves.curve(steps(3.0, 2.0, 1.0))
    assert curves.png(points) == curves.png(points)


def test_held_out_losses_are_their_own_line_that_starts_before_training() -> None:
    rows = [*steps(3.0, 2.0), {"step": 2, "held_out_loss": 2.5}]
    points = curves.curve(rows, {"before": {"loss": {"value": 3.5}}, "after": {"loss": {"value": 2.4}}})
    assert points.train == ((1, 3.0), (2, 2.0))
    assert points.held_out == ((0, 3.5), (2, 2.5))


def test_without_held_out_losses_in_between_the_evaluation_gives_both_ends() -> None:
    points = curves.curve(steps(3.0, 2.0), {"before": {"loss": {"value": 3.5}}, "after": {"loss": {"value": 2.4}}})
    assert points.held_out == ((0, 3.5), (2, 2.4))


def test_a_step_made_again_after_a_resume_counts_once_and_broken_values_not_at_all() -> None:
    broken = [{"step": 4, "loss": None}, {"step": 5, "loss": math.inf}, {}]
    rows = [*steps(3.0, 2.0, 9.0), {"step": 3, "loss": 1.0}, *broken]
    assert curves.curve(rows).train == ((1, 3.0), (2, 2.0), (3, 1.0))


def test_the_smooth_line_keeps_the_first_loss() -> None:
    points = curves.curve(steps(*np.linspace(3, 1, 100)))
    assert points.smooth[0] == (1, 3.0) and len(points.smooth) == 100
    assert curves.curve(steps(3.0, 2.0)).smooth == ()


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 4, [0, 1, 2, 3, 4]), (0, 3.3, [0, 1, 2, 3, 4]), (0, 0.09, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (5, 5, [5, 5.2, 5.4, 5.6, 5.8, 6]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, wanted: list[float]) -> None:
    assert curves.ticks(low, high) == pytest.approx(wanted)


def test_a_single_step_is_seen_as_a_dot() -> None:
    drawn = curves.drawing(curves.curve(steps(3.0), {"before": {"loss": {"value": 3.5}}}))
    assert drawn is not None and len(drawn.alone) == 1 and len(drawn.dots) == 1


def test_a_run_without_steps_has_no_curve(make_run: Any) -> None:
    run = make_run(steps=0, evaluation=None)
    assert curves.write(run) is None and not run.file(rundir.LOSS_CURVE).exists()


def test_the_picture_lies_in_the_run(make_run: Any) -> None:
    path = curves.write(make_run())
    assert path is not None and path.name == "loss_curve.png" and path.stat().st_size < 80_000


def overfitted(held_out: tuple[float, ...], marked: bool) -> dict[str, Any]:
    seen = [{"epoch": n, "step": 2 * n, "train": 1 / n, "held_out": loss} for n, loss in enumerate(held_out, 1)]
    return {"learning": {"epochs": seen, "lowest": min(seen, key=lambda one: one["held_out"]), "overfitted": marked}}


def test_overfitting_is_marked_where_held_out_loss_was_lowest() -> None:
    points = curves.curve(steps(3.0, 2.0, 1.0, 0.5, 0.3, 0.2), overfitted((2.0, 1.5, 2.4), True))
    assert points.turned == (4.0, 1.5) and points.held_out[-1] == (6.0, 2.4)
    drawn = curves.drawing(points)
    assert drawn is not None and drawn.turned == pytest.approx(600.0)
    assert "Lowest at step 4 (1.50); it overfits from there on." in drawn.summary
    plain = curves.curve(steps(3.0, 2.0, 1.0, 0.5, 0.3, 0.2), overfitted((2.0, 1.5, 2.4), False))
    assert plain.turned is None and curves.png(plain) != curves.png(points)
