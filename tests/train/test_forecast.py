"""Memory and time foreseen: positive, and larger for more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import prepared, recipe

from tunewright.model import memory
from tunewright.tasks import TASKS
from tunewright.train import forecast
from tunewright.train.forecast import Plan, foresee, matrix_speed


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of known speed."""
    monkeypatch.setattr(forecast, "matrix_speed", lambda *_what: 1e11)


def plan(base: Path, train: int = 50, **values: Any) -> Plan:
    return foresee(recipe(**values), memory.describe(base), TASKS["chat"], prepared(train), 10, 20, "cpu")


def test_everything_is_positive_and_adds_up(tiny_base: Path, steady: None) -> None:
    found = plan(tiny_base).as_dict()
    assert found["memory_bytes"] == sum(size for name, size in found["memory"].items() if name != "total") > 0
    assert found["seconds"] == pytest.approx(sum(found["phases"].values())) and min(found["phases"].values()) >= 0
    assert found["disk_bytes"] > 0


def test_memory_never_falls_as_the_budget_grows(tiny_base: Path, steady: None) -> None:
    sizes = [plan(tiny_base, train__token_budget=n).memory["total"] for n in (1, 40, 60, 80, 120, 160, 10_000)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_a_budget_beyond_the_step_costs_nothing_more(tiny_base: Path, steady: None) -> None:
    assert plan(tiny_base, train__token_budget=10**4).memory == plan(tiny_base, train__token_budget=10**6).memory


def test_time_grows_with_rows_and_epochs_and_ends_at_max_steps(tiny_base: Path, steady: None) -> None:
    base = {"train__epochs": 1000}
    one = plan(tiny_base, 5000, **base).seconds["training"]
    assert one > 0
    assert plan(tiny_base, 5000, train__epochs=500).seconds["training"] == pytest.approx(one / 2, rel=0.1)
    assert plan(tiny_base, 5000, **base, train__max_steps=10).seconds["training"] < 0.01 * one + 0.1


def test_full_training_needs_more_than_an_adapter(tiny_base: Path, steady: None) -> None:
    lora, full = (plan(tiny_base, train__method=m) for m in ("lora", "full"))
    assert full.memory["optimizer"] > lora.memory["optimizer"] and full.disk > lora.disk


def test_the_speed_is_tried_in_about_half_a_second(tiny_base: Path) -> None:
    assert matrix_speed(memory.describe(tiny_base), "fp32", "cpu") > 1e8
