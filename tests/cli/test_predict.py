"""``tunewright predict``: every row answered once, in order, however often the work was interrupted."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.predicting import labelled, write_rows
from tests.tiny import environment

from tunewright.cli.main import main
from tunewright.errors import RunError
from tunewright.infer import predictions


@pytest.fixture
def home(label_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ten rows in ``new.jsonl``; the run is called ``RUN``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(label_run.parents[1] / "cache"))
    Path("RUN").symlink_to(label_run)
    write_rows(tmp_path / "new.jsonl", labelled(10))
    return tmp_path


@pytest.fixture
def pieces_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(predictions.CHUNK, "labels", 3)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_line_for_each_row_in_order(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "RUN", "new.jsonl", "-o", "out.jsonl"]) == 0
    got = lines(Path("out.jsonl").read_text())
    assert [row["line"] for row in got] == list(range(1, 11)) and {row["file"] for row in got} == {"new.jsonl"}
    assert [row["input"] for row in got] == labelled(10)
    assert [row["label"] for row in got] == [row["label"] for row in labelled(10)]  # which it has learned
    for row in got:
        assert row["probabilities"].keys() == {"wet", "dry"} and sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]
    said = capsys.readouterr()
    assert "10 rows; 10 in" in said.out and "rows/s" in said.out
    assert "not used, because it is what is predicted: label" in said.err


@pytest.mark.usefixtures("home", "pieces_of_three")
def test_a_file_cut_anywhere_is_finished_as_if_it_had_not_been(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["predict", "RUN", "new.jsonl", "-o", "out.jsonl"]
    assert main(args) == 0
    capsys.readouterr()
    out = Path("out.jsonl")
    whole = out.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for size in (0, 1, ends[1], ends[2] - 1, ends[2], ends[2] + 1, ends[5] + 9, ends[8], len(whole) - 1):
        out.write_bytes(whole[:size])
        assert main([*args, "--json"]) == 0
        assert out.read_bytes() == whole, size
        whole_pieces = sum(end <= size for end in ends) // 3 * 3
        assert json.loads(capsys.readouterr().out)["done_before"] == whole_pieces


@pytest.mark.usefixtures("home")
def test_a_finished_file_needs_no_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["predict", "RUN", "new.jsonl", "-o", "out.jsonl"]
    assert main(args) == 0
    monkeypatch.setattr(predictions, "open_run", None)
    assert main(args) == 0
    assert "nothing was left to do" in capsys.readouterr().out


CHANGES: dict[str, tuple[list[str], str]] = {
    "rows": (["predict", "RUN", "new.jsonl"], "it belongs to other rows"),
    "columns": (["predict", "RUN", "new.jsonl", "data.columns.text=label"], "other columns were read"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("home")
def test_other_predictions_are_not_continued(change: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "RUN", "new.jsonl", "-o", "out.jsonl"]) == 0
    before = Path("out.jsonl").read_bytes()
    args, why = CHANGES[change]
    if change == "rows":
        write_rows(Path("new.jsonl"), labelled(12))
    assert main([*args, "-o", "out.jsonl"]) == 2
    assert why in capsys.readouterr().err and Path("out.jsonl").read_bytes() == before
    assert main([*args, "-o", "out.jsonl", "--overwrite"]) == 0
    assert Path("out.jsonl").read_bytes() != before


@pytest.mark.usefixtures("home")
def test_a_file_of_somebody_else_is_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.jsonl").write_text("my notes\n")
    assert main(["predict", "RUN", "new.jsonl", "-o", "out.jsonl"]) == 2
    assert "the file holds other predictions" in capsys.readouterr().err
    assert Path("out.jsonl").read_text() == "my notes\n"
    assert main(["predict", "RUN", "new.jsonl", "-o", "new.jsonl"]) == 2
    assert "written over the rows" in capsys.readouterr().err and len(Path("new.jsonl").read_text().splitlines()) == 10


@pytest.mark.parametrize(
    ("content", "places"),
    [("a river\nthe bridge\n", [1, 2]), ('{"text": "a river"}\n{"text": "the bridge"}\n', [1, 2]),
     ('[\n  {\n    "text": "a river"\n  },\n  {\n    "text": "the bridge"\n  }\n]\n', [2, 5])],
)  # fmt: skip
@pytest.mark.usefixtures("home")
def test_standard_input_to_standard_output(
    content: str, places: list[int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = io.TextIOWrapper(io.BytesIO(content.encode()))
    monkeypatch.setattr(sys, "stdin", given)
    written = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", written)
    assert main(["predict", "RUN", "-"]) == 0
    written.seek(0)
    got = lines(written.read())
    assert [(row["file"], row["line"], row["input"]["text"]) for row in got] == [
        ("-", places[0], "a river"), ("-", places[1], "the bridge"),
    ]  # fmt: skip


@pytest.mark.usefixtures("home")
def test_two_texts_are_no_row_of_a_run_on_one(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("pairs.jsonl"), [{"premise": "a river", "hypothesis": "a bridge"}])
    assert main(["predict", "RUN", "pairs.jsonl", "-o", "out.jsonl"]) == 2
    assert "two texts" in capsys.readouterr().err and not Path("out.jsonl").exists()
    assert main(["predict", "RUN", "pairs.jsonl", "-o", "out.jsonl", "data.columns.text=premise"]) == 0


@pytest.mark.usefixtures("home")
def test_a_row_without_text_stops_before_anything_is_predicted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(Path("new.jsonl"), [*labelled(3), {"text": "  "}, *labelled(2)])
    with monkeypatch.context() as patch:
        patch.setattr(predictions, "open_run", None)
        assert main(["predict", "RUN", "new.jsonl", "-o", "out.jsonl"]) == 2
    assert "new.jsonl:4" in capsys.readouterr().err and not Path("out.jsonl").exists()
    assert main(["predict", "RUN", "new.jsonl", "-o", "out.jsonl", "--empty", "skip"]) == 0
    got = lines(Path("out.jsonl").read_text())
    assert len(got) == 6 and got[3]["skipped"] == "it has no text" and "label" in got[4]
    assert "1 skipped" in capsys.readouterr().out


@pytest.mark.usefixtures("home", "pieces_of_three")
def test_a_row_that_is_too_long_is_named_and_what_came_before_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("new.jsonl"), [*labelled(4), {"text": "the river " * 200}, *labelled(3)])
    args = ["predict", "RUN", "new.jsonl", "-o"]
    assert main([*args, "out.jsonl"]) == 2
    assert "new.jsonl:5" in capsys.readouterr().err and len(lines(Path("out.jsonl").read_text())) == 3
    assert main([*args, "out.jsonl", "--too-long", "truncate"]) == 0
    got = lines(Path("out.jsonl").read_text())
    assert got[4]["truncated"] > 100 and got[4]["label"] == "wet" and "truncated" not in got[0]
    assert "1 cut to what the model holds" in capsys.readouterr().out
    assert main([*args, "other.jsonl", "--too-long", "skip"]) == 0
    assert "too long" in lines(Path("other.jsonl").read_text())[4]["skipped"]


@pytest.mark.parametrize(
    ("content", "name", "where"),
    [('{"text": "a"}\n{"text": \n', "new.jsonl", "new.jsonl:2"), ("text,id\na,1\nb\n", "new.csv", "new.csv:3"),
     ('{"text": "a"}\n{"txt": "b"}\n', "new.jsonl", "new.jsonl:2"), ("", "new.txt", "new.txt")],
)  # fmt: skip
@pytest.mark.usefixtures("home")
def test_a_broken_row_is_found_before_a_model_is_loaded(
    content: str, name: str, where: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "open_run", None)
    Path(name).write_text(content)
    assert main(["predict", "RUN", name, "-o", "out.jsonl"]) == 2
    assert where in capsys.readouterr().err and not Path("out.jsonl").exists()


@pytest.mark.usefixtures("home")
def test_mistakes_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for args, said in (
        ([], "no file is given"), (["RUN", "a", "b"], "more than a run and a file"),
        (["RUN", "nothing.csv"], "there is no such file"), (["NO", "new.jsonl"], "there is no run 'NO'"),
        (["RUN", "new.jsonl", "--json"], "add -o FILE"),
        (["RUN", "new.jsonl", "data.columns.text=nothing"], "there is no column 'nothing'"),
        (["RUN", "new.jsonl", "data.columns.txt=text"], "txt"),
    ):  # fmt: skip
        assert main(["predict", *args]) == 2
        assert said in capsys.readouterr().err, args


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_is_counted_twice(home: Path, label_run: Path) -> None:
    write_rows(Path("many.jsonl"), labelled(5_000))
    args = [sys.executable, "-m", "tunewright", "predict", "RUN", "many.jsonl", "-o", "out.jsonl"]
    env = environment(label_run.parents[1] / "cache")
    process = subprocess.Popen(args, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = Path("out.jsonl")
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < out.read_bytes().count(b"\n") < 5_000
    subprocess.run(args, env=env, check=True, capture_output=True)
    assert [row["row"] for row in lines(out.read_text())] == list(range(1, 5_001))


@pytest.mark.usefixtures("home")
def test_what_is_to_be_replaced_stays_until_there_is_something_to_replace_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["predict", "RUN", "new.jsonl", "-o", "out.jsonl", "--overwrite"]
    state = predictions.state_of(Path("out.jsonl"))
    assert main(args) == 0
    before = Path("out.jsonl").read_bytes(), state.read_bytes()
    write_rows(Path("new.jsonl"), labelled(12))

    def gone(_run: Any) -> None:
        raise RunError("this run has no trained weights yet")

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "open_run", gone)
        assert main(args) == 2
    assert (Path("out.jsonl").read_bytes(), state.read_bytes()) == before
    with monkeypatch.context() as patch:
        patch.setattr(predictions.Predictor, "__call__", lambda *_more: gone(None))
        assert main(args) == 2
    assert (Path("out.jsonl").read_bytes(), state.read_bytes()) == before
    assert main(args) == 0 and len(lines(Path("out.jsonl").read_text())) == 12
    assert state.read_bytes() != before[1]


@pytest.mark.parametrize("out", ["RUN/manifest.json", "RUN/more/out.jsonl", "RUN/model/config.json"])
@pytest.mark.usefixtures("home")
def test_predictions_are_not_written_among_the_runs_own_files(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(out).read_bytes() if Path(out).exists() else None
    assert main(["predict", "RUN", "new.jsonl", "-o", out, "--overwrite"]) == 2
    assert "among the run's own files" in capsys.readouterr().err
    assert (Path(out).read_bytes() if Path(out).exists() else None) == before
    assert not Path("RUN/more").exists() and not predictions.state_of(Path(out)).exists()


@pytest.mark.usefixtures("home")
def test_the_rows_under_another_name_are_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("new.jsonl").read_bytes()
    os.link("new.jsonl", "hard.jsonl")
    Path("soft.jsonl").symlink_to("new.jsonl")
    for out in ("new.jsonl", "hard.jsonl", "soft.jsonl"):
        assert main(["predict", "RUN", "new.jsonl", "-o", out, "--overwrite"]) == 2
        assert "written over the rows" in capsys.readouterr().err and Path("new.jsonl").read_bytes() == before


@pytest.mark.usefixtures("home")
def test_a_damaged_state_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["predict", "RUN", "new.jsonl", "-o", "out.jsonl"]
    assert main(args) == 0
    predictions.state_of(Path("out.jsonl")).write_text("[5")
    assert main(args) == 2
    assert "nothing beside it says which run" in capsys.readouterr().err
    assert main([*args, "--overwrite"]) == 0
