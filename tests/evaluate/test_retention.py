"""What is asked of base and tuned model besides the task, and what is said of it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluate.retained import retained

from tunewright.evaluate import kept, questions, retention
from tunewright.evaluate.kept import knows_little
from tunewright.evaluate.metrics import share
from tunewright.infer.open import open_base
from tunewright.infer.transformers import TransformersEngine


def test_the_bundled_questions_have_four_different_answers_and_one_question_each() -> None:
    asked = questions.questions()
    assert len(asked) >= 200 and len({one.text for one in asked}) == len(asked)
    for one in asked:
        assert len(one.options) == 4 and len(set(one.options)) == 4, one
        sizes = [len(option) for option in one.options]
        assert max(sizes) <= 3 * min(sizes) + 8, f"{one.text}: answers of one form"
    kinds = Counter((one.category, one.language) for one in asked)
    categories = {"knowledge", "common sense", "arithmetic", "language", "instructions"}
    assert set(kinds) == {(category, language) for category in categories for language in ("en", "zh")}
    assert min(kinds.values()) >= 10


def test_the_prompts_are_enough_and_all_different() -> None:
    reported, watched = questions.prompts()
    assert len(reported) >= 60 and len(watched) >= 10
    assert len({*reported, *watched}) == len(reported) + len(watched)


def test_questions_are_read_below_their_heading() -> None:
    lines = ["## common sense zh", "A? | b | c | d | e", "# a remark", "", "## language en", "F? | g | h | i | j"]
    read = questions.parse_questions("\n".join(lines))
    assert [(one.category, one.language, one.text, one.options) for one in read] == [
        ("common sense", "zh", "A?", ("b", "c", "d", "e")), ("language", "en", "F?", ("g", "h", "i", "j")),
    ]  # fmt: skip


def test_answers_are_asked_without_the_end_of_the_turn(tiny_base: Path) -> None:
    template = open_base(str(tiny_base)).template
    [one, *_more] = questions.ask(template, "Be brief.")
    asked = template.decode(one.choices.prompt)
    assert "Be brief." in asked and one.question.text in asked
    assert [template.decode(option) for option in one.choices.options] == list(one.question.options)


@pytest.fixture
def measured(home: Path, tiny_base: Path) -> Any:
    """(engine, what its base showed) of the tiny base."""
    engine = open_base(str(tiny_base))

    def run(keep_head: bool = False) -> kept.Retained:
        asked = questions.ask(engine.template)[:20]
        return retention.of_base(engine, asked, "sha", None, keep_head, lambda count: None)

    return engine, run


def test_a_base_has_not_moved_from_itself(measured: Any) -> None:
    engine, base = measured[0], measured[1]()
    same = retention.of_tuned(engine, base, lambda count: None)
    assert same.right == base.right and max(map(abs, same.moved)) < 1e-3 and abs(same.watched_moved) < 1e-4
    assert [one.text for one in same.said] == [one.text for one in base.said]


@pytest.mark.parametrize("keep_head", [True, False])
def test_a_changed_output_matrix_is_compared_with_the_bases_own(measured: Any, keep_head: bool) -> None:
    """Full training changes the matrix that the base's states would be read with."""
    engine, run = measured
    base = run(keep_head)
    with torch.no_grad():
        engine.model.get_output_embeddings().weight.mul_(3.0)
    far = retention.of_tuned(engine, base, lambda count: None)
    rows = [row for row in base.held if row.learned]
    wanted = _by_hand(engine, base, rows[0])
    found = far.moved[base.held.index(rows[0])]
    assert (found == pytest.approx(wanted, rel=1e-3)) is keep_head


def _by_hand(engine: TransformersEngine, base: kept.Retained, row: Any) -> float:
    """Divergence from the base at one row; its own matrix is a third of the model's now."""
    ids, learn = torch.from_numpy(row.ids).long()[None], torch.from_numpy(row.learn)[1:]
    with torch.no_grad():
        matrix = engine.model.get_output_embeddings().weight / 3.0
        was = (row.teacher @ matrix.T).float().log_softmax(-1)
        now = engine.model(ids).logits[0, :-1][learn].float().log_softmax(-1)
    return float((was.exp() * (was - now)).sum())


