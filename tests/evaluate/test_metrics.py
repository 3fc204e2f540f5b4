from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from rouge_score import rouge_scorer

from tunewright.evaluate import metrics


class Words:
    def tokenize(self, text: str) -> list[str]:
        return metrics.words(text)


def test_a_perfect_answer_is_one_and_an_empty_one_is_zero() -> None:
    for metric in (metrics.chrf, metrics.rouge_l):
        assert metric("I am Wren.", "I am Wren.") == pytest.approx(1)
        assert metric("", "I am Wren.") == 0
        assert metric("I am Wren.", "") == 0


def test_chinese_answers_are_not_zero() -> None:
    # rouge-score's own tokenizer keeps nothing of this and answers 0.
    assert metrics.rouge_l("我是小智。", "我叫小智。") == pytest.approx(3 / 4)
    assert metrics.chrf("我是小智。", "我叫小智。") > 0.3


def test_words_split_cjk_into_characters_and_keep_words_of_other_scripts() -> None:
    assert metrics.words("Hi, 小智 v2") == ["hi", "小", "智", "v2"]
    assert metrics.words("Grüße, Ёжик! カナ") == ["grüße", "ёжик", "カ", "ナ"]
    assert metrics.words("नमस्ते") == ["नमस्ते"], "vowel signs belong to the word"


def test_rouge_l_is_the_number_of_rouge_score() -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Words())
    rng = random.Random(0)
    for _ in range(300):
        one, two = (" ".join(rng.choices("abcde小智", k=rng.randint(0, 70))) for _ in range(2))
        assert metrics.rouge_l(one, two) == pytest.approx(scorer.score(two, one)["rougeL"].fmeasure, abs=1e-12)


def test_loss_is_a_ratio_of_sums_and_not_a_mean_of_ratios() -> None:
    assert metrics.ratio([10.0, 1.0], [10.0, 10.0]).value == pytest.approx(11 / 20)
    assert metrics.ratio([10.0, 9.0], [1.0, 9.0]).value == pytest.approx(19 / 10)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(300):
        found = metrics.mean(list(rng.normal(2.0, 1.0, size=40)), seed=trial)
        inside += found.low <= 2.0 <= found.high
    assert 0.90 <= inside / 300 <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    values = list(np.linspace(0, 1, 30) ** 2)
    assert metrics.mean(values, seed=1) == metrics.mean(values, seed=1)
    assert metrics.mean(values, seed=1) != metrics.mean(values, seed=2)


def test_pairing_sees_a_small_gain_that_hard_and_easy_rows_would_hide() -> None:
    before = [float(n) for n in range(1, 31)]  # some rows are far harder than others
    after = [value - 0.2 for value in before]
    change = metrics.mean_change(before, after)
    assert change.high < 0
    unpaired = metrics.mean(after)
    assert unpaired.low < metrics.mean(before).value < unpaired.high


def test_eleven_of_eleven_is_not_certainty() -> None:
    found = metrics.share([True] * 11)
    assert found.value == found.high == 1 and 0.70 < found.low < 0.76


@pytest.mark.parametrize(("rows", "sure"), [(5, False), (6, True)])
def test_a_share_that_changes_everywhere_needs_six_rows_to_be_no_chance(rows: int, sure: bool) -> None:
    # McNemar's exact test: 2 / 2**5 is above 5 %, 2 / 2**6 is below.
    change = metrics.share_change([False] * rows, [True] * rows)
    assert (change.low > 0) is sure


def test_gains_and_losses_that_cancel_are_no_change() -> None:
    change = metrics.share_change([True] * 5 + [False] * 5, [False] * 5 + [True] * 5)
    assert change.value == 0 and change.low < 0 < change.high


def test_the_exact_interval_holds_for_thousands_of_rows() -> None:
    change = metrics.share_change([False] * 3000, [True] * 1600 + [False] * 1400)
    assert change.low < change.value <= change.high and math.isfinite(change.low)


def test_a_loss_that_is_no_number_has_no_value() -> None:
    assert metrics.ratio([1.0, math.nan], [2.0, 2.0]).as_dict() == {"value": None, "low": None, "high": None, "n": 2}
    assert metrics.ratio([], []).value is None
    assert metrics.ratio([0.0], [0.0]).value is None


def test_a_difference_of_other_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        metrics.mean_change([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="same rows"):
        metrics.share_change([True], [])


def test_five_hundred_long_rows_take_seconds() -> None:
    text = "小智是一个助手，可以回答问题。" * 20
    start = time.perf_counter()
    for _ in range(100):
        metrics.rouge_l(text, text[::-1])
    metrics.ratio_change([1.0] * 500, [2.0] * 500, [3.0] * 500, [3.0] * 500)
    assert time.perf_counter() - start < 3


def test_perplexity_is_the_exponential_of_the_loss_and_so_are_its_ends() -> None:
    loss = metrics.ratio([8.0, 2.0, 9.0], [4.0, 2.0, 3.0])
    found = metrics.perplexity(loss)
    assert loss.value is not None and loss.low is not None and loss.high is not None
    assert found == metrics.Estimate(math.exp(loss.value), math.exp(loss.low), math.exp(loss.high), 3)
    assert metrics.perplexity(metrics.Estimate(1000.0, 999.0, None, 3)) == metrics.Estimate(None, None, None, 3)


def test_the_change_of_perplexity_is_paired() -> None:
    tokens = [10.0] * 20
    before = [10.0 * n for n in range(1, 21)]
    found = metrics.perplexity_change(before, [loss - 1.0 for loss in before], tokens)
    expected = math.exp(sum(before) / 200 - 0.1) - math.exp(sum(before) / 200)
    assert found.value == pytest.approx(expected)
    assert found.low is not None and found.high is not None and found.low < expected < found.high < 0
    assert metrics.perplexity_change([], [], []).value is None
