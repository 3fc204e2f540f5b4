from __future__ import annotations

from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from tests.report.labelled import evaluation

from tunewright.evaluate import names, table
from tunewright.evaluate.metrics import mean, mean_change, share, share_change


def printed(shown: RenderableType) -> str:
    console = Console(width=80, record=True, file=StringIO())
    console.print(shown)
    return console.export_text()


def example(better: bool | None = True) -> dict[str, Any]:
    no, yes = [False] * 9, [True] * 9
    metric = "check: contains: 小智" + "长" * 30
    return {
        "before": {"loss": mean([3.0, 3.5]).as_dict(), metric: share(no).as_dict(), "check: json": share([]).as_dict()},
        "after": {"loss": mean([1.0, 0.5]).as_dict(), metric: share(yes).as_dict(), "check: json": share([]).as_dict()},
        "difference": {
            "loss": mean_change([3.0, 3.5], [1.0, 0.5]).as_dict() | {"better": better},
            metric: share_change(no, yes).as_dict() | {"better": True},
            "check: json": share_change([], []).as_dict() | {"better": None},
        },
    }


def row(text: str) -> dict[str, Any]:
    answer = {"text": text, "stopped": False}
    asked = {"file": "a.jsonl", "line": 3, "prompt": "你是谁？", "reference": "我是小智。" * 9}
    return asked | {"before": answer, "after": answer}


def test_the_table_fits_80_columns_also_in_chinese() -> None:
    for shown in (table.table(example()), table.side_by_side(row("我是小智，一个助手。" * 40))):
        assert all(cell_len(line) <= 80 for line in printed(shown).splitlines())


def test_the_direction_of_each_difference_is_marked() -> None:
    assert "▲ better" in printed(table.table(example(True)))
    assert "▼ worse" in printed(table.table(example(False)))
    assert "≈ noise" in printed(table.table(example(None)))


def test_shares_are_shown_as_counts() -> None:
    text = printed(table.table(example()))
    assert "0 of 9" in text and "9 of 9" in text and "+9" in text and "3.25" in text and "−2.50" in text


def test_a_check_that_no_row_was_asked_is_not_shown() -> None:
    assert "JSON" not in printed(table.table(example()))


def test_an_answer_is_never_markup_and_never_moves_the_cursor() -> None:
    text = printed(table.side_by_side(row("[bold]x[/bold] \x1b[2J end")))
    assert "[bold]x[/bold]" in text and "\x1b" not in text and "(did not stop)" in text


def test_three_rows_are_spread_over_all() -> None:
    rows = [row("x") | {"line": n} for n in range(1, 11)]
    text = printed(table.answers({"rows": rows}, 3))
    assert [f"a.jsonl:{n}" in text for n in (1, 4, 7)] == [True] * 3
    assert printed(table.answers({"rows": []}, 3)).strip() == ""


def test_numbers_read_well() -> None:
    assert names.shown("loss", {"value": 0.0123, "n": 3}) == "0.012"
    assert names.shown("chrf", {"value": 0.614, "n": 3}) == "61.4 %"
    assert names.shown("loss", {"value": None, "n": 3}) == "–"
    assert names.shown_change("loss", {"value": 0.0, "n": 3}) == "0.000"
    assert names.shown_change("stops", {"value": -1 / 3, "n": 3}) == "−1"


def test_a_label_run_shows_yardsticks_and_its_surest_mistakes() -> None:
    found = evaluation(("negative", "positive", "[bold]业务咨询[/bold]"))
    shown = printed(table.table(found)) + printed(table.answers(found, 3))
    for part in ("accuracy", "macro F1", "loss", "calibration error", "the most common label", "TF-IDF", "should be"):
        assert part in shown, part
    assert all(cell_len(line) <= 80 for line in shown.splitlines())
    assert "[bold]" in shown, "a label is no markup"


def test_the_table_of_several_labels_fits_too() -> None:
    shown = printed(table.table(evaluation(("a rather long name of a label", "b", "c"), multi_label=True)))
    assert "exact match" in shown and all(cell_len(line) <= 80 for line in shown.splitlines())


def test_a_label_run_without_mistakes_shows_none() -> None:
    found = evaluation(("negative", "positive"))
    found["rows"] = [row for row in found["rows"] if row["after"]["right"]]
    assert printed(table.answers(found, 3)).strip() == ""


def test_a_metric_that_nobody_named_is_shown_by_its_key() -> None:
    made = mean([0.1, 0.3]).as_dict()
    change = mean_change([0.1, 0.3], [0.1, 0.3]).as_dict() | {"better": None}
    found = {"before": {"novel": made}, "after": {"novel": made}, "difference": {"novel": change}}
    assert "novel" in printed(table.table(found))


def test_plain_numbers_have_no_percent() -> None:
    assert names.shown("perplexity", {"value": 1234.5, "n": 3}) == "1,234"
    assert names.shown_change("perplexity", {"value": -12.34, "n": 3}) == "−12.34"
    assert names.lower_is_better("perplexity") and names.lower_is_better("calibration_error")
