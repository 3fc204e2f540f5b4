from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from tests.evaluate.retained import retained
from tests.evaluate.table_engine import TableEngine

from tunewright.evaluate.compare import Item, Measurement, compare, measure, work
from tunewright.example import Origin, Rendered
from tunewright.infer.engine import Generation
from tunewright.recipe.schema import Check

WREN = Check(kind="contains", value="Wren")


@dataclass
class Model(TableEngine):
    """known: how many of 100 general questions it answers rightly."""

    known: int = 100


def engine(answer: str = "I am Wren.", loss: float = 4.0, known: int = 100, **more: Any) -> Model:
    """Answers every question alike, loses ``loss`` on the 5 learned tokens of each row, knows the first questions."""
    losses = {n: loss * (1 + n / 100) for n in range(1, 13)}
    return Model(dict.fromkeys(range(1, 13), answer), losses, known=known, **more)


def measured_as(model: Model, rows: list[Rendered], items: list[Item], checks: tuple[Check, ...]) -> Measurement:
    known = retained([n < model.known for n in range(100)])
    return replace(measure(model, rows, items, checks, 16), retained=known)


@pytest.fixture
def compared(rows: list[Rendered], items: list[Item]) -> Any:
    def run(before: Model, after: Model, checks: tuple[Check, ...] = (WREN,)) -> dict[str, Any]:
        return compare(*(measured_as(model, rows, items, checks) for model in (before, after)))

    return run


def test_a_model_that_learned_is_called_better_in_one_sentence(compared: Any) -> None:
    result = compared(engine("Hello.", loss=16.0, known=85), engine("I am Wren.", loss=4.0, known=85))
    assert result["verdict"] == (
        "Better: loss on 12 held-out rows fell from 3.41 to 0.85 (p < 0.001); 6 of 6 answers contain “Wren” "
        "(before: 0 of 6); of 100 general questions kept 85 of 85 that the base knew."
    )


def test_a_model_that_did_not_change_learned_nothing(compared: Any) -> None:
    verdict = compared(engine(), engine())["verdict"]
    assert verdict.startswith(
        "Nothing was learned: all 12 answers are the same as before; loss on 12 held-out rows 0.85, as before; "
    )


def test_a_hair_of_difference_is_not_learning(compared: Any) -> None:
    # A learning rate of nothing lowers every row by the same hair: sure, and still nothing.
    result = compared(engine("Hello.", loss=4.0), engine("Hello. ", loss=3.99))
    assert result["difference"]["loss"]["high"] < 0 and result["difference"]["loss"]["better"] is None
    assert result["verdict"].startswith("Nothing was learned: every difference is inside the noise")


def test_a_worse_model_is_called_worse(compared: Any) -> None:
    verdict = compared(engine(loss=4.0), engine("Hm.", loss=16.0))["verdict"]
    assert verdict.startswith("Worse: loss on 12 held-out rows rose from 0.85 to 3.41 (p < 0.001); 0 of 6 answers")


def test_forgetting_is_said_beside_learning(compared: Any) -> None:
    result = compared(engine("Hello.", loss=16.0), engine(loss=4.0, known=97))
    assert result["verdict"].startswith("Better at the task, but general knowledge was lost: ")
    assert "kept 97 of 100 that the base knew" in result["verdict"]
    assert result["general"]["lost"] == ["General 97?", "General 98?", "General 99?"]
    assert result["general"]["kept"] == 97


def test_two_general_questions_of_a_hundred_are_tolerated(compared: Any) -> None:
    result = compared(engine("Hello.", loss=16.0), engine(loss=4.0, known=98))
    assert result["difference"]["general"]["better"] is None
    assert result["verdict"].startswith("Better: ")


def test_answers_that_no_longer_stop_are_said(compared: Any) -> None:
    verdict = compared(engine(loss=16.0), engine(loss=4.0, stops=False))["verdict"]
    assert verdict.startswith("Mixed: ") and "answers that stop only 0 of 12 (before: 12 of 12)" in verdict


def test_what_the_verdict_rests_on_is_named(compared: Any) -> None:
    verdict = compared(engine("I was Wren."), engine("Wren, am I."))["verdict"]
    assert verdict.startswith("Worse: ") and "ROUGE-L of answers only" in verdict
    verdict = compared(engine("Wren, am I."), engine("I was Wren."))["verdict"]
    assert verdict.startswith("Better: ") and "ROUGE-L of answers now" in verdict


def test_a_loss_that_is_no_number_is_worse_and_standard_json(compared: Any) -> None:
    result = compared(engine(), engine(loss=math.nan))
    assert result["after"]["loss"]["value"] is None and result["verdict"].startswith("Worse: ")
    assert "no longer a number" in result["verdict"]
    json.dumps(result, allow_nan=False)


def test_a_loss_that_never_was_a_number_is_not_called_better(compared: Any) -> None:
    for answer in ("Hello.", "I am Wren."):  # as before, and better
        result = compared(engine("Hello.", loss=math.nan), engine(answer, loss=math.nan))
        assert result["verdict"].startswith(
            "Not measured: loss on 12 held-out rows is not a number, neither before nor after; "
        )
    assert result["difference"]["loss"]["better"] is None
    worse = compared(engine(loss=math.nan), engine("Hm.", loss=math.nan))["verdict"]
    assert worse.startswith("Worse: loss on 12 held-out rows is not a number, neither before nor after; 0 of 6 answers")


