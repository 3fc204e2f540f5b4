"""What is said about a model that chooses labels, against scikit-learn and by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.metrics import log_loss as sklearn_log_loss

from tunewright.evaluate import classes, metrics
from tunewright.evaluate.labels import LabelMeasurement, compare_labels, measure_labels
from tunewright.evaluate.yardstick import Yardstick
from tunewright.example import Origin, Rendered

NAMES = ("bad", "fair", "good")


def measurement(
    wanted: Any, probabilities: Any, labels: tuple[str, ...] = NAMES, multi_label: bool = False
) -> LabelMeasurement:
    rows = len(wanted)
    return LabelMeasurement(
        tuple(Origin("reviews.csv", n + 2, n + 1) for n in range(rows)),
        tuple(f"text {n}" for n in range(rows)),
        classes.marked(wanted, len(labels)),
        np.asarray(probabilities, dtype=np.float64).reshape(rows, len(labels)),
        labels,
        multi_label,
    )


def random_rows(rows: int, skill: float, seed: int = 0) -> tuple[list[list[int]], np.ndarray]:
    """Wanted numbers that are the same for every skill, and probabilities that know them the better the more skill."""
    wanted = np.random.default_rng(7).choice(3, rows, p=[0.6, 0.3, 0.1])
    scores = np.random.default_rng(seed).normal(size=(rows, 3)) + skill * np.eye(3)[wanted]
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return [[int(label)] for label in wanted], chances


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    wanted, before = random_rows(200, 0.1)
    after = random_rows(200, 2.5, 1)[1]
    majority = Yardstick("majority", "always “bad”", np.tile([0.6, 0.3, 0.1], (200, 1)))
    tfidf = Yardstick("tfidf", "words", random_rows(200, 1.0, 2)[1])
    return compare_labels(measurement(wanted, before), measurement(wanted, after), [majority, tfidf])


# --- the numbers ----------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_scikit_learn(evaluation: dict[str, Any]) -> None:
    wanted, chances = random_rows(200, 2.5, 1)
    true, chosen = np.array(wanted)[:, 0], chances.argmax(axis=1)
    after = evaluation["after"]
    assert after["accuracy"]["value"] == pytest.approx((true == chosen).mean(), abs=1e-6)
    assert after["macro_f1"]["value"] == pytest.approx(f1_score(true, chosen, average="macro"), abs=1e-6)
    assert after["loss"]["value"] == pytest.approx(sklearn_log_loss(true, chances), abs=1e-6)
    part = evaluation["labels"]["after"]
    assert part["confusion"] == confusion_matrix(true, chosen).tolist()
    assert [line["f1"] for line in part["per_class"]] == pytest.approx(f1_score(true, chosen, average=None), abs=1e-6)


def test_several_labels_to_a_row_have_the_numbers_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, chances = rng.random((80, 3)) < 0.4, rng.random((80, 3))
    wanted = [np.flatnonzero(row).tolist() for row in truth]
    found = compare_labels(*[measurement(wanted, chances, multi_label=True)] * 2)
    chosen = chances >= 0.5
    assert found["after"]["exact_match"]["value"] == pytest.approx((truth == chosen).all(axis=1).mean(), abs=1e-6)
    for name in ("micro", "macro"):
        assert found["after"][f"{name}_f1"]["value"] == pytest.approx(f1_score(truth, chosen, average=name), abs=1e-6)
    each = [sklearn_log_loss(truth[:, label], chances[:, label]) for label in range(3)]
    assert found["after"]["loss"]["value"] == pytest.approx(np.mean(each), abs=1e-6)
    assert found["labels"]["after"]["confusion"] is None
    assert found["rows"][0]["label"] == [NAMES[number] for number in wanted[0]]


def test_macro_f1_is_over_the_labels_that_a_row_has() -> None:
    wanted = classes.marked([[0], [0], [1]], 3)
    chosen = classes.marked([[0], [2], [1]], 3)
    assert classes.macro_f1(wanted, chosen).value == pytest.approx((2 / 3 + 1) / 2)


def test_the_interval_of_macro_f1_covers_the_truth() -> None:
    """Rows drawn from a known table of wanted and chosen, whose macro F1 is known too."""
    table = np.array([[0.5, 0.1], [0.1, 0.3]])
    truth = (2 * 0.5 / 1.2 + 2 * 0.3 / 0.8) / 2
    rng, inside = np.random.default_rng(0), 0
    for trial in range(80):
        cells = rng.choice(4, 120, p=table.ravel())
        wanted, chosen = (classes.marked(side[:, None].tolist(), 2) for side in (cells // 2, cells % 2))
        found = classes.macro_f1(wanted, chosen, trial)
        assert found.low is not None and found.high is not None
        inside += found.low <= truth <= found.high
    assert 0.88 <= inside / 80 <= 1


def test_the_change_of_macro_f1_is_paired() -> None:
    """Two models that err on the same rows: what is hard for both is no noise between them."""
    wanted, chances = random_rows(300, 1.0)
    truth = classes.marked(wanted, 3)
    one = classes.choose(chances, False)
    two = one.copy()
    two[:3] = truth[:3]
    paired = classes.macro_f1_change(truth, one, two)
    alone = classes.macro_f1(truth, one)
    assert paired.high is not None and paired.low is not None and alone.high is not None and alone.low is not None
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


def test_many_labels_are_resampled_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide sums are added in another way; the rows drawn and the numbers are the same."""
    rng = np.random.default_rng(0)
    wanted, chosen = (classes.marked(rng.integers(0, 40, (90, 1)).tolist(), 41) for _side in range(2))
    wide = classes.macro_f1(wanted, chosen)
    monkeypatch.setattr(metrics, "_DENSE", 1000)
    assert wide == classes.macro_f1(wanted, chosen) and wide.high is not None


