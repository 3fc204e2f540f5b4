"""``tunewright train`` on the command line: exit codes, what is printed, and what is left behind when it fails."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import environment, quick, sha256, tunewright, weights, write_chats

from tunewright import rundir
from tunewright.cli.main import main
from tunewright.cli.screen import Screen


def test_the_result_is_on_standard_output_and_the_way_on_standard_error(home: Path, tiny_base: Path) -> None:
    done = tunewright("train", "town.jsonl", *quick(tiny_base), "--out", "run", cwd=home, cache=home / "cache")
    assert done.returncode == 0, done.stderr
    verdict = json.loads((home / "run" / rundir.EVALUATION).read_text())["verdict"]
    lines = done.stdout.splitlines()
    assert lines[0] == verdict and 'Ask:     tunewright chat -m "…" --compare' in lines
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in done.stdout and '{"model": "run", ' in done.stdout
    compile(done.stdout[done.stdout.index("from openai import OpenAI") :], "printed", "exec")
    for text in ("Base:", "Data:", "Chosen:", "trainable params:"):
        assert text in done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    log = (home / "run" / rundir.LOG).read_text()
    assert "trainable params:" in log and "Chosen:" in log
    written = {p.name for p in (home / "run").iterdir()}
    assert written == set(rundir.FILES) - {rundir.MODEL, rundir.CONFUSION, rundir.VERIFY, rundir.EXPORT} | {".lock"}


def test_json_for_programs(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "town.jsonl", *quick(tiny_base), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["run"] == "runs/town-1" and printed["verdict"]


def test_every_choice_is_said_with_its_reason(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"base={tiny_base}", "train.max_steps=1", "evaluate.rows=1", "--out", "run"]
    assert main(["train", "town.jsonl", *words]) == 0
    screen = (home / "run" / rundir.LOG).read_text()
    text = (home / "run" / rundir.RECIPE).read_text()
    for line in text.splitlines():
        if "# chosen: " in line:
            assert line.split("# chosen: ")[1].strip() in screen
    for key in ("train.epochs", "train.learning_rate", "train.batch_size", "data.max_length", "train.precision"):
        assert f"{key} " in screen


def test_save_every_n(home: Path, tiny_base: Path) -> None:
    args = quick(tiny_base, "save.every=3", "save.keep=9", "train.max_steps=7")
    assert main(["train", "town.jsonl", *args, "--out", "run"]) == 0
    assert sorted(p.name for p in (home / "run" / "checkpoints").iterdir()) == ["step-3", "step-6", "step-7"]


def test_variables_from_the_command_line(home: Path, tiny_base: Path) -> None:
    write_chats(home / "town.jsonl", word="{{name}}")
    assert main(["train", "town.jsonl", *quick(tiny_base), "data.variables.name=Zed", "--out", "run"]) == 0
    assert "Zed" in (home / "run" / rundir.SHOWN).read_text()


BAD: dict[str, tuple[list[str], str]] = {
    "no such file": (["nothing.jsonl"], "there is no file or folder 'nothing.jsonl'"),
    "no such recipe": (["nothing.yaml"], "there is no recipe"),
    "an empty file": (["empty.jsonl"], "empty"),
    "broken JSON": (["broken.jsonl"], "broken.jsonl:2"),
    "wrong columns": (["columns.jsonl"], "columns"),
    "few rows": (["few.jsonl"], "10"),
    "an unfilled placeholder": (["holes.jsonl"], "{{name}}"),
    "a misspelt key": (["town.jsonl", "train.epcohs=2"], "train.epochs"),
    "a key of another method": (["town.jsonl", "train.method=full", "lora.rank=8"], "lora.rank"),
    "a value of another kind": (["town.jsonl", "train.epochs=many"], "train.epochs"),
    "an unknown base": (["town.jsonl", "base=smollm2-135m-instrct"], "smollm2-135m-instruct"),
}


@pytest.fixture
def bad_files(home: Path) -> Path:
    (home / "empty.jsonl").write_text("")
    (home / "broken.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n' * 8)
    (home / "columns.jsonl").write_text('{"left": "a", "right": "b"}\n' * 20)
    write_chats(home / "few.jsonl", 9)
    write_chats(home / "holes.jsonl", word="{{name}}")
    return home


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_message_exit_code_2_and_no_run(
    kind: str, bad_files: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args, text = BAD[kind]
    base = [] if any(a.startswith("base=") for a in args) else [f"base={tiny_base}"]
    assert main(["train", *args, *base]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.out == ""
    assert captured.err.splitlines()[-1].startswith("  type:  tunewright")
    assert "Traceback" not in captured.err and captured.err.count("error: ") == 1
    assert not (bad_files / "runs").exists()


def test_a_run_folder_that_exists(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run").mkdir()
    (home / "run" / "mine.txt").write_text("mine")
    assert main(["train", "town.jsonl", *quick(tiny_base), "--out", "run"]) == 2
    assert "tunewright resume run" in capsys.readouterr().err
    assert [p.name for p in (home / "run").iterdir()] == ["mine.txt"] and not (home / "runs").exists()


def test_a_folder_that_may_not_be_written(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "file").write_text("")
    assert main(["train", "town.jsonl", *quick(tiny_base), "--out", "file/run"]) == 2
    assert "cannot write" in capsys.readouterr().err


# ---- it ends in the middle ---------------------------------------------------------------------------------------


class Interrupted(Screen):
    @contextlib.contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        def show(line: dict[str, Any]) -> None:
            if line.get("step") == 5:
                raise ZeroDivisionError("planted")

        yield show


def test_a_fault_of_ours_has_its_traceback_in_the_log_and_a_page(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright.cli.story.Screen", Interrupted)
    assert main(["train", "town.jsonl", *quick(tiny_base), "--out", "run"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err and "run/log.txt" in err
    assert "ZeroDivisionError: planted" in (home / "run" / rundir.LOG).read_text()
    assert json.loads((home / "run" / rundir.STATUS).read_text())["state"] == "failed"
    assert (home / "run" / rundir.REPORT).exists()


# Run in a process of its own, whose files may not grow beyond a limit from a certain step on: the kernel's own refusal.
FULL_DISK = """
import contextlib, resource, sys
from tunewright.cli import main, story, screen

