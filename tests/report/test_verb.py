from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner
from tests.report.labelled import evaluation

from tunewright import rundir
from tunewright.cli.report import command


def test_report_writes_page_and_curve_and_says_what_to_type_next(make_run: Any) -> None:
    run = make_run()
    result = CliRunner().invoke(command, [str(run)])
    assert result.exit_code == 0, result.output
    assert run.file(rundir.REPORT).exists() and run.file(rundir.LOSS_CURVE).exists()
    assert "9 of 9" in result.output and "report.html" in result.output
    assert result.output.splitlines()[-1] == f"Next: open the page, or type: tunewright chat {run}"
    assert all(len(line) <= 80 for line in result.output.splitlines() if str(run) not in line)


def test_json_is_for_programs(make_run: Any, tmp_path: Any) -> None:
    run = make_run()
    out = tmp_path / "page.html"
    facts = json.loads(CliRunner().invoke(command, [str(run), "--out", str(out), "--json"]).output)
    assert facts["report"] == str(out) and out.exists() and not run.file(rundir.REPORT).exists()
    assert facts["verdict"].startswith("Better") and facts["after"]["loss"]["value"] < 1


def test_a_run_that_stopped_early_has_a_report_too(make_run: Any) -> None:
    result = CliRunner().invoke(command, [str(make_run(evaluation=None, steps=0))])
    assert result.exit_code == 0 and "no evaluation yet" in result.output and "Next:" in result.output


def test_a_label_run_gets_its_matrix_and_another_next_step(make_run: Any) -> None:
    run = make_run(evaluation=evaluation(("negative", "positive")))
    result = CliRunner().invoke(command, [str(run)])
    assert result.exit_code == 0, result.output
    assert run.file(rundir.CONFUSION).exists() and "confusion.png" in result.output
    assert "TF-IDF" in result.output and result.output.splitlines()[-1].endswith(f"tunewright predict {run} FILE")
    facts = json.loads(CliRunner().invoke(command, [str(run), "--json"]).output)
    assert facts["confusion"] == str(run.file(rundir.CONFUSION))
