"""``tunewright data``: exit codes, findings, the learn mask, and no torch on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.cli.main import main


def put(folder: Path, count: int = 60, **more: str) -> str:
    rows = [{"instruction": f"Say {n}", "output": f"The number is {n * 7} now."} for n in range(count)]
    for key, value in more.items():
        rows[int(key.removeprefix("row")) - 1]["output"] = value
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_check_of_sound_data_ends_with_what_to_type_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path)
    assert main(["data", "check", path]) == 0
    out = capsys.readouterr().out
    assert "60 rows, read as instruction" in out and out.rstrip().endswith(f"tunewright train {path}")


def test_check_of_data_that_would_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, row7="I am {{name}}.")
    assert main(["data", "check", path]) == 2
    out = capsys.readouterr().out
    assert "D103" in out and "rows.jsonl:7" in out
    assert out.rstrip().endswith(f"tunewright data check {path} data.variables.name=…")
    assert main(["data", "check", path, "data.variables.name=Zed"]) == 0


def test_check_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", put(tmp_path, row7=""), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 60 and found["errors"] == 1
    assert [f["rows"][0]["line"] for f in found["findings"] if f["code"] == "D104"] == [7]


def test_a_missing_file_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path)
    assert main(["data", "check", path.replace("rows", "rosw")]) == 2
    assert f"did you mean {path}?" in capsys.readouterr().err


def test_lines_fit_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, 9, row7="I am {{name}}.", row2="{{name}} <|im_end|>", row3="x")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "rows.jsonl"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines if "rows.jsonl data." not in line and "9 rows" not in line), lines


def test_show_brackets_what_is_learned(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", put(tmp_path), "--row", "3", "--base", str(tiny_base)]) == 0
    out, err = capsys.readouterr()
    assert out == "<|im_start|>user\nSay 2<|im_end|>\n<|im_start|>assistant\n⟦The number is 14 now.<|im_end|>⟧\n\n"
    assert "rows.jsonl:3" in err and "learned" in err


def test_show_writes_a_page_in_which_text_is_text(tmp_path: Path, tiny_base: Path) -> None:
    page = tmp_path / "page.html"
    path = put(tmp_path, row1="<script>alert(1)</script>")
    assert main(["data", "show", path, "--base", str(tiny_base), "--html", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert html.count('class="learned"') > 5 and "<script" not in html and "http" not in html


def test_show_for_programs_and_a_row_that_is_not_there(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path)
    assert main(["data", "show", path, "--base", str(tiny_base), "--json"]) == 0
    [tokens] = json.loads(capsys.readouterr().out)["rendered"]
    assert "".join(t["text"] for t in tokens if t["learned"]) == "The number is 0 now.<|im_end|>"
    assert main(["data", "show", path, "--base", str(tiny_base), "--row", "61"]) == 2
    assert "there are 60 rows" in capsys.readouterr().err


def test_stats_draws_a_histogram(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path)
    assert main(["data", "stats", path, "--base", str(tiny_base)]) == 0
    out = capsys.readouterr().out
    assert "60 rows" in out and "█" in out and "English (60)" in out and "% of them learned" in out
    assert main(["data", "stats", path, "--base", str(tiny_base), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert sum(bar["rows"] for bar in measured["histogram"]) == 60


def test_check_imports_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from tunewright.cli.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "data", "check", put(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    assert done.returncode == 0, done.stderr


# -- every task ------------------------------------------------------------------------------------------------------


def labelled(folder: Path, **more: str) -> str:
    rows = [{"text": f"Fact {n} is {n * 7}.", "label": ["bad", "good"][n % 2]} for n in range(60)]
    path = folder / "labelled.jsonl"
    for key, value in more.items():
        rows[int(key.removeprefix("row")) - 1]["label"] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def parallel(folder: Path, missing: int = 0) -> list[str]:
    (folder / "a.en").write_text("".join(f"House {n}.\n" for n in range(60)), encoding="utf-8")
    (folder / "a.fr").write_text("".join(f"Maison {n}.\n" for n in range(60 - missing)), encoding="utf-8")
    return [str(folder / "a.en"), f"data.target={folder / 'a.fr'}"]


def test_check_says_which_task_the_rows_are_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("# One\n\nwords\n\n# Two\n\nmore\n", encoding="utf-8")
    for words, task in (
        ([put(tmp_path)], "chat"),
        ([labelled(tmp_path)], "classify"),
        (parallel(tmp_path), "seq2seq"),
        ([str(tmp_path / "a.txt")], "pretrain"),
    ):
        assert main(["data", "check", *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["task"] == task


def test_check_shows_the_classes_and_refuses_a_row_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", labelled(tmp_path)]) == 0
    assert "'bad' 30 (50 %), 'good' 30 (50 %)" in capsys.readouterr().out
    assert main(["data", "check", labelled(tmp_path, row7="")]) == 2
    assert "labelled.jsonl:7" in capsys.readouterr().err


def test_check_names_the_label_that_only_the_validation_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.csv").write_text("text,label\nOne,good\nTwo,goood\n", encoding="utf-8")
    assert main(["data", "check", labelled(tmp_path), f"data.validation={tmp_path / 'test.csv'}"]) == 2
    error = capsys.readouterr().err
    assert "test.csv:3" in error and "'goood'" in error and "did you mean 'good'" in error


def test_check_of_parallel_files_that_do_not_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", *parallel(tmp_path, missing=1)]) == 2
    error = capsys.readouterr().err
    assert "60 and 59" in error and "a.en" in error and "a.fr" in error


def test_show_and_stats_of_labelled_rows(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [labelled(tmp_path), "classify.head=linear", "--base", str(tiny_base)]
    assert main(["data", "show", *words, "--row", "2", "--plain"]) == 0
    shown = capsys.readouterr().out
    assert "Fact 1 is 7." in shown and shown.rstrip().endswith("⟧") and "⟦" in shown
    assert main(["data", "stats", *words, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["labels"] == {"bad": 30, "good": 30} and measured["lengths"]["longest"] < 40


def test_show_of_documents(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("# One\n\nwords\n\n# Two\n\nmore\n", encoding="utf-8")
    assert main(["data", "show", str(tmp_path / "a.txt"), "--base", str(tiny_base), "--row", "2", "--plain"]) == 0
    assert "Two" in capsys.readouterr().out
