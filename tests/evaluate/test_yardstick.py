"""The yardsticks that a language model has to beat."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tunewright.evaluate import yardstick
from tunewright.evaluate.yardstick import unspaced, yardsticks

SOURCE = Path(__file__).parents[2] / "src"

GOOD = ["a fine film", "lovely and warm", "a fine, warm story", "lovely work", "a joy", "warm and fine"]
BAD = ["a dull film", "slow and cold", "a cold, dull story", "slow work", "a bore", "cold and dull"]
TEXTS, WANTED = GOOD + BAD, [[1]] * 6 + [[0]] * 6


def test_words_that_tell_are_learned() -> None:
    majority, tfidf = yardsticks(TEXTS, WANTED, ["warm and lovely", "dull and slow"], ["bad", "good"])
    assert tfidf.probabilities.argmax(axis=1).tolist() == [1, 0]
    assert np.allclose(tfidf.probabilities.sum(axis=1), 1)
    assert majority.probabilities.tolist() == [[0.5, 0.5]] * 2


def test_the_most_common_label_is_that_of_the_training_rows() -> None:
    majority = yardsticks(["a", "b", "c"], [[1], [1], [0]], ["x"], ["bad", "good"])[0]
    assert majority.probabilities[0] == pytest.approx([1 / 3, 2 / 3]) and "good" in majority.settings


def test_the_same_rows_give_the_same_numbers() -> None:
    one, two = (yardsticks(TEXTS, WANTED, GOOD, ["bad", "good"], seed=seed)[1] for seed in (0, 1))
    assert one.probabilities.tolist() == two.probabilities.tolist()


def test_chinese_has_no_spaces_and_is_counted_by_characters() -> None:
    texts = ["这部电影很好看", "非常好看的故事", "真好看", "这部电影很难看", "非常难看的故事", "真难看"]
    found = yardsticks(texts, [[1]] * 3 + [[0]] * 3, ["故事好看", "电影难看"], ["bad", "good"])[1]
    assert found.probabilities.argmax(axis=1).tolist() == [1, 0] and "characters" in found.settings


@pytest.mark.parametrize(
    ("text", "none"),
    [
        ("这部电影真的很好看 good", True), ("a fine film 好", False), ("สวัสดีครับ", True), ("안녕 하세요", False),
        ("123 !?", False),
    ],
)
def test_scripts_without_spaces_are_known(text: str, none: bool) -> None:
    assert unspaced([text]) is none


def test_each_of_several_labels_is_learned_for_itself() -> None:
    texts = [f"{a} {b}" for a in ("warm", "cold") for b in ("long", "short")] * 3
    wanted = [[n for n, word in enumerate(("warm", "long")) if word in text.split()] for text in texts]
    found = yardsticks(texts, wanted, ["warm short", "cold long"], ["warm", "long"], multi_label=True)[1]
    assert (found.probabilities >= 0.5).tolist() == [[True, False], [False, True]]


def test_a_label_without_a_training_row_gets_nothing() -> None:
    found = yardsticks(TEXTS, WANTED, ["a joy"], ["bad", "good", "unseen"])[1]
    assert found.probabilities[0, 2] == 0 and found.probabilities[0, 1] > 0.5


@pytest.mark.parametrize("multi_label", [False, True])
def test_one_label_only_is_certain(multi_label: bool) -> None:
    found = yardsticks(GOOD, [[1]] * 6, BAD, ["bad", "good"], multi_label)[1]
    assert found.probabilities.tolist() == [[0.0, 1.0]] * 6


@pytest.mark.parametrize("texts", [["", " "], ["!!", "?"]])
def test_texts_without_words_leave_the_most_common_label(texts: list[str]) -> None:
    assert [y.name for y in yardsticks(texts, [[0], [1]], ["x"], ["bad", "good"])] == ["majority"]


def test_no_rows_no_yardstick() -> None:
    assert yardsticks([], [], ["x"], ["bad", "good"]) == [] == yardsticks(TEXTS, WANTED, [], ["bad", "good"])


def test_a_pair_is_read_as_both_its_texts() -> None:
    pairs = [(text, "and more") for text in TEXTS]
    found = yardsticks(pairs, WANTED, [("and more", "a fine joy"), ("cold", None)], ["bad", "good"])[1]
    assert found.probabilities.argmax(axis=1).tolist() == [1, 0]


def test_many_long_texts_are_counted_by_single_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick, "_LONG", 10)
    assert yardsticks(TEXTS, WANTED, GOOD, ["bad", "good"])[1].settings.startswith("words, ")


def test_scikit_learn_is_imported_only_by_who_measures_it() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import tunewright.evaluate.labels; "
        "print('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_many_rows_of_many_labels_are_tried_less_long() -> None:
    assert yardstick._iterations(2000 * 2) == 100
    assert yardstick._iterations(100_000 * 100) == 25


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_less_than_a_minute() -> None:
    rng = random.Random(0)
    words = [f"w{n}" for n in range(5000)]
    texts = [" ".join(rng.choices(words, k=15)) for _ in range(100_000)]
    wanted = [[int(text < "w3")] for text in texts]
    began = time.thread_time()  # computed here, whatever else the machine does
    yardsticks(texts, wanted, texts[:1000], ["bad", "good"])
    assert time.thread_time() - began < 60


def test_on_film_reviews_it_reaches_what_is_known(shared: Path) -> None:
    """Pang and Lee's sentences, 2,000 to learn from: TF-IDF reaches about 0.71."""
    rows = [
        (line.strip(), label)
        for label, name in enumerate(("rt-polarity.neg", "rt-polarity.pos"))
        for line in (shared / "data" / "rotten_tomatoes" / name).read_bytes().decode("latin-1").splitlines()
    ]
    random.Random(0).shuffle(rows)
    train, test = rows[:2000], rows[2000:3066]
    found = yardsticks([t for t, _l in train], [[n] for _t, n in train], [t for t, _l in test], ["neg", "pos"])[1]
    right = (found.probabilities.argmax(axis=1) == np.array([n for _t, n in test])).mean()
    assert 0.69 < right < 0.75
