from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.report.conftest import evaluation

from tunewright import rundir
from tunewright.errors import RunError
from tunewright.report import page, values

SOURCE = Path(__file__).parents[2] / "src"
VOID = {"meta", "br", "line", "path", "link", "img"}


class Reader(HTMLParser):
    """Collects tags and text, and that every tag that was opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def test_the_verdict_stands_at_the_top_and_every_part_is_there(make_run: Any) -> None:
    text = page.html(make_run())
    assert text.index("<h1") < text.index("Before and after")
    for part in (
        ">Better<", "Loss on 11 held-out rows fell", "Before and after", "Loss", "Answers side by side",
        "identity.jsonl:7", "我是 Wren", "What the base could do", "What is the capital of France?", "Data", "D203",
        "exact duplicate", "Recipe", "command line", "Foreseen and measured", "1 min 58 s", "Machine and versions",
        "AMD EPYC", "Tunewright 0.1.0",
    ):
        assert part in text, part


def test_the_page_is_well_formed(make_run: Any) -> None:
    assert Reader(page.html(make_run())).open == []


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(make_run: Any) -> None:
    read = Reader(page.html(make_run()))
    assert not read.tags & {"script", "link", "iframe", "object", "form", "img"}
    assert not {name for name, _value in read.attributes} & {"src", "href", "onload", "onclick", "action"}
    text = page.html(make_run())
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}"


def test_text_of_strangers_is_text(make_run: Any) -> None:
    found = evaluation()
    row = found["rows"][0]
    row["prompt"] = row["reference"] = row["before"]["text"] = row["after"]["text"] = row["file"] = EVIL
    row["checks"] = {f"contains: {EVIL}": {"before": False, "after": True}}
    found["general"]["rows"][0]["question"] = found["general"]["rows"][0]["after"]["text"] = EVIL
    found["verdict"] = f"Better: {EVIL}"
    run = make_run(evaluation=found, recipe=f"name: {EVIL} # {EVIL}\n")
    rundir.write_json(run.file(rundir.MANIFEST), {"base": {"name": EVIL, EVIL: EVIL}, "seed": EVIL})
    rundir.write_json(run.file(rundir.LEDGER), {
        "rows_in": 1, "kept": 0, "left_out": {EVIL: 1}, "rows": [{"file": EVIL, "line": 1, "reason": EVIL}],
    })
    rundir.write_json(run.file(rundir.PLAN), {"foreseen": {EVIL: EVIL}})
    finding = dict.fromkeys(("code", "severity", "message", "advice"), EVIL)
    run.append(rundir.FINDINGS, finding | {"rows": [{"file": EVIL, "line": 1}]})
    text = page.html(run)
    read = Reader(text)
    assert not read.tags & {"script", "img"} and read.open == []
    assert "&lt;script&gt;" in text and "{{ 7 * 7 }}" in read.words, "nor is it read as a template"
    assert "onerror" not in {name for name, _value in read.attributes}


def test_a_run_that_stopped_before_its_first_step_has_a_page(make_run: Any) -> None:
    run = make_run(evaluation=None, steps=0, findings=None, recipe=None, whole=False)
    run.set_status("failed", step=0, reason="the loss is not a number")
    text = page.html(run)
    assert "Failed before the first step" in text and "the loss is not a number" in text
    assert "Before and after" not in text and Reader(text).open == []


PARTS = [
    rundir.EVALUATION, rundir.METRICS, rundir.MANIFEST, rundir.LEDGER, rundir.PLAN, rundir.RECIPE, rundir.FINDINGS,
]


@pytest.mark.parametrize("gone", PARTS)
def test_any_one_file_may_be_missing(make_run: Any, gone: str) -> None:
    run = make_run()
    run.file(gone).unlink()
    assert Reader(page.html(run)).open == []


def test_a_run_that_stopped_says_how_far_it_came(make_run: Any) -> None:
    run = make_run(evaluation=None, steps=5)
    run.set_status("stopped", step=5)
    assert "Stopped after step 5" in page.html(run)


def test_a_loss_that_is_no_number_has_a_page(make_run: Any) -> None:
    found = evaluation()
    found["after"]["loss"] |= {"value": None, "low": None, "high": None}
    found["difference"]["loss"] |= {"value": None, "low": None, "high": None, "better": False}
    assert "–" in page.html(make_run(evaluation=found))


def test_nothing_learned_is_the_headline(make_run: Any) -> None:
    assert ">Nothing was learned<" in page.html(make_run(evaluation=evaluation(learned=False)))


def test_many_rows_are_shown_up_to_a_limit_that_is_said(make_run: Any) -> None:
    found = evaluation()
    found["rows"] = found["rows"] * 10
    text = page.html(make_run(evaluation=found))
    assert text.count('<article class="answer">') <= page.ROWS_SHOWN + 20
    assert "50 more rows are in evaluation.json." in text


def test_the_page_is_written_into_the_run_or_where_one_says(make_run: Any, tmp_path: Any) -> None:
    run = make_run()
    assert page.write(run) == run.file("report.html") and run.file("report.html").exists()
    assert page.write(run, tmp_path / "sent" / "on.html").read_text(encoding="utf-8") == page.html(run)


def test_a_folder_without_a_run_is_refused(tmp_path: Any) -> None:
    with pytest.raises(RunError, match="holds no run"):
        page.write(rundir.RunDir(tmp_path))


def test_the_report_needs_no_torch() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import tunewright.report.page; "
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("key", "content", "shown"),
    [
        ("memory_bytes", 1_180_000_000, "1.18 GB"), ("seconds", 59.2, "59.2 s"), ("seconds", 118, "1 min 58 s"),
        ("seconds", 3725.0, "1 h 2 min"), ("bf16", True, "yes"), ("gpu", None, "none"), ("rows", 12345, "12,345"),
        ("sha256", "ab" * 32, "abababababab…"), ("file", "a/b.jsonl", "a/b.jsonl"), ("names", ["a", 2], "a, 2"),
    ],
)
def test_facts_read_well(key: str, content: Any, shown: str) -> None:
    assert values.value(key, content) == shown
