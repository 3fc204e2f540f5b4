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
    assert "60 rows" in out and "█" in out and "Latin script (60)" in out and "% of them learned" in out
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