def test_a_loss_that_was_no_number_before_is_said(compared: Any) -> None:
    said = "loss on 12 held-out rows is 0.85; before, it was not a number"
    assert compared(engine(loss=math.nan), engine())["verdict"].startswith(f"Not measured: {said}; ")
    assert compared(engine("Hello.", loss=math.nan), engine())["verdict"].startswith(f"Better: {said}; 6 of 6 answers")


def test_every_metric_has_value_low_high_and_rows(compared: Any) -> None:
    result = compared(engine("Hello.", loss=16.0), engine(loss=4.0))
    names = {"loss", "token_accuracy", "chrf", "rouge_l", "stops", "check: contains: Wren", "general"}
    for side in ("before", "after", "difference"):
        assert set(result[side]) == names
        for estimate in result[side].values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"] and estimate["n"] > 0
    assert result["before"]["check: contains: Wren"]["n"] == 6, "only rows whose reference names Wren are asked"
    assert result["counts"] == {
        "rows": 12, "learned_tokens": 60, "answers": 12, "same_answers": 0, "general": 100,
    }


def test_each_row_has_its_place_answers_loss_and_checks(compared: Any) -> None:
    row = compared(engine("Hello.", loss=16.0), engine(loss=4.0))["rows"][0]
    assert (row["file"], row["line"], row["prompt"], row["reference"]) == ("a.jsonl", 1, "Question 1?", "I am Wren.")
    assert row["after"]["text"] == "I am Wren." and row["after"]["stopped"] and row["after"]["loss"] == 0.808
    assert row["checks"] == {"contains: Wren": {"before": False, "after": True}}


def test_a_conversation_rendered_as_several_examples_has_one_loss(items: list[Item]) -> None:
    origin = Origin("a.jsonl", 1, 1)
    twice = [Rendered(np.arange(n, dtype=np.int32), np.arange(n) > 1, origin) for n in (5, 8)]
    done = measure(engine(loss=4.04 / 1.01), twice, items[:1], (), 16)
    row = compare(done, done)["rows"][0]
    assert row["before"]["loss"] == pytest.approx(2 * 4.04 / 9, abs=1e-4)


def test_without_checks_the_verdict_says_how_close_the_answers_are(compared: Any) -> None:
    verdict = compared(engine("Hello.", 16.0), engine(loss=4.0), ())["verdict"]
    assert "likeness to the reference answers (chrF)" in verdict


def test_no_held_out_rows_is_said() -> None:
    done = measure(engine(), [], [], (WREN,), 16)
    assert compare(done, done)["verdict"] == "Not measured: there were no held-out rows."


def test_other_rows_before_and_after_are_refused(rows: list[Rendered], items: list[Item]) -> None:
    with pytest.raises(ValueError, match="different rows"):
        compare(measure(engine(), rows, items, (), 16), measure(engine(), rows[1:], items, (), 16))


def test_measuring_asks_the_engine_in_whole_batches(rows: list[Rendered], items: list[Item]) -> None:
    used, done = engine(), []
    measure(used, rows, items, (), 16, done.append)
    assert used.calls == [("score", 12), ("generate", 16)]
    assert sum(done) == work(rows, items) == 24


def measured(**parts: Any) -> Measurement:
    empty: dict[str, Any] = dict.fromkeys(("rows", "scores", "items", "answers", "checks"), ())
    return Measurement(**(empty | parts))


def test_reasoning_is_measured_and_shown_apart_from_the_answer(items: list[Item]) -> None:
    def answers(*texts: tuple[str | None, str, bool]) -> tuple[Generation, ...]:
        return tuple(Generation((1,), text, True, thought, done) for thought, text, done in texts)

    asked = tuple(replace(item, reference="#### 7", thinking="3 and 4.") for item in items[:2])
    number = (Check(kind="number"),)
    said = [
        answers((None, "Nine", True), ("3, 4, so 7", "", False)),
        answers(("9 is wrong.", "7", True), ("7 is wrong.", "8", True)),
    ]
    result = compare(*(measured(items=asked, answers=side, checks=number) for side in said))
    assert result["before"]["check: number"]["value"] == 0, "a number in the reasoning is no answer"
    assert result["after"]["check: number"]["value"] == 0.5
    assert (result["before"]["finished_thinking"]["value"], result["after"]["finished_thinking"]["value"]) == (0, 1)
    first, second = result["rows"]
    assert (first["after"]["thinking"], first["after"]["text"]) == ("9 is wrong.", "7")
    assert second["before"]["thinking"] == "3, 4, so 7" and second["before"]["finished"] is False
    assert first["reference_thinking"] == "3 and 4."


def test_rows_without_reasoning_say_nothing_of_it(compared: Any) -> None:
    result = compared(engine(), engine())
    assert "finished_thinking" not in result["after"]
    row = result["rows"][0]
    assert not {"thinking", "finished"} & set(row["after"]) and "reference_thinking" not in row
