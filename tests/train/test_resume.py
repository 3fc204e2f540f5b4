"""Going on after an interruption, whatever it was, ends with the same bytes as never having stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import environment, quick, tunewright, weights, write_chats

from tunewright import api, rundir
from tunewright.errors import InputError, RunError
from tunewright.rundir import RunDir
from tunewright.train import run as story
from tunewright.train.events import Listener

STEPS = ["train.epochs=3", "save.every=4", "save.keep=3"]  # 15 steps


class Stopper(Listener):
    """Presses Ctrl-C, or pulls the plug, at a step; remembers what was said."""

    def __init__(self, step: int = 0, what: BaseException | None = None) -> None:
        self.step, self.what = step, what
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        def show(line: dict[str, Any]) -> None:
            if line.get("step") == self.step:
                if self.what is not None:
                    raise self.what
                os.kill(os.getpid(), signal.SIGINT)

        yield show


@pytest.fixture(scope="module")
def originals(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that tests copy: one unbroken, and one that died after step 10 with checkpoints of steps 4 and 8."""
    folder = tmp_path_factory.mktemp("originals")
    write_chats(folder / "town.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TUNEWRIGHT_CACHE", str(folder / "cache"))
        api.train("town.jsonl", quick(tiny_base, *STEPS), out="unbroken")
        broken(tiny_base, Stopper(10, ZeroDivisionError()), out="crashed")
    return folder


@pytest.fixture
def unbroken(originals: Path, home: Path) -> Path:
    return originals / "unbroken"


# Ctrl-C pressed when step 6 is told is heard at the end of step 7.
def broken(base: Path, listener: Listener, *overrides: str, out: str = "broken") -> Path:
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
        api.train("town.jsonl", quick(base, *STEPS, *overrides), out=out, listener=listener)
    return Path(out)


def steps_of(run: Path) -> list[int]:
    return [line["step"] for line in rundir.read_lines(run / rundir.METRICS)]


def assert_same(run: Path, unbroken: Path) -> None:
    assert weights(run) == weights(unbroken)
    assert steps_of(run) == steps_of(unbroken) == list(range(1, len(steps_of(run)) + 1))
    one, two = (json.loads((r / rundir.EVALUATION).read_text()) for r in (run, unbroken))
    for rows in (one["rows"], two["rows"], one["recited"]["rows"], two["recited"]["rows"]):
        for row in rows:  # tests have their data in different folders
            row["file"] = Path(row["file"]).name
    assert one == two
    assert json.loads((run / rundir.STATUS).read_text())["state"] == "done"
    assert {p.name for p in run.iterdir()} == {p.name for p in unbroken.iterdir()}


# ---- Ctrl-C ------------------------------------------------------------------------------------------------------


def test_ctrl_c_saves_the_step_and_going_on_gives_the_same(unbroken: Path, tiny_base: Path) -> None:
    run = broken(tiny_base, Stopper(6))
    assert json.loads((run / rundir.STATUS).read_text())["state"] == "stopped"
    assert "step-7" in {p.name for p in (run / "checkpoints").iterdir()}
    listener = Stopper()
    api.resume(run, listener)
    assert "Going on after step 7." in listener.said
    assert_same(run, unbroken)


def test_ctrl_c_before_the_first_checkpoint_starts_over(unbroken: Path, tiny_base: Path) -> None:
    run = broken(tiny_base, Stopper(2, ZeroDivisionError()))
    listener = Stopper()
    api.resume(run, listener)
    assert "No checkpoint yet; starting over." in listener.said
    assert_same(run, unbroken)


def test_the_handler_of_ctrl_c_is_put_back(home: Path, tiny_base: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    broken(tiny_base, Stopper(2))
    assert signal.getsignal(signal.SIGINT) is before


# ---- a crash -----------------------------------------------------------------------------------------------------


@pytest.fixture
def crashed(originals: Path, home: Path) -> Path:
    return Path(shutil.copytree(originals / "crashed", home / "crashed"))


def test_after_a_crash_it_goes_on_from_the_last_checkpoint(crashed: Path, unbroken: Path) -> None:
    assert steps_of(crashed) == list(range(1, 11))
    listener = Stopper()
    api.resume(crashed, listener)
    assert "Going on after step 8." in listener.said
    assert_same(crashed, unbroken)


def leave_saving(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "step-8", checkpoints / ".saving" / "checkpoint-9")


def unseal(checkpoints: Path) -> None:
    (checkpoints / "step-8" / "complete.json").unlink()


def flip(checkpoints: Path) -> None:
    path = checkpoints / "step-8" / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "step"), [(leave_saving, 8), (unseal, 4), (flip, 4)])
