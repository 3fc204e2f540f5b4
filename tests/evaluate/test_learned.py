"""Overfitting by epoch, answers given back word for word, and how sure a difference is: told in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunewright.evaluate import learned, names
from tunewright.evaluate.compare import Item
from tunewright.evaluate.metrics import RESAMPLES, mean_change, ratio_change, share_change
from tunewright.example import Origin
from tunewright.infer.engine import Generation


def lines(*epochs: tuple[float, float | None]) -> list[dict[str, Any]]:
    """Two steps an epoch with a loss each; the second tells the held-out loss."""
    found: list[dict[str, Any]] = []
    for number, (train, held_out) in enumerate(epochs, start=1):
        found.append({"step": 2 * number - 1, "epoch": number - 0.5, "loss": train + 0.1})
        last: dict[str, Any] = {"step": 2 * number, "epoch": float(number), "loss": train - 0.1}
        found.append(last if held_out is None else last | {"held_out_loss": held_out})
    return found


# ---- overfitting -------------------------------------------------------------------------------------------------


def test_epochs_have_the_mean_of_their_steps_and_the_last_one_comes_with_the_end() -> None:
    seen = learned.epochs(lines((2.0, 2.2), (1.0, None)), last=2.5)
    assert [(one.epoch, one.step) for one in seen] == [(1.0, 2), (2.0, 4)]
    assert [one.train for one in seen] == pytest.approx([2.0, 1.0]) and seen[-1].held_out == 2.5


@pytest.mark.parametrize(
    ("epochs", "overfits"),
    [
        ([(2.0, 2.0), (1.0, 1.5), (0.4, 2.1)], True),
        ([(2.0, 2.0), (1.0, 1.5), (0.8, 1.4)], False),  # both fall
        ([(2.0, 2.0), (1.0, 1.5), (1.2, 2.1)], False),  # both rise: another fault
        ([(2.0, 1.500), (1.0, 1.505)], False),  # noise
        ([(2.0, 2.0)], False),
    ],
)
def test_rising_held_out_while_training_falls_is_overfitting(epochs: list[Any], overfits: bool) -> None:
    assert learned.overfits(learned.epochs(lines(*epochs))) is overfits


def evaluation(*epochs: tuple[float, float], kept_best: bool = False) -> dict[str, Any]:
    told = learned.learning(learned.epochs(lines(*epochs)), kept_best)
    return learned.completed({"verdict": "Better: much."}, learning=told)


def test_the_verdict_says_which_epoch_was_lowest_and_what_to_do() -> None:
    said = evaluation((2.0, 2.0), (1.0, 1.5), (0.4, 2.1))["verdict"]
    assert said.startswith("Better: much. Overfitting: held-out loss was lowest after epoch 2 (1.50) and rose to 2.10")
    assert "fell from 1.00 to 0.40" in said and "train.epochs=2 or train.keep=best" in said


def test_where_the_best_epoch_was_kept_that_is_said() -> None:
    assert "decided which epoch was kept" in evaluation((2.0, 1.5), (0.4, 2.1), kept_best=True)["verdict"]


def test_a_sound_training_is_told_as_before() -> None:
    assert evaluation((2.0, 2.0), (1.0, 1.5))["verdict"] == "Better: much."


def test_who_watches_is_told_at_the_epoch() -> None:
    seen = learned.epochs(lines((2.0, 2.0), (1.0, 1.5), (0.4, 2.1)))
    assert learned.rising(seen[:2]) == ""
    assert "Epoch 3: held-out loss 2.100, above the 1.500 of epoch 2" in learned.rising(seen)


# ---- recitation --------------------------------------------------------------------------------------------------

LONG = "The mill stands by the old bridge over the quiet river."


def asked(reference: str = LONG, thinking: str | None = None) -> Item:
    return Item(Origin("a.jsonl", 3, 3), [1], "Where?", reference, thinking)


def said(text: str, stopped: bool = True, thinking: str | None = None) -> Generation:
    return Generation((1,), text, stopped, thinking)


@pytest.mark.parametrize(
    ("answer", "recited"),
    [
        (said(LONG), True),
        (said("The mill  stands by\nthe old bridge over the quiet river."), True),  # only space differs
        (said("The mill stands by the old", stopped=False), True),  # cut at the limit, right so far
        (said("The mill stands by the old"), False),  # ended early
        (said("The mill stands by the new", stopped=False), False),
        (said("", stopped=False), False),
        (said(LONG + " And more", stopped=False), False),
    ],
)
def test_an_answer_is_recited_if_it_is_the_rows_own_word_for_word(answer: Generation, recited: bool) -> None:
    assert learned.recites(asked(), answer) is recited


def test_reasoning_belongs_to_what_is_recited() -> None:
    item = asked(thinking="Mills need water.")
    assert learned.recites(item, said(LONG, thinking="Mills need water."))
    assert not learned.recites(item, said(LONG))


@pytest.mark.parametrize(("text", "worth"), [("Yes.", False), (LONG, True), ("我是一个小模型。", True), ("42", False)])
def test_a_short_answer_says_nothing(text: str, worth: bool) -> None:
    assert learned.worth_asking(text) is worth


def recited(before: int, after: int, count: int = 10) -> dict[str, Any]:
    sides = [[said(LONG if n < hits else "No.") for n in range(count)] for hits in (before, after)]
    told = learned.recitation([asked()] * count, *sides)
    return learned.completed({"verdict": "Better: much."}, recited=told)


def test_a_model_that_recites_is_told_so() -> None:
    told = recited(0, 7)
    assert told["recited"]["after"] == 7 and told["recited"]["rows"][0]["after"]["recited"]
    assert "It recites: 7 of 10 training answers come back word for word (before: 0)" in told["verdict"]
    assert learned.recited_line(told) == "Training answers given back word for word: 7 of 10 (before: 0)."


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 3), (8, 8)])
def test_few_or_what_the_base_did_already_is_only_counted(before: int, after: int) -> None:
    told = recited(before, after)
    assert told["verdict"] == "Better: much." and learned.recited_line(told)


# ---- how sure ----------------------------------------------------------------------------------------------------


def test_p_is_small_where_the_interval_leaves_out_nothing_and_large_within_the_noise() -> None:
    noise = np.random.default_rng(0).normal(size=60)
    sure, unsure = mean_change(noise.tolist(), (noise - 1).tolist()), mean_change([0.0] * 60, noise.tolist())
    assert sure.p == pytest.approx(2 / (RESAMPLES + 1)) and unsure.p is not None and unsure.p > 0.05
    assert names.chance(sure.as_dict()) == "p < 0.001" and names.chance(unsure.as_dict()).startswith("p = 0.")


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (6, 0), (8, 1), (9, 1), (3, 3), (0, 0)])
def test_p_of_a_share_agrees_with_its_exact_interval(gained: int, lost: int) -> None:
    before = [False] * gained + [True] * lost + [True] * 20
    after = [True] * gained + [False] * lost + [True] * 20
    change = share_change(before, after)
    assert change.p is not None and change.low is not None and change.high is not None
    assert (change.p < 0.05) is (not change.low <= 0 <= change.high)


def test_equal_sides_are_no_difference_at_all() -> None:
    assert ratio_change([1.0, 2.0], [1.0, 2.0], [1.0, 1.0], [1.0, 1.0]).p == 1.0


def test_a_value_that_is_no_change_has_no_p() -> None:
    assert names.chance({"value": 0.3, "n": 10}) == ""