# --- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    """Nine rows said at 0.9 of which 6 come true, one at 0.55 that does: (9 * |0.9 - 6/9| + |0.55 - 1|) / 10."""
    said = np.array([[0.9, 0.1]] * 9 + [[0.45, 0.55]])
    wanted = classes.marked([[0]] * 6 + [[1]] * 3 + [[1]], 2)
    assert classes.calibration_error(said, wanted, False).value == pytest.approx((9 * (0.9 - 6 / 9) + 0.45) / 10)
    bins = classes.calibration(said, wanted, False)
    assert [(one["count"], one["accuracy"]) for one in bins] == [(1, 1.0), (9, pytest.approx(6 / 9, abs=1e-6))]


def test_a_calibrated_model_has_an_interval_that_begins_near_zero() -> None:
    """The error of a model that is right just as often as it says is chance alone; its interval says so."""
    rng = np.random.default_rng(0)
    said = rng.uniform(0.5, 1.0, 400)
    wanted = classes.marked([[0] if rng.random() < p else [1] for p in said], 2)
    found = classes.calibration_error(np.stack([said, 1 - said], axis=1), wanted, False)
    assert found.value is not None and found.low is not None and found.value > 0.02 and found.low < 0.01


def test_overconfidence_alone_is_not_worse() -> None:
    """An untrained head knows nothing and says so: its calibration is good, and no reason to say “mixed”."""
    wanted = [[0], [1]] * 100
    before = np.tile([0.5, 0.5], (200, 1)) + np.array([[0.01, -0.01]])
    after = np.array([[0.97, 0.03] if row[0] == 0 else [0.03, 0.97] for row in wanted])
    after[:30] = after[:30, ::-1]  # right in 85 of 100 rows, and 97 % sure in all
    found = compare_labels(*(measurement(wanted, p, ("bad", "good")) for p in (before, after)))
    assert found["difference"]["calibration_error"]["better"] is False
    assert found["verdict"].startswith("Better") and "calibration error" in found["verdict"]


