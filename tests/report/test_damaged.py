"""Files of a run in which something is of another kind than the run wrote: named, whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.conftest import evaluation
from tests.report.labelled import evaluation as labelled

from tunewright import rundir
from tunewright.cli.main import main
from tunewright.errors import InputError, RunError
from tunewright.evaluate.across import across
from tunewright.report import page

OTHERS: tuple[Any, ...] = (None, 5, [], {}, "x", [None], float("inf"))


def mutants(path: Path) -> Iterator[str]:
    """The file with each of its keys, and of those in them, holding something else; then put back."""
    whole = path.read_text(encoding="utf-8")
    stored = json.loads(whole)
    inner = [(key, name) for key, value in stored.items() if isinstance(value, dict) for name in value]
    for keys in [*((key,) for key in stored), *inner]:
        for other in OTHERS:
            content = json.loads(whole)
            holder = content if len(keys) == 1 else content[keys[0]]
            holder[keys[-1]] = other
            path.write_text(json.dumps(content).replace("Infinity", "1e999"), encoding="utf-8")
            yield f"{path.name}: {'.'.join(keys)} is {other!r}"
    path.write_text(whole, encoding="utf-8")


@pytest.mark.parametrize("name", [rundir.EVALUATION, rundir.LEDGER, rundir.PLAN, rundir.MANIFEST, rundir.STATUS])
def test_the_page_of_a_damaged_run(name: str, make_run: Any) -> None:
    """It is written, or the file is named."""
    run = make_run()
    named = 0
    for mutant in mutants(run.file(name)):
        try:
            page.html(run)
        except RunError as error:
            named += 1
            assert f"{name} is damaged" in error.what and error.where == str(run.file(name)), mutant
    assert named or name == rundir.STATUS


def test_the_page_of_labels_that_are_damaged(make_run: Any) -> None:
    run = make_run(evaluation=labelled(("negative", "positive")))
    for mutant in mutants(run.file(rundir.EVALUATION)):
        try:
            page.html(run)
        except RunError as error:
            assert "evaluation.json is damaged" in error.what, mutant


def test_findings_that_are_damaged(make_run: Any) -> None:
    run = make_run()
    run.file(rundir.FINDINGS).write_text('5\n{"code": 5}\n{"rows": 5}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"findings\.jsonl is damaged"):
        page.html(run)


def test_what_to_do_is_said(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    rundir.write_json(run.file(rundir.EVALUATION), evaluation() | {"before": 5})
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr().err
    assert "evaluation.json is damaged" in said and f"type:  tunewright evaluate {run}" in said
    rundir.write_json(run.file(rundir.EVALUATION), evaluation())
    run.file(rundir.MANIFEST).write_text('{"base": 5}')
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr().err
    assert "manifest.json is damaged: base is not what a run writes there" in said
    assert f"type:  tunewright train {run.file(rundir.RECIPE)}" in said


@pytest.mark.parametrize("content", ["[" * 100_000, "NaN", "1" * 5000, "\ud800"])
def test_json_that_python_does_not_take(content: str, make_run: Any) -> None:
    run = make_run()
    run.file(rundir.LEDGER).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(RunError, match=r"ledger\.json is damaged"):
        page.html(run)


def test_a_damaged_evaluation_among_those_compared(make_run: Any, tmp_path: Path) -> None:
    run = make_run()
    other = rundir.RunDir(run.path.with_name("other"))
    other.path.mkdir()
    for name in (rundir.EVALUATION, rundir.MANIFEST, rundir.METRICS):
        other.file(name).write_bytes(run.file(name).read_bytes())
    for mutant in mutants(other.file(rundir.EVALUATION)):
        try:
            across([run, other])
        except InputError as error:
            told = "evaluation.json is damaged" in error.what or "not measured on the same" in error.what
            assert told, mutant
    other.append(rundir.METRICS, {"tokens_per_second": 5})
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        across([run, other])