def test_what_is_half_written_is_skipped_and_said(
    damage: Callable[[Path], None], step: int, crashed: Path, unbroken: Path
) -> None:
    damage(crashed / "checkpoints")
    listener = Stopper()
    api.resume(crashed, listener)
    assert any("skipped" in text for text in listener.said)
    assert f"Going on after step {step}." in listener.said
    assert_same(crashed, unbroken)


def test_what_was_about_to_be_renamed_is_swept_away(crashed: Path, unbroken: Path) -> None:
    """Killed between writing a file beside its place and renaming it."""
    for folder, name in ((crashed, rundir.STATUS), (crashed / "checkpoints", "complete.json")):
        (folder / f".{name}.abcd1234{rundir.PART}").write_text("{")
    api.resume(crashed)
    assert_same(crashed, unbroken)
    assert not list(crashed.rglob(f".*{rundir.PART}"))


def test_half_a_line_of_metrics_is_no_obstacle(crashed: Path, unbroken: Path) -> None:
    with open(crashed / rundir.METRICS, "a") as file:
        file.write('{"step": 11, "lo')
    api.resume(crashed)
    assert_same(crashed, unbroken)


def test_a_crash_after_the_last_step_only_measures_again(
    unbroken: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_what: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(story, "compared", crash)
        run = broken(tiny_base, Listener())
    listener = Stopper()
    api.resume(run, listener)
    assert "Going on after step 15." in listener.said
    assert_same(run, unbroken)


@pytest.mark.parametrize(
    "name", [rundir.STATUS, rundir.MANIFEST, rundir.LEDGER, rundir.SHOWN, rundir.PLAN, rundir.FINDINGS]
)
def test_a_crash_while_the_folder_was_being_opened(
    name: str, unbroken: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before ``name`` was written, after what is written before it."""
    write = rundir.write_bytes

    def crash(path: Path, content: bytes) -> None:
        if path.name == name:
            raise ZeroDivisionError
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(rundir, "write_bytes", crash)
        run = broken(tiny_base, Listener())
    api.resume(run)
    assert_same(run, unbroken)
    one, two = ([f["code"] for f in rundir.read_lines(r / rundir.FINDINGS)] for r in (run, unbroken))
    assert one == two != []


def test_a_folder_that_holds_nothing_yet_may_be_taken(home: Path) -> None:
    """Killed before the recipe was written there is nothing to resume, and nothing in the way of starting again."""
    (home / "run").mkdir()
    (home / "run" / rundir.LOCK).touch()
    (home / "run" / f".recipe.yaml.abcd1234{rundir.PART}").write_text("base: ")
    rundir.require_free("run")
    (home / "run" / rundir.RECIPE).touch()
    with pytest.raises(RunError, match="the run folder exists already"):
        rundir.require_free("run")


# ---- refusals ----------------------------------------------------------------------------------------------------


def change_data(home: Path, run: Path) -> str:
    write_chats(home / "town.jsonl", word="Harlow")
    return "the data"


def change_recipe(home: Path, run: Path) -> str:
    path = run / rundir.RECIPE
    text = path.read_text()
    assert "  learning_rate: 0.01 " in text
    path.write_text(text.replace("  learning_rate: 0.01 ", "  learning_rate: 0.02 "))
    return "train.learning_rate"


def change_base(home: Path, run: Path) -> str:
    path = home / "base" / "config.json"
    path.write_text(path.read_text().replace("1e-06", "1e-05"))
    assert "1e-05" in path.read_text()
    return "config.json"


@pytest.mark.parametrize("change", [change_data, change_recipe, change_base])
def test_what_changed_meanwhile_is_refused_with_the_difference(
    change: Callable[[Path, Path], str], home: Path, tiny_base: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, home / "base"))
    run = broken(base, Stopper(6))
    told = change(home, run)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in run.iterdir() if p.name != ".lock")
    with pytest.raises(RunError) as caught:
        story.resume(RunDir(run))
    assert "is not what it was when the run began" in str(caught.value) and told in str(caught.value)
    assert caught.value.exit_code == 2
    assert sorted((p.name, p.stat().st_mtime_ns) for p in run.iterdir() if p.name != ".lock") == before


def test_data_that_is_gone_is_an_error_that_names_it(home: Path, tiny_base: Path) -> None:
    run = broken(tiny_base, Stopper(6))
    (home / "town.jsonl").unlink()
    with pytest.raises(InputError, match=r"town\.jsonl"):
        api.resume(run)


def test_a_finished_run_is_not_trained_again(tiny_run: Path, in_home: Path) -> None:
    with pytest.raises(RunError, match="this run is finished"):
        api.resume(tiny_run)


def test_two_at_once_are_refused(crashed: Path) -> None:
    with RunDir(crashed).lock(), pytest.raises(RunError, match="another process is working on this run"):
        api.resume(crashed)


# ---- kill -9 -----------------------------------------------------------------------------------------------------

LONG = ["train.epochs=24", "save.every=2", "save.keep=2", "evaluate.rows=2"]  # 120 steps


def start(*args: str, home: Path) -> subprocess.Popen[bytes]:
    """As a person would start it: with all threads."""
    env = environment(home / "cache")
    env.pop("OMP_NUM_THREADS", None)
    with open(home / "screen.txt", "ab") as screen:
        words = [sys.executable, "-m", "tunewright", *args]
        return subprocess.Popen(words, cwd=home, env=env, stdout=screen, stderr=screen)


def wait_for(process: subprocess.Popen[bytes], what: Callable[[], bool], home: Path) -> None:
    end = time.monotonic() + 120
    while not what():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError("it ended before it could be killed\n" + (home / "screen.txt").read_text())
        time.sleep(0.0005)


def status(run: Path) -> dict[str, Any]:
    return RunDir(run).status() if (run / rundir.STATUS).exists() else {}


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_bytes(home: Path, tiny_base: Path) -> None:
    """Once early, once in the middle of a save, once late, each at a moment drawn anew in every test."""
    recipe = quick(tiny_base, *LONG)
    unbroken = start("train", "town.jsonl", *recipe, "--out", "unbroken", home=home)
    assert unbroken.wait() == 0, (home / "screen.txt").read_text()
    run = home / "run"
    saving = run / "checkpoints" / ".saving"
    draw = random.Random()
    moments: list[Callable[[], bool]] = [
        lambda: status(run).get("state") == "training" and len(steps_of(run)) > first,
        lambda: any(Path(folder, name).suffix == ".pt" for folder, _, names in os.walk(saving) for name in names),
        lambda: len(steps_of(run)) > second,
    ]
    first, second = draw.randrange(1, 30), draw.randrange(60, 110)
    verb = ["train", "town.jsonl", *recipe, "--out", "run"]
    for moment in moments:
        process = start(*verb, home=home)
        wait_for(process, moment, home)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert status(run)["state"] != "done"
        verb = ["resume", "run"]
    assert start(*verb, home=home).wait() == 0, (home / "screen.txt").read_text()
    assert_same(run, home / "unbroken")


@pytest.mark.slow
def test_ctrl_c_on_the_command_line_says_how_to_go_on(home: Path, tiny_base: Path) -> None:
    process = start("train", "town.jsonl", *quick(tiny_base, *LONG), "--out", "run", home=home)
    run = home / "run"
    wait_for(process, lambda: (run / rundir.METRICS).exists() and len(steps_of(run)) > 3, home)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    screen = (home / "screen.txt").read_text()
    assert "tunewright resume run" in screen and "Traceback" not in screen
    done = tunewright("resume", "run", cwd=home, cache=home / "cache")
    assert done.returncode == 0 and status(run)["state"] == "done"