# --- the whole ------------------------------------------------------------------------------------------------------


def test_the_evaluation_is_standard_json_in_the_common_shape(evaluation: dict[str, Any]) -> None:
    json.dumps(evaluation, allow_nan=False)
    assert evaluation["gives"] == "labels"
    assert evaluation["before"].keys() == evaluation["after"].keys() == evaluation["difference"].keys()
    assert evaluation["counts"]["rows"] == 200 and len(evaluation["rows"]) == 200
    first = evaluation["rows"][0]
    assert first.keys() == {"file", "line", "row", "text", "label", "before", "after"}
    assert first["after"].keys() == {"label", "probability", "loss", "right"}
    assert (first["file"], first["line"], first["text"]) == ("reviews.csv", 2, "text 0")


def test_rows_say_what_was_chosen_and_how_surely() -> None:
    found = compare_labels(*[measurement([[2], [0]], [[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])] * 2)
    assert found["rows"][0]["after"] == {
        "label": "good", "probability": 0.7, "loss": round(-math.log(0.7), 4), "right": True,
    }
    assert found["rows"][1]["after"]["label"] == "fair" and not found["rows"][1]["after"]["right"]


def test_both_texts_of_a_pair_are_kept_apart() -> None:
    one = measurement([[0]], [[1, 0, 0]])
    pair = LabelMeasurement(one.origins, (("premise", "hypothesis"),), one.wanted, one.probabilities, NAMES, False)
    row = compare_labels(pair, pair)["rows"][0]
    assert (row["text"], row["pair"]) == ("premise", "hypothesis")


def test_the_verdict_names_the_gain_and_the_yardstick(evaluation: dict[str, Any]) -> None:
    verdict = evaluation["verdict"]
    assert verdict.startswith("Better: accuracy on 200 held-out rows rose from ")
    assert "better than TF-IDF with logistic regression by " in verdict and "most common" not in verdict


def test_a_model_that_tfidf_equals_was_not_worth_it() -> None:
    wanted, before = random_rows(200, 0.0)
    after = random_rows(200, 2.0, 1)[1]
    tfidf = Yardstick("tfidf", "words", after)
    verdict = compare_labels(measurement(wanted, before), measurement(wanted, after), [tfidf])["verdict"]
    assert verdict.startswith("Better") and "a language model was not worth it here" in verdict


def test_few_rows_cannot_tell_whether_it_was_worth_it() -> None:
    wanted, before = random_rows(20, 0.0)
    tfidf = Yardstick("tfidf", "words", random_rows(20, 2.0, 2)[1])
    after = measurement(wanted, random_rows(20, 2.2, 1)[1])
    verdict = compare_labels(measurement(wanted, before), after, [tfidf])["verdict"]
    assert "too few held-out rows to tell" in verdict and "not worth it" not in verdict


def test_a_model_worse_than_tfidf_says_so() -> None:
    wanted, before = random_rows(300, 0.0)
    tfidf = Yardstick("tfidf", "words", random_rows(300, 3.0, 2)[1])
    after = measurement(wanted, random_rows(300, 1.0, 1)[1])
    assert "worse than TF-IDF" in compare_labels(measurement(wanted, before), after, [tfidf])["verdict"]


def test_what_does_not_beat_the_most_common_label_has_learned_nothing() -> None:
    """A head that begins below chance and ends by always saying one label rose a lot and learned nothing."""
    wanted = [[0]] * 140 + [[1]] * 60
    before, after = np.tile([0.3, 0.7], (200, 1)), np.tile([0.7, 0.3], (200, 1))
    majority = Yardstick("majority", "always “bad”", after)
    found = compare_labels(*(measurement(wanted, p, ("bad", "good")) for p in (before, after)), [majority])
    assert found["difference"]["accuracy"]["better"] is True
    assert found["verdict"].startswith("Nothing was learned") and "no better than the most common" in found["verdict"]


def test_rare_labels_that_are_found_count_although_the_majority_has_the_same_accuracy() -> None:
    wanted = [[0]] * 180 + [[1]] * 20
    after = np.array([[0.9, 0.1]] * 165 + [[0.2, 0.8]] * 35)
    majority = Yardstick("majority", "always “bad”", np.tile([0.9, 0.1], (200, 1)))
    before = np.tile([0.9, 0.1], (200, 1))
    found = compare_labels(*(measurement(wanted, p, ("bad", "good")) for p in (before, after)), [majority])
    assert found["difference"]["macro_f1"]["better"] is True and not found["verdict"].startswith("Nothing")


def test_other_rows_or_labels_cannot_be_compared() -> None:
    one = measurement([[0], [1]], np.eye(3)[:2])
    with pytest.raises(ValueError, match="different rows"):
        compare_labels(one, measurement([[0], [2]], np.eye(3)[:2]))


# --- what must not break it -----------------------------------------------------------------------------------------


def test_a_label_that_no_row_has_is_no_division_by_zero() -> None:
    found = compare_labels(*[measurement([[0], [1]], np.eye(3)[:2])] * 2)
    assert found["labels"]["after"]["per_class"][2] == {
        "label": "good", "precision": None, "recall": None, "f1": None, "support": 0, "predicted": 0,
    }
    assert found["after"]["macro_f1"]["value"] == 1.0


def test_one_held_out_row_proves_nothing() -> None:
    found = compare_labels(measurement([[0]], [[0, 1, 0]]), measurement([[0]], [[1, 0, 0]]))
    assert {change["better"] for change in found["difference"].values()} == {None}


def test_no_held_out_rows_is_said() -> None:
    nothing = measurement([], np.zeros((0, 3)))
    assert compare_labels(nothing, nothing)["verdict"].startswith("Not measured")


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_that_are_no_numbers_are_wrong_and_counted(multi_label: bool) -> None:
    wanted, chances = random_rows(20, 3.0)
    broken = chances.copy()
    broken[:4] = np.nan
    found = compare_labels(
        measurement(wanted, chances, multi_label=multi_label), measurement(wanted, broken, multi_label=multi_label)
    )
    json.dumps(found, allow_nan=False)
    assert found["labels"]["after"]["without_choice"] == 4
    assert found["after"]["loss"]["value"] is None and found["difference"]["loss"]["better"] is False
    assert found["rows"][0]["after"]["loss"] is None and not found["rows"][0]["after"]["right"]


def test_a_wanted_label_of_no_probability_costs_much_and_not_everything() -> None:
    found = compare_labels(*[measurement([[0]], [[0.0, 1.0, 0.0]])] * 2)
    assert found["after"]["loss"]["value"] == pytest.approx(-math.log(1e-15))


class Engine:
    """Knows the answers: row n is of label n % 3."""

    class logits:
        @staticmethod
        def wanted(rows: list[Rendered]) -> torch.Tensor:
            return torch.tensor([[int(row.ids[-1])] for row in rows])

    def probabilities(self, rows: list[Rendered], progress: Any = None) -> np.ndarray:
        return np.eye(3)[[int(row.ids[-1]) for row in rows]]


def test_what_an_engine_says_of_rendered_rows_is_measured() -> None:
    rows = [
        Rendered(np.array([5, 6, n % 3], dtype=np.int32), np.array([False, False, True]), Origin("a.csv", n, n))
        for n in range(6)
    ]
    found = measure_labels(Engine(), rows, ["x"] * 6, NAMES)
    assert found.wanted.argmax(axis=1).tolist() == [0, 1, 2, 0, 1, 2] and found.chosen.tolist() == found.wanted.tolist()
    assert measure_labels(Engine(), [], [], NAMES).probabilities.shape == (0, 3)
