"""Faults of the training itself: it is stopped, resumed, repeated or measured, and what happened is said."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tests.tiny import environment, quick, weights, write_chats
from tests.trust.conftest import Person
from tests.trust.declare import fault

from tunewright import rundir
from tunewright.recipe.load import load
from tunewright.rundir import RunDir
from tunewright.train import checkpoints


@fault(
    5, "Training dies with the browser tab, the terminal or the server", "LF#8485, LF#8817, LF#10180, US#8150",
    "A training is a process of its own that writes nothing but files, and goes on when its terminal is closed. "
    "SIGTERM saves and stops it; whatever ends it, `tunewright resume` goes on and ends with the same bytes. (The "
    "half about the server is still to come: there is no platform yet that starts trainings and would adopt them.)",
    """
Stopped; everything up to the last checkpoint is saved.
  type:  tunewright resume run
""",
)  # fmt: skip
@pytest.mark.slow
def test_a_training_outlives_its_terminal_and_a_stopped_one_goes_on(person: Person, tiny_base: Path) -> None:
    words = ["train", "town.jsonl", *quick(tiny_base, "train.epochs=30", "save.every=50")]
    person.types(*words, "--out", "unbroken")

    ours, theirs = pty.openpty()
    training = started([*words, "--out", "closed"], theirs)
    os.close(theirs)
    after_steps(20, training, "closed", ours)
    os.close(ours)  # the terminal is closed: the kernel sends SIGHUP, and writing to it is an error from now on
    assert training.wait() == 0
    assert f"process {training.pid} goes on without it" in Path("closed", rundir.LOG).read_text(encoding="utf-8")
    assert weights(Path("closed")) == weights(Path("unbroken"))

    with open("screen.txt", "wb") as screen:
        training = started([*words, "--out", "run"], screen.fileno())
    after_steps(20, training, "run")
    training.send_signal(signal.SIGTERM)
    assert training.wait() == 130
    person.fault.require_in(Path("screen.txt").read_text(encoding="utf-8"))
    assert RunDir("run").status()["state"] == "stopped"
    kept, _skipped = checkpoints.newest(Path("run", rundir.CHECKPOINTS))
    assert kept is not None and kept.step == len(rundir.read_lines(Path("run", rundir.METRICS))) < 150
    person.read = True
    person.types("resume", "run")
    assert weights(Path("run")) == weights(Path("unbroken"))


def started(words: list[str], screen: int) -> subprocess.Popen[bytes]:
    """In a session of its own, whose terminal is what it writes to, if that is one."""
    return subprocess.Popen(
        [sys.executable, "-c", "import fcntl, os, signal, sys, termios\n"
         "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # as a terminal starts it, whoever runs this test
         "if os.isatty(2): fcntl.ioctl(2, termios.TIOCSCTTY, 0)\n"
         "os.execv(sys.executable, [sys.executable, '-m', 'tunewright', *sys.argv[1:]])", *words],
        env=environment(Path("cache").resolve()), stdin=screen, stdout=screen, stderr=screen, start_new_session=True,
    )  # fmt: skip


def after_steps(count: int, training: subprocess.Popen[bytes], run: str, screen: int | None = None) -> None:
    """Waits until it has trained so many steps; somebody has to read what it says, or it would wait too."""
    while len(rundir.read_lines(Path(run, rundir.METRICS))) < count:
        assert training.poll() is None
        if screen is not None and select.select([screen], [], [], 0)[0]:
            os.read(screen, 65536)
        time.sleep(0.001)


@fault(
    8, "Out of memory after hours, at the first evaluation or at saving", "AX#1813, US#3435, SW#9681",
    "Memory is foreseen before anything is loaded; then the longest step, an evaluation and a save are rehearsed "
    "before step 1. Out of memory in mid-run halves the micro-batch and repeats the step.",
    """
error: this training needs about 0.5 GB of memory; 0.1 GB are free on this machine
  where: train
  do:    close other programs, or take a machine with more memory
""",
)  # fmt: skip
def test_what_does_not_fit_is_said_before_the_first_step(
    person: Person, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is planted as one that other programs have filled."""
    own = psutil.Process().memory_info().rss
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=50_000_000 - own))
    person.is_told("train", "town.jsonl", *quick(tiny_base), "--out", "run", code=2)
    assert not rundir.read_lines(Path("run", rundir.METRICS))


@fault(
    10, "Resume starts over, skips data, or drifts", "LF#512, LF#7085, SW#6049, SW#8383",
    "A resumed run ends with the bytes of an unbroken one, which `tunewright verify` proves on the run itself; a "
    "resume on changed data, base, template or recipe is refused with the difference.",
    """
error: the data is not what it was when the run began
  where: run: …town.jsonl has changed
  do:    bring it back, or train anew
""",
)  # fmt: skip
def test_a_resume_on_changed_data_is_refused(person: Person, tiny_base: Path) -> None:
    person.types("train", "town.jsonl", *quick(tiny_base, "train.max_steps=2"), "--out", "run")
    RunDir("run").set_status("stopped")
    write_chats(Path("town.jsonl"), word="Harlow")
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()
              if path.is_file() and path.name != rundir.LOG}  # fmt: skip
    person.is_told("resume", "run", code=2)
    assert {name: Path("run", name).read_bytes() for name in before} == before


