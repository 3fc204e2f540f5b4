"""The page and the picture of a run that chooses labels."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from tests.report.labelled import evaluation
from tests.report.test_page import EVIL, Reader

from tunewright import rundir
from tunewright.report import confusion, labels, page

TWO = ("negative", "positive")


def test_the_parts_of_a_label_run_are_there(make_run: Any) -> None:
    text = page.html(make_run(evaluation=evaluation(TWO)))
    for part in (
        "accuracy", "macro F1", "calibration error", "Was a language model worth it?",
        "TF-IDF with logistic regression", "always “negative”", "Label by label", "precision",
        "Which label is taken for which", "<svg class=\"matrix\"",
        "Do the probabilities mean what they say?", "Per label, at each step.", "Wrong ones first:", "reviews.csv:",
    ):
        assert part in text, part
    assert "Answers side by side" not in text and "of them answered" not in text
    assert Reader(text).open == []


@pytest.mark.parametrize("count", [2, 7, 30, 100])
def test_any_number_of_labels_has_a_well_formed_page_and_a_picture(make_run: Any, count: int) -> None:
    run = make_run(evaluation=evaluation(tuple(f"label {n}" for n in range(count))))
    read = Reader(page.html(run))
    assert read.open == [] and not read.tags & {"script", "img", "link"}
    path = confusion.write(run)
    assert path is not None and path.name == "confusion.png"
    picture = imread(io.BytesIO(path.read_bytes()))
    assert min(picture.shape[:2]) > 200 and path.stat().st_size < 300_000


def test_several_labels_to_a_row_have_a_page_without_a_matrix(make_run: Any) -> None:
    run = make_run(evaluation=evaluation(("fire", "flood", "storm"), multi_label=True))
    text = page.html(run)
    assert Reader(text).open == [] and "exact match" in text and "micro F1" in text and "Label by label" in text
    assert "taken for which" not in text and confusion.write(run) is None


def test_labels_and_texts_of_strangers_are_text(make_run: Any) -> None:
    found = evaluation((EVIL, "fine"))
    found["rows"][0]["text"] = EVIL
    found["labels"]["yardsticks"][0]["settings"] = EVIL
    text = page.html(make_run(evaluation=found))
    assert not Reader(text).tags & {"script", "img"} and "&lt;script&gt;" in text


def test_wrong_rows_come_first_and_the_surest_of_them_at_the_top(make_run: Any) -> None:
    found = evaluation(TWO)
    wrong = [row for row in found["rows"] if not row["after"]["right"]]
    surest = max(wrong, key=lambda row: row["after"]["loss"])
    shown = labels.content(found, 60)
    assert shown is not None and shown["wrong"] == len(wrong) > 1
    assert shown["rows"][0]["place"].endswith(f":{surest['line']}")
    assert [row["after"]["right"] for row in shown["rows"]] == [False] * len(wrong) + [True] * (60 - len(wrong))
    assert shown["rows_left"] == 240 - 60


def test_many_labels_begin_with_the_weakest() -> None:
    shown = labels.content(evaluation(tuple(f"label {n}" for n in range(40))), 10)
    assert shown is not None and len(shown["weakest"]) == 10 and len(shown["classes"]) == 40
    lowest = [line["width"] for line in shown["weakest"]]
    assert lowest == sorted(lowest) and lowest[0] == min(line["width"] for line in shown["classes"])


def test_the_tone_of_the_page_is_that_of_the_verdict(make_run: Any) -> None:
    """Overconfidence alone does not turn a better model red, and a model below the majority is not green."""
    found = evaluation(TWO)
    found["difference"]["calibration_error"]["better"] = False
    assert 'class="good"' in page.html(make_run(evaluation=found))
    for change in found["labels"]["yardsticks"][0]["difference"].values():
        change["better"] = None
    assert 'class="plain"' in page.html(make_run(evaluation=found))


def test_a_label_run_without_yardsticks_or_rows_has_a_page(make_run: Any) -> None:
    found = evaluation(TWO)
    found["labels"]["yardsticks"], found["rows"] = [], []
    found["labels"]["before"]["calibration"] = found["labels"]["after"]["calibration"] = []
    text = page.html(make_run(evaluation=found))
    assert Reader(text).open == [] and "worth it" not in text and "mean what they say" not in text


def test_what_an_untrained_head_was_before_is_said(make_run: Any) -> None:
    run = make_run(evaluation=evaluation(TWO))
    assert "had learned nothing" not in page.html(run)
    rundir.write_json(run.file(rundir.MANIFEST), {"recipe": {"classify.head": "linear"}})
    assert "had learned nothing" in page.html(run)


# --- the matrix -----------------------------------------------------------------------------------------------------

COUNTS = [[8, 2, 0], [0, 5, 0], [1, 0, 0]]
THREE = ("bad", "fair", "good")


def test_cells_lie_where_their_labels_are() -> None:
    drawn = confusion.matrix(COUNTS, THREE)
    cells = {(round((c.y - drawn.top) / drawn.cell), round((c.x - drawn.left) / drawn.cell)): c for c in drawn.cells}
    assert {place: cell.count for place, cell in cells.items()} == {(0, 0): 8, (0, 1): 2, (1, 1): 5, (2, 0): 1}
    assert cells[0, 0].right and not cells[0, 1].right
    assert cells[0, 0].strength == 0.8 and cells[2, 0].strength == 1.0, "shaded by the share of the line"
    assert cells[0, 1].title == "bad → fair: 2 of 10"


def test_the_drawing_is_told_in_words_too() -> None:
    assert confusion.matrix(COUNTS, THREE).summary == (
        "13 of 16 rows got the right label. Most often bad was taken for fair (2 rows)."
    )
    assert confusion.mistakes(COUNTS, THREE) == [("bad", "fair", 2), ("good", "bad", 1)]


def test_a_label_that_no_row_has_leaves_its_line_empty() -> None:
    drawn = confusion.matrix([[3, 0], [0, 0]], TWO)
    assert len(drawn.cells) == 1
    assert confusion.png([[3, 0], [0, 0]], TWO)


def test_names_too_long_are_cut_with_the_whole_kept() -> None:
    name = confusion.matrix([[1]], ["a label with a name that is much too long"]).rows[0]
    assert name.short.endswith("…") and len(name.short) <= 24 and name.full.endswith("too long")


@pytest.mark.parametrize("name", ["业务咨询", "ไทย", "$x^2$", "a\nb", "😀", "ไทย业务"])
def test_any_name_can_be_drawn(name: str) -> None:
    """No box for a letter that no font has, no formula for a dollar, and no warning (they are errors here)."""
    assert confusion.png([[2, 1], [0, 3]], [name, "other"])


def test_a_wrong_cell_has_another_colour_than_a_right_one() -> None:
    picture = imread(io.BytesIO(confusion.png([[5, 0], [5, 0]], TWO)))[..., :3]
    colours = [np.array([int(code[at : at + 2], 16) / 255 for at in (1, 3, 5)])
               for code in (confusion.ACCENT, confusion.BAD)]  # fmt: skip
    for colour in colours:
        assert (np.abs(picture - colour).max(axis=2) < 0.01).sum() > 1000


def test_the_same_run_gives_the_same_picture() -> None:
    assert confusion.png(COUNTS, THREE) == confusion.png(COUNTS, THREE)


def test_a_run_that_answers_has_no_matrix(make_run: Any) -> None:
    assert confusion.write(make_run()) is None and confusion.write(make_run(evaluation=None)) is None


# --- calibration ----------------------------------------------------------------------------------------------------


def test_a_dot_lies_at_what_was_said_and_what_came_true() -> None:
    drawn = labels.reliability([], [
        {"low": 0.8, "high": 0.8667, "confidence": 0.85, "accuracy": 0.6, "count": 30},
        {"low": 0.9333, "high": 1.0, "confidence": 0.97, "accuracy": 0.9, "count": 120},
    ])  # fmt: skip
    assert drawn is not None and drawn.before == () and drawn.before_path == ""
    assert [dot[:2] for dot in drawn.after] == [(850, 400), (970, 100)]
    assert drawn.after[0][2] < drawn.after[1][2], "more rows, larger dot"
    assert re.search("120 times.*97 % sure; 90 %", drawn.summary)
