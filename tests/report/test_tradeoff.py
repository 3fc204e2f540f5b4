"""The picture of task against retention."""

from __future__ import annotations

from tunewright.report.tradeoff import picture, stands

EVALUATION = {
    "before": {"loss": {"value": 3.0}}, "after": {"loss": {"value": 1.0}}, "general": {"watched_divergence": 0.4},
}  # fmt: skip
METRICS = [
    {"step": 1, "epoch": 0.5, "loss": 2.0},
    {"step": 2, "epoch": 1.0, "loss": 2.0, "held_out_loss": 1.5, "divergence": 0.2},
]


def test_the_way_goes_from_the_base_over_the_epochs_to_the_tuned_model() -> None:
    way = stands(METRICS, EVALUATION)
    assert [(one.name, one.divergence, one.loss) for one in way] == [
        ("base", 0.0, 3.0), ("1", 0.2, 1.5), ("tuned", 0.4, 1.0),
    ]  # fmt: skip
    drawn = picture(way)
    assert drawn is not None and drawn.dots == ((0.0, 0.0), (500.0, 500.0), (1000.0, 666.7))
    assert "from 3.00 to 1.00" in drawn.summary and "0.400 nats" in drawn.summary


def test_without_a_divergence_there_is_no_picture() -> None:
    assert stands(METRICS, EVALUATION | {"general": {"asked": 0}}) == [] and picture([]) is None
