"""Which rows make a step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import rows

from tunewright.data.lengths import micro_batches
from tunewright.example import Rendered
from tunewright.train.batches import Steps


def numbers(step: list[Rendered]) -> list[int]:
    return [row.origin.row for row in step]


def test_every_row_comes_once_an_epoch() -> None:
    steps = Steps(rows(11), batch_size=3, epochs=3, seed=5)
    for epoch in range(3):
        seen = [number for step in range(4) for number in numbers(steps[epoch * 4 + step])]
        assert sorted(seen) == list(range(1, 12))


def test_a_step_depends_on_nothing_but_seed_and_place() -> None:
    first, second = (Steps(rows(11), 3, 4, seed=5) for _ in range(2))
    backwards = [numbers(first[step]) for step in reversed(range(len(first)))]
    assert backwards[::-1] == [numbers(second[step]) for step in range(len(second))]


def test_epochs_and_seeds_have_other_orders() -> None:
    one, other = Steps(rows(30), 30, 2, seed=0), Steps(rows(30), 30, 2, seed=1)
    orders = [numbers(one[0]), numbers(one[1]), numbers(other[0]), numbers(other[1])]
    assert all(orders.count(order) == 1 for order in orders)


def test_the_last_step_of_an_epoch_holds_what_is_left() -> None:
    assert [len(step) for step in Steps(rows(5), 2, 2, seed=0)] == [2, 2, 1, 2, 2, 1]


@pytest.mark.parametrize(("epochs", "total"), [(0.5, 2), (1, 4), (1.25, 5), (2.6, 11), (0.01, 1)])
def test_a_fraction_of_an_epoch_is_a_fraction_of_its_steps(epochs: float, total: int) -> None:
    assert len(Steps(rows(8), 2, epochs, seed=0)) == total


def test_max_steps_ends_it_sooner_and_never_later() -> None:
    assert len(Steps(rows(8), 2, 3, seed=0, max_steps=5)) == 5
    assert len(Steps(rows(8), 2, 3, seed=0, max_steps=500)) == 12


def test_steps_that_are_not_there_are_an_error() -> None:
    steps = Steps(rows(4), 2, 1, seed=0)
    for place in (-1, 2):
        with pytest.raises(IndexError):
            steps[place]


def test_replay_takes_its_share_each_epoch_and_all_of_it_in_turn() -> None:
    own, general = rows(10), rows(6, seed=1)
    steps = Steps(own, 4, 3, seed=0, replay=general, share=0.4)
    taken = []
    for epoch in range(3):
        epoch_rows = [row for step in range(steps.per_epoch) for row in steps[epoch * steps.per_epoch + step]]
        assert sum(any(row is mine for mine in own) for row in epoch_rows) == 10
        extra = [next(i for i, g in enumerate(general) if g is row) for row in epoch_rows if not _in(row, own)]
        assert len(extra) == 4
        taken.append(sorted(extra))
    assert taken == [[0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 4, 5]]


def _in(row: Rendered, own: list[Rendered]) -> bool:
    return any(row is mine for mine in own)


def test_a_share_without_general_rows_adds_nothing() -> None:
    assert Steps(rows(8), 2, 1, seed=0, share=0.5).per_epoch == 4


def test_epochs_finished_are_counted_in_steps() -> None:
    steps = Steps(rows(8), 2, 2, seed=0)
    assert [steps.epoch_after(step) for step in (0, 1, 4, 8)] == [0, 0.25, 1, 2]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=30), st.integers(1, 500))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= budget