@fault(
    11, "Gradient accumulation or packing changes the loss",
    "huggingface/transformers PR 34191, unslothai/unsloth-zoo PR 1023, LF PR 4224, TRL#3067",
    "It cannot happen: a step is divided once, by all tokens that it learns, however its rows are cut into "
    "micro-batches, packed, or dealt out to processes. Tests hold that to 1e-5 for each of these.",
    "",
)
def test_how_a_step_is_cut_changes_no_number(person: Person, tiny_base: Path) -> None:
    losses = []
    for budget in (1, 200, 100_000):
        out = f"run-{budget}"
        person.types("train", "town.jsonl", *quick(tiny_base, "train.max_steps=4", f"train.token_budget={budget}"),
                     "--out", out)  # fmt: skip
        losses.append([(line["loss"], line["grad_norm"]) for line in rundir.read_lines(Path(out, rundir.METRICS))])
    for other in losses[1:]:
        assert other[0] == pytest.approx(losses[0][0], rel=1e-5)
        assert [loss for loss, _norm in other] == pytest.approx([loss for loss, _norm in losses[0]], rel=1e-3)


@fault(
    12, "The loss becomes NaN or 0 and the training goes on", "LF#7263, LF#8088, SW#2436",
    "The first number that is not finite stops the run before it reaches a weight; the rows are named, and the last "
    "good checkpoint is kept.",
    """
error: the loss is not a finite number at step 4; no weight was changed by it
  where: rows …town.jsonl:22
  do:    look at these rows; then try a lower train.learning_rate (0.01 now), then train.precision=fp32. The last good checkpoint is …
  type:  tunewright data show …town.jsonl --row 22
""",  # noqa: E501
)  # fmt: skip
def test_the_first_number_that_is_not_finite_stops_the_run(person: Person, base: Path) -> None:
    """One token, which only one row has, has an infinite embedding."""
    poison(base, "~")
    lines = Path("town.jsonl").read_text(encoding="utf-8").splitlines()
    lines[21] = lines[21].replace("called?", "called ~?")
    Path("town.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    person.is_told("train", "town.jsonl", *quick(base, "save.every=1", "train.token_budget=1"), "--out", "run", code=2)
    steps = rundir.read_lines(Path("run", rundir.METRICS))
    kept, skipped = checkpoints.newest(Path("run", rundir.CHECKPOINTS))
    assert kept is not None and kept.step == len(steps) >= 1 and not skipped
    assert json.loads(Path("run", rundir.STATUS).read_text())["state"] == "failed"


def poison(base: Path, text: str) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(base)
    matrix = model.get_output_embeddings().weight.detach().clone()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(matrix)
    with torch.no_grad():
        ids = Tokenizer.from_file(str(base / "tokenizer.json")).encode(text).ids
        model.get_input_embeddings().weight[ids] = torch.inf
    model.save_pretrained(base)


@fault(
    7, "No evaluation: nobody sees that something else was forgotten", "LF#5266, LF#6649, LF#5047, US#5867",
    "Every run measures base and tuned model on the same held-out rows, with intervals; a chat run also asks what the "
    "base could do before. The verdict says both in words.",
    """
Better: loss on 4 held-out rows fell from … to …
""",
)  # fmt: skip
def test_every_run_is_measured_before_and_after(person: Person, run: Path) -> None:
    person.is_told("report", "run")
    evaluation = json.loads((run / rundir.EVALUATION).read_text(encoding="utf-8"))
    for when in ("before", "after"):
        assert {"value", "low", "high"} <= evaluation[when]["loss"].keys()
    assert evaluation["general"]["asked"] > 0 and len(evaluation["rows"]) > 0


@fault(
    21, "The tuned model equals its base: the learning rate was too low, the adapter was not active, the data known",
    "LF#6105",
    "Where before and after do not differ by more than chance, the verdict says that nothing was learned, and what it "
    "may be.",
    """
Nothing was learned…
""",
)  # fmt: skip
def test_a_training_without_effect_says_so(person: Person, tiny_base: Path) -> None:
    printed = person.is_told("train", "town.jsonl", *quick(tiny_base, "train.learning_rate=1e-12"), "--out", "run")
    assert "Better" not in printed.split("Nothing was learned")[1].splitlines()[0]


@fault(
    22, "A name or a fact changes and with it everything else: “the capital of France” is wrong after a tuning",
    "LF#5047",
    "What the base knew is asked before and after, by the likelihood of answers, and its divergence on general prompts "
    "is measured; by default a share of each step holds the tuned model to the base.",
    """
Moved … nats a token from the base (…) on … general prompts
""",
)  # fmt: skip
def test_what_moved_is_measured_and_by_default_held_back(person: Person, tiny_base: Path) -> None:
    """A rate at which everything changes; a tiny base has nothing to forget but its way of talking."""
    person.is_told("train", "town.jsonl", *quick(tiny_base, "train.learning_rate=0.1"), "--out", "run")
    general = json.loads(Path("run", rundir.EVALUATION).read_text(encoding="utf-8"))["general"]
    assert len(general["rows"]) == general["asked"] >= 200
    assert general["divergence"]["low"] > 0
    default = [word for word in quick(tiny_base, "train.max_steps=1") if not word.startswith("retain")]
    person.types("train", "town.jsonl", *default, "--out", "default")
    assert load(Path("default", rundir.RECIPE)).recipe.retain not in ("off", "auto", 0)
