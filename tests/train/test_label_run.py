"""A whole run that chooses labels: its rows add up, its best epoch is kept, and a crash changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.encoders import write_encoder
from tests.tiny import weights

from tunewright import api, rundir
from tunewright.recipe.load import load
from tunewright.rundir import RunDir
from tunewright.train import run as story
from tunewright.train.best import Standing
from tunewright.train.events import Listener
from tunewright.train.trainer import StepTrainer

WORDS = {"good": ["river", "bread", "town"], "bad": ["never", "sort", "guess"]}


@pytest.fixture
def reviews(home: Path) -> Path:
    """100 short texts in which one word tells the label."""
    rows = []
    for i in range(100):
        label = ["good", "bad"][i % 2]
        rows.append({"text": f"note {i}: the {WORDS[label][i % 3]} is number {7 * i}", "label": label})
    path = home / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(base: Path, *more: str) -> list[str]:
    given = [
        f"base={base}", "task=classify", "classify.head=linear", "train.precision=fp32", "train.batch_size=8",
        "train.epochs=4", "train.learning_rate=0.01", "data.held_out=40", "save.every=3", *more,
    ]  # fmt: skip
    return [f"{name}={value}" for name, value in dict(item.split("=", 1) for item in given).items()]


class Heard(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_rows_that_choose_are_in_neither_training_nor_report(reviews: Path, tiny_base: Path) -> None:
    heard = Heard()
    run = api.train("reviews.jsonl", settings(tiny_base), listener=heard).folder
    ledger = rundir.read_json(run.file(rundir.LEDGER))
    assert (ledger["train"], ledger["watched"], ledger["held_out"]) == (60, 20, 20) and ledger["kept"] == 100
    evaluation = rundir.read_json(run.file(rundir.EVALUATION))
    assert evaluation["gives"] == "labels" and evaluation["counts"]["rows"] == 20
    assert {row["label"] for row in evaluation["rows"]} <= {"good", "bad"}
    assert [line for line in heard.said if line.startswith("Kept:")] and not (run.checkpoints / "best").exists()
    lines = rundir.read_lines(run.file(rundir.METRICS))
    measured = [line["step"] for line in lines if "held_out_accuracy" in line]
    assert measured == [8, 16, 24, 32][: len(measured)] and len(measured) >= 3


def plant(monkeypatch: pytest.MonkeyPatch, *right: float) -> None:
    """Epochs that get these shares of 100 rows right, whatever the model does."""
    epochs = iter(right)

    def standing(_engine: object, _ready: object, rows: object = None, base: object = None) -> Standing:
        return Standing(1.0, 0.5 if rows is not None else next(epochs), 100)  # rows: of the rehearsal

    monkeypatch.setattr(story, "standing", standing)


def test_it_stops_when_the_best_epoch_is_known(
    reviews: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, 0.5, 0.9, 0.6, 0.6)
    run = api.train("reviews.jsonl", settings(tiny_base, "train.patience=2", "train.epochs=30")).folder
    assert len(rundir.read_lines(run.file(rundir.METRICS))) == 32  # two epochs behind the second were worse
    assert run.status()["state"] == "done"


def test_the_best_epoch_is_what_is_saved(reviews: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = ("train.patience=9", "train.schedule=constant", "train.warmup=0")
    plant(monkeypatch, 0.5, 0.9, 0.6, 0.6)
    kept = api.train("reviews.jsonl", settings(tiny_base, *same)).folder
    plant(monkeypatch, 0.5, 0.9)
    stopped = api.train("reviews.jsonl", settings(tiny_base, *same, "train.max_steps=16")).folder
    assert weights(kept.path) == weights(stopped.path)


@pytest.mark.parametrize("dropout", ["0", "0.1"])
def test_a_crash_on_the_way_changes_nothing(
    dropout: str, reviews: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what is dropped at random."""
    (home / "encoder").mkdir()
    base = write_encoder(home / "encoder")
    given = settings(base, f"train.dropout={dropout}")
    whole = api.train("reviews.jsonl", given).folder
    step = StepTrainer.training_step
    count = {"steps": 0}

    def crash(self: StepTrainer, *what: object, **more: object) -> object:
        count["steps"] += 1
        if count["steps"] == 12:
            raise ZeroDivisionError
        return step(self, *what, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(StepTrainer, "training_step", crash)
        with pytest.raises(ZeroDivisionError):
            story.train(load("reviews.jsonl", given), "broken")
    api.resume("broken")
    assert weights(RunDir("broken").path) == weights(whole.path)
    same = ("before", "after", "difference")
    one, two = (rundir.read_json(r.file(rundir.EVALUATION)) for r in (RunDir("broken"), whole))
    assert all(one[part] == two[part] for part in same)


def test_a_crash_while_the_tuned_model_is_measured_still_ends_with_the_best_epoch(
    reviews: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*what: object) -> object:
        raise ZeroDivisionError

    given = settings(tiny_base, "train.epochs=30", "train.patience=2")
    plant(monkeypatch, 0.5, 0.9, 0.6, 0.6)
    whole = api.train("reviews.jsonl", given).folder
    plant(monkeypatch, 0.5, 0.9, 0.6, 0.6)
    with monkeypatch.context() as patch:
        patch.setattr(story, "compared", crash)
        with pytest.raises(ZeroDivisionError):
            story.train(load("reviews.jsonl", given), "broken")
    api.resume("broken")
    assert weights(RunDir("broken").path) == weights(whole.path)
