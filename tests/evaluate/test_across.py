"""Runs side by side: paired with the first one, beside the yardsticks, and refused where the rows differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewright import rundir
from tunewright.errors import RunError
from tunewright.evaluate import classes
from tunewright.evaluate.across import across
from tunewright.evaluate.labels import LabelMeasurement, compare_labels
from tunewright.evaluate.metrics import share_change
from tunewright.evaluate.yardstick import yardsticks
from tunewright.example import Origin
from tunewright.rundir import RunDir

LABELS = ("bad", "fair", "good")
TRAIN = [("a dull film", 0), ("a fair film", 1), ("a warm film", 2), ("dull again", 0), ("so warm", 2)]


def measured(seed: int, count: int, sure: float, order: list[int] | None = None) -> LabelMeasurement:
    """A model that is right the more often, the surer it is."""
    random = np.random.default_rng(0)
    numbers = random.integers(0, 3, count)
    noise = np.random.default_rng(seed).random((count, 3))
    chances = noise + sure * np.eye(3)[numbers]
    chances /= chances.sum(axis=1, keepdims=True)
    places = order or list(range(count))
    wanted = np.eye(3, dtype=np.bool_)[numbers]
    origins = tuple(Origin("test.jsonl", n + 1, n + 1) for n in places)
    texts = tuple(f"film {n} " + ("dull", "fair", "warm")[int(numbers[n])] for n in places)
    return LabelMeasurement(origins, texts, wanted[places], chances[places], LABELS, False)


def label_run(folder: Path, after: LabelMeasurement, head: str = "linear") -> RunDir:
    before = LabelMeasurement(
        after.origins, after.texts, after.wanted, np.full_like(after.probabilities, 1 / 3), LABELS, False
    )
    beside = yardsticks(
        [text for text, _n in TRAIN], np.eye(3, dtype=np.bool_)[[n for _text, n in TRAIN]], list(after.texts), LABELS
    )
    return write(folder, compare_labels(before, after, beside), head)


def write(folder: Path, evaluation: dict[str, Any], head: str | None = None, data: str = "d" * 64) -> RunDir:
    folder.mkdir(parents=True)
    rundir.write_json(folder / rundir.EVALUATION, evaluation)
    recipe = {"task": "classify" if head else "chat", "classify.head": head, "train.method": "lora"}
    manifest = {"recipe": recipe, "base": {"name": "tiny"}, "data_sha256": data}
    rundir.write_json(folder / rundir.MANIFEST, manifest)
    steps = [{"tokens": 600, "tokens_per_second": 20.0}, {"tokens": 315, "tokens_per_second": 10.0}]
    (folder / rundir.METRICS).write_text("".join(json.dumps(step) + "\n" for step in steps))
    (folder / rundir.LOG).write_text("x\ntrainable params: 921,600 || all params: 135,436,608 || trainable%: 0.6805\n")
    return RunDir(folder)


def test_difference_to_the_first_run_is_paired_row_by_row_whatever_their_order(tmp_path: Path) -> None:
    one, two = measured(1, 200, 0.5), measured(2, 200, 0.9)
    shuffled = measured(2, 200, 0.9, order=np.random.default_rng(3).permutation(200).tolist())
    found = across([label_run(tmp_path / "one", one), label_run(tmp_path / "two", shuffled, head="label_token")])
    hits = [classes.right(m.wanted, m.chosen).tolist() for m in (one, two)]
    expected = share_change(hits[0], hits[1])
    change = found["runs"][1]["difference"]["accuracy"]
    assert {k: v for k, v in change.items() if k != "better"} == expected.as_dict() and change["better"] is True
    assert found["runs"][0]["difference"] == {} and found["rows"] == 200
    assert found["metrics"] == ["accuracy", "macro_f1", "loss", "calibration_error"]
    assert found["verdict"].startswith("two is ahead: accuracy") and "more than chance" in found["verdict"]


def test_yardsticks_stand_once_beside_the_runs_that_share_them(tmp_path: Path) -> None:
    one = measured(1, 60, 0.9)
    found = across([label_run(tmp_path / "one", one), label_run(tmp_path / "two", measured(2, 60, 0.9))])
    assert [y["yardstick"] for y in found["yardsticks"]] == ["majority", "tfidf"]
    stored = json.loads((tmp_path / "one" / rundir.EVALUATION).read_text())["labels"]["yardsticks"]
    for shown, known in zip(found["yardsticks"], stored, strict=True):  # there the tuned model minus the yardstick
        assert shown["difference"]["accuracy"]["value"] == -known["difference"]["accuracy"]["value"]


def test_what_a_run_cost_is_said(tmp_path: Path) -> None:
    runs = [label_run(tmp_path / name, measured(1, 30, 0.9)) for name in ("one", "two")]
    about = across(runs)["runs"][0]
    assert (about["trained_parameters"], about["seconds"], about["head"]) == (921_600, 61.5, "linear")


def test_two_runs_alike_are_not_told_apart(tmp_path: Path) -> None:
    runs = [label_run(tmp_path / name, measured(1, 30, 0.9)) for name in ("one", "two")]
    found = across(runs)
    assert "may be chance" in found["verdict"] and found["runs"][1]["difference"]["accuracy"]["value"] == 0


def test_runs_on_other_rows_are_refused_with_what_differs(tmp_path: Path) -> None:
    whole, part = measured(1, 30, 0.9), measured(1, 30, 0.9, order=list(range(2, 30)))
    with pytest.raises(RunError, match="not measured on the same held-out rows") as caught:
        across([label_run(tmp_path / "one", whole), label_run(tmp_path / "two", part)])
    where = str(caught.value.where)
    assert "one measured 30 rows" in where and "two 28" in where and "2 only in" in where and "test.jsonl:1" in where


def test_run_with_other_labels_is_refused(tmp_path: Path) -> None:
    one = label_run(tmp_path / "one", measured(1, 30, 0.9))
    evaluation = json.loads((tmp_path / "one" / rundir.EVALUATION).read_text().replace('"fair"', '"middling"'))
    with pytest.raises(RunError) as caught:
        across([one, write(tmp_path / "two", evaluation, "linear")])
    assert "middling" in str(caught.value.where)


def chat(texts: list[str], tokens: int = 40, reference: str = "Harrow") -> dict[str, Any]:
    """``evaluation.json`` of a chat run, as far as it is read here."""
    rows = [
        {
            "file": "t.jsonl", "line": n + 1, "row": n + 1, "prompt": f"question {n}", "reference": reference,
            "before": {"text": ""}, "checks": {"contains: Harrow": {"before": False, "after": "Harrow" in text}},
            "after": {"text": text, "stopped": True, "chrf": float("Harrow" in text), "rouge_l": 0.5, "loss": 1.0},
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    right = sum("Harrow" in text for text in texts) / len(texts)
    value = {"value": 0.5, "low": 0.4, "high": 0.6, "n": len(texts)}
    after = {"loss": value, "chrf": value | {"value": right}, "check: contains: Harrow": value | {"value": right}}
    return {"gives": "answers", "verdict": "", "after": after, "before": after, "difference": {}, "rows": rows,
            "counts": {"rows": len(texts), "learned_tokens": tokens}}  # fmt: skip


def test_runs_that_answer_are_paired_by_answer_and_check(tmp_path: Path) -> None:
    one = write(tmp_path / "one", chat(["no"] * 10 + ["Harrow"] * 2))
    two = write(tmp_path / "two", chat(["Harrow"] * 12))
    found = across([one, two])
    change = found["runs"][1]["difference"]
    assert change["check: contains: Harrow"]["value"] == change["chrf"]["value"] == pytest.approx(10 / 12, abs=1e-6)
    assert change["check: contains: Harrow"]["better"] is True and "loss" in found["metrics"]


def test_loss_of_other_tokens_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    found = across([write(tmp_path / "one", chat(["no"] * 4)), write(tmp_path / "two", chat(["no"] * 4, tokens=50))])
    assert "loss" not in found["metrics"] and "other tokens: loss" in found["notes"][0]


def test_another_reference_is_another_row(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not measured on the same"):
        across([write(tmp_path / "one", chat(["no"])), write(tmp_path / "two", chat(["no"], reference="Exeter"))])


def test_runs_of_two_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        across([label_run(tmp_path / "one", measured(1, 30, 0.9)), write(tmp_path / "two", chat(["no"]))])
    assert "gives labels" in str(caught.value.where) and "gives answers" in str(caught.value.where)


def test_texts_are_compared_only_if_they_are_the_same_files(tmp_path: Path) -> None:
    plain = {"gives": "likelihood", "after": {"loss": {"value": 1.0, "low": 0.9, "high": 1.1, "n": 4}}, "rows": [],
             "counts": {"rows": 4, "learned_tokens": 99}}  # fmt: skip
    one = write(tmp_path / "one", plain)
    assert across([one, write(tmp_path / "same", plain)])["metrics"] == ["loss"]
    with pytest.raises(RunError, match="not measured on the same"):
        across([one, write(tmp_path / "other", plain, data="e" * 64)])
