"""How the learning rate rises and falls."""

from __future__ import annotations

import itertools

import pytest

from tunewright.train.trainer import learning_rate_factor

STEPS = [1, 2, 3, 10, 97]


def factors(schedule: str, steps: int, warmup: float) -> list[float]:
    return [learning_rate_factor(schedule, steps, warmup, step) for step in range(steps)]


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_every_step_moves_and_none_more_than_the_peak(schedule: str, steps: int, warmup: float) -> None:
    assert all(0 < factor <= 1 for factor in factors(schedule, steps, warmup))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_warm_up_rises_to_the_peak(schedule: str) -> None:
    rising = factors(schedule, 100, 0.1)
    assert rising[:11] == sorted(rising[:11]) and len(set(rising[:11])) == 11
    assert rising[10] == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_after_the_warm_up_it_only_falls_and_ends_near_zero(schedule: str) -> None:
    falling = factors(schedule, 100, 0.1)[10:]
    assert all(a > b for a, b in itertools.pairwise(falling))
    assert falling[-1] < 0.02


def test_constant_stays() -> None:
    assert set(factors("constant", 50, 0.0)) == {1.0}


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert factors("cosine", 50, 0.0)[0] == 1
