"""Held-out rows, rows that are too long, and micro-batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data.digest import Digest
from tunewright.data.fit import cut
from tunewright.data.ledger import Ledger
from tunewright.data.lengths import micro_batches
from tunewright.data.split import hold_out, wanted
from tunewright.example import Origin, Rendered

# -- split -----------------------------------------------------------------------------------------------------------


def known(count: int) -> list[Digest]:
    return [Digest(n.to_bytes(2, "big"), b"", b"") for n in range(count)]


@pytest.mark.parametrize(
    ("given_", "rows", "count"), [("auto", 91, 9), ("auto", 12, 2), ("auto", 10_000, 200), (0.25, 40, 10), (7, 40, 7)]
)
def test_how_many_are_held_out(given_: str | float, rows: int, count: int) -> None:
    assert wanted(given_, rows) == count


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 20), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_clusters_stay_whole_and_training_rows_remain(labels: list[int], count: int, seed: int) -> None:
    held = hold_out(known(len(labels)), np.array(labels), count, seed)
    assert len(held) <= count and len(held) < len(labels)
    assert not {labels[i] for i in held} & {labels[i] for i in range(len(labels)) if i not in held}


def test_the_same_texts_are_held_out_whatever_their_order() -> None:
    texts = known(50)
    once = {texts[i].whole for i in hold_out(texts, np.arange(50), 8, seed=3)}
    other = texts[::-1]
    assert {other[i].whole for i in hold_out(other, np.arange(50), 8, seed=3)} == once and len(once) == 8
    assert {texts[i].whole for i in hold_out(texts, np.arange(50), 8, seed=4)} != once


def test_each_label_gives_its_share() -> None:
    labels = [b"common"] * 160 + [b"seldom"] * 36 + [b"rare"] * 4
    texts = [Digest(n.to_bytes(2, "big"), b"", label) for n, label in enumerate(labels)]
    for seed in range(20):
        held = hold_out(texts, np.arange(200), 50, seed, evenly=True)
        assert Counter(labels[i] for i in held) == {b"common": 40, b"seldom": 9, b"rare": 1}
    others = [Counter(labels[i] for i in hold_out(texts, np.arange(200), 50, seed)) for seed in range(9)]
    assert any(other[b"seldom"] != 9 for other in others)


def test_nothing_is_held_out_of_one_cluster() -> None:
    assert hold_out(known(5), np.zeros(5, dtype=np.int64), 2, 0) == set()


# -- fit -------------------------------------------------------------------------------------------------------------


def row(learn: str) -> Rendered:
    """``..##`` has two tokens of context and two that are learned; ids count from 0."""
    return Rendered(np.arange(len(learn), dtype=np.int32), np.array([c == "#" for c in learn]), Origin("f", 1, 1))


def drawn(rendered: Rendered) -> str:
    return " ".join(f"{i}#" if learned else str(i) for i, learned in zip(rendered.ids, rendered.learn, strict=True))


def test_the_oldest_context_goes_first_and_the_head_stays() -> None:
    done = cut([row("........##.")], 7, head=[0, 1])
    assert [drawn(r) for r in done.rows] == ["0 1 5 6 7 8# 9#"] and done.lost == 4


def test_a_short_row_is_left_alone() -> None:
    short = row("..##.")
    assert cut([short], 5, []).rows == (short,)


def test_several_answers_become_several_rows_each_learned_once() -> None:
    done = cut([row("...##...##...##")], 8, head=[0])
    assert [drawn(r) for r in done.rows] == ["2 3# 4# 5 6 7 8# 9#", "0 8 9 10 11 12 13# 14#"]
    learned = sorted(int(i) for r in done.rows for i in r.ids[r.learn])
    assert learned == [3, 4, 8, 9, 13, 14] and all(r.length <= 8 for r in done.rows)


def test_an_answer_that_does_not_fit_is_not_cut() -> None:
    assert cut([row("..######")], 6, []).rows == ()


@given(st.text("..##.", min_size=1, max_size=60), st.integers(2, 30), st.integers(0, 5))
@settings(max_examples=500, deadline=None)
def test_cutting_never_loses_or_repeats_a_learned_token(pattern: str, most: int, head: int) -> None:
    given_ = row("." + pattern + "#")
    done = cut([given_], most, list(range(head)))
    if not done.rows:
        return
    assert sorted(int(i) for r in done.rows for i in r.ids[r.learn]) == np.flatnonzero(given_.learn).tolist()
    for made in done.rows:
        assert made.length <= max(most, 0) or made is given_
        assert (np.diff(made.ids) > 0).all() and not made.learn[0]


# -- ledger ----------------------------------------------------------------------------------------------------------


def test_a_ledger_that_does_not_add_up_is_our_fault() -> None:
    ledger = Ledger(3)
    ledger.keep(1)
    ledger.leave_out(Origin("f", 2, 2), "too_long", "9 tokens, 8 allowed")
    with pytest.raises(AssertionError, match="does not add up"):
        ledger.as_dict()
    ledger.keep(1)
    assert ledger.as_dict()["left_out"] == {"too_long": 1}


# -- lengths ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 100), max_size=80), st.integers(1, 400))
@settings(max_examples=300, deadline=None)
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
    order = [i for group in groups for i in group]
    assert order == sorted(order, key=lambda i: (-lengths[i], i))
