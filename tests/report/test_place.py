"""A page takes the place of an older page, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tunewright import rundir
from tunewright.cli.main import main
from tunewright.cli.report import command
from tunewright.errors import InputError
from tunewright.report import page

DATA = '{"messages": []}\n'


@pytest.mark.parametrize(
    "name", ["manifest.json", "evaluation.json", "status.json", "metrics.jsonl", "adapter/page.html", ".lock"]
)
def test_the_page_replaces_no_file_of_its_run(name: str, make_run: Any) -> None:
    run = make_run()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="would take the place of a file"):
        page.write(run, run.file(name))
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_the_page_replaces_no_data(make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data, link = make_run(), tmp_path / "town.jsonl", tmp_path / "link.html"
    data.write_text(DATA)
    link.symlink_to(data)
    for out in (data, link):
        assert main(["report", str(run), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert "is no page" in said and str(out) in said and "tunewright report --help" in said
        assert data.read_text() == DATA and link.is_symlink()
    assert not run.file(rundir.LOSS_CURVE).exists()


def test_a_pipe_stays_a_pipe(make_run: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.html")
    with pytest.raises(InputError, match="no file that a page could replace"):
        page.write(make_run(), tmp_path / "pipe.html")
    assert (tmp_path / "pipe.html").is_fifo()


@pytest.mark.parametrize("content", ["<!DOCTYPE HTML><p>older", "\ufeff\n<!doctype html>", ""])
def test_an_older_page_is_replaced(content: str, make_run: Any, tmp_path: Path) -> None:
    run, out = make_run(), tmp_path / "page.html"
    out.write_text(content, encoding="utf-8")
    assert CliRunner().invoke(command, [str(run), "--out", str(out)]).exit_code == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>\n<html")
    assert page.write(run, run.file(rundir.REPORT)) == run.file(rundir.REPORT)
    assert page.write(run, run.path / "sent" / "on.html").exists()