def test_a_base_is_asked_once(measured: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a damaged memory is made anew."""
    _engine, run = measured
    first = run()
    [path] = (home / "cache" / "retention").iterdir()
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert run().scores == first.scores
    monkeypatch.setattr(TransformersEngine, "choose", lambda *_what: pytest.fail("the base was asked again"))
    assert run().scores == first.scores and run().moved == first.moved


# ---- what is said --------------------------------------------------------------------------------------------------


def test_what_was_kept_lost_and_gained_is_counted_in_each_category() -> None:
    before, after = [True] * 30 + [False] * 10, [True] * 28 + [False] * 2 + [True] + [False] * 9
    found = kept.compare(retained(before), retained(after, moved=0.5))
    assert (found["asked"], found["before"], found["after"], found["kept"]) == (40, 30, 29, 28)
    assert found["lost"] == ["General 28?", "General 29?"] and found["gained"] == ["General 30?"]
    assert [(one["category"], one["before"], one["kept"]) for one in found["categories"]] == [
        ("knowledge", 20, 20), ("arithmetic", 10, 8),
    ]  # fmt: skip
    assert kept.known_line(found) == "kept 28 of 30 that the base knew"
    assert found["kept_share"]["low"] < 28 / 30 < found["kept_share"]["high"]


def test_near_ties_that_turn_are_told_from_what_is_forgotten() -> None:
    """Five questions in each case lose their right answer: by a breath, and altogether."""
    base = retained([True] * 40)
    turned = tuple((-1.0, -1.0 + 1e-3 * (1 if n < 5 else -1), -9.0, -9.0) for n in range(40))
    even = kept.Retained(base.asked, ((-1.0, -1.0 - 1e-3, -9.0, -9.0),) * 40, base.held, base.moved, base.said)
    by_a_breath = kept.compare(even, kept.Retained(base.asked, turned, base.held, base.moved, base.said))
    forgotten = kept.compare(base, retained([False] * 5 + [True] * 35))
    assert by_a_breath["kept"] == forgotten["kept"] == 35
    assert abs(by_a_breath["probability"]["difference"]["value"]) < 1e-3
    change = forgotten["probability"]["difference"]
    wanted = 5 / 40 * (math.exp(-2) - math.exp(-1)) / sum(map(math.exp, (-1, -2, -3, -4)))
    assert change["value"] == pytest.approx(wanted, abs=1e-6) and change["high"] < 0 and change["p"] < 0.05
    assert kept.sure_line(forgotten).startswith("among its four answers the right one has 64.4 % before and 59.3 %")
    assert kept.sure_line({}) == ""


def test_the_divergence_has_an_interval_and_ten_answers_stand_side_by_side() -> None:
    found = kept.compare(retained([True] * 4), retained([True] * 4, moved=0.5, said="Other."))
    far = found["divergence"]
    assert far["low"] < far["value"] < far["high"] and far["n"] == 12 and far["tokens"] == 60
    assert found["answers"][0]["before"]["text"] == "As before." and found["answers"][0]["after"]["text"] == "Other."
    assert len(found["answers"]) == 10
    assert kept.moved_line(found).startswith("moved 0.1")


def test_a_base_that_guesses_is_said_to_know_little() -> None:
    assert knows_little(share([True] * 30 + [False] * 70)) and not knows_little(share([True] * 50 + [False] * 50))
    found = kept.compare(retained([True] * 10 + [False] * 30), retained([False] * 40))
    assert kept.known_line(found) == "this base knows little of these: 10 of 40 right, where guessing gives 10"


def test_a_model_without_opinion_is_wrong_and_no_number_is_standard_json() -> None:
    even = retained([True] * 4)
    scores = ((0.0,) * 4, (math.nan,) * 4, *even.scores[2:])
    tied = kept.Retained(even.asked, scores, even.held, (math.nan,) * 12, even.said)
    found = kept.compare(even, tied)
    assert found["after"] == 2
    json.dumps(found, allow_nan=False)