class Full(screen.Screen):
    @contextlib.contextmanager
    def training(self, steps, done):
        def show(line):
            if line.get("step") == 5:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        yield show

story.Screen = Full
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_full_disk_in_mid_training_keeps_the_last_checkpoint(home: Path, tiny_base: Path) -> None:
    args = quick(tiny_base, "save.every=4")
    assert main(["train", "town.jsonl", *args, "--out", "unbroken"]) == 0
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "train", "town.jsonl", *args, "--out", "run"],
        cwd=home, env=environment(home / "cache"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "the disk is full" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1] == "  type:  tunewright resume run"
    assert [p.name for p in (home / "run" / "checkpoints").iterdir()] == ["step-4"]
    assert main(["resume", "run"]) == 0
    assert weights(home / "run") == weights(home / "unbroken")


NO_MEMORY = """
import resource, sys
import torch, transformers, peft
from tunewright.cli import main, story
from tunewright.train import run
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]) * 1_000_000, resource.RLIM_INFINITY))
sys.exit(main.main(sys.argv[2:]))
"""


def big_base(base: Path, home: Path) -> Path:
    """The tiny base with a width that needs hundreds of megabytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    big = Path(shutil.copytree(base, home / "big"))
    config = AutoConfig.from_pretrained(big)
    config.intermediate_size = 300_000
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(big)
    return big


@pytest.mark.slow
@pytest.mark.parametrize("room", [200, 400], ids=["for the weights", "for the training"])
def test_no_memory_is_said_without_a_traceback(room: int, home: Path, tiny_base: Path) -> None:
    args = quick(big_base(tiny_base, home), "train.method=full", "train.max_steps=2", "evaluate.rows=0")
    done = subprocess.run(
        [sys.executable, "-c", NO_MEMORY, str(room), "train", "town.jsonl", *args, "--out", "run"],
        cwd=home, env=environment(home / "cache"), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "memory" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("  type:  tunewright")


def test_trackers_are_transformers_own(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = quick(tiny_base, "train.max_steps=2", "train.report_to=[tensorboard]")
    code = main(["train", "town.jsonl", *recipe, "--out", "run"])
    if importlib.util.find_spec("tensorboard") or importlib.util.find_spec("tensorboardX"):
        assert code == 0
    else:
        assert code == 2 and "tunewright[tensorboard]" in capsys.readouterr().err
        assert not (home / "run").exists()


def test_the_base_is_left_as_it_was(home: Path, tiny_base: Path) -> None:
    before = {p.name: sha256(p) for p in tiny_base.iterdir()}
    recipe = quick(tiny_base, "train.max_steps=1", "train.method=full")
    assert main(["train", "town.jsonl", *recipe, "--out", "run"]) == 0
    assert {p.name: sha256(p) for p in tiny_base.iterdir()} == before
