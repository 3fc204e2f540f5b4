"""Several processes train as one: the same gradient, the same weights, one run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.encoders import write_encoder
from tests.predicting import labelled, write_rows
from tests.tiny import ROOT, environment, quick, rows, tunewright, weights

from tunewright import rundir
from tunewright.cli.main import main
from tunewright.train import ranks as module
from tunewright.train.batches import shares
from tunewright.train.ranks import Ranks

PATIENCE = 280  # seconds, for two processes on a machine that does other things as well
STEPS = ["train.epochs=2", "train.max_grad_norm=1", "evaluate.rows=2"]


def together(*words: str | Path, cwd: Path, count: int = 2) -> subprocess.Popen[str]:
    """``torchrun --nproc_per_node 2 …``, as a person types it."""
    place = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0"]  # a free port, so that tests do not meet
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), *place, *map(str, words)],
        cwd=cwd, env=environment(cwd / "cache", OMP_NUM_THREADS="1", PYTHONPATH=f"{ROOT / 'src'}:{ROOT}"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def said_by(process: subprocess.Popen[str]) -> str:
    """All that it printed; nothing is left running, however it ends."""
    try:
        return process.communicate(timeout=PATIENCE)[0]
    finally:
        process.terminate()  # the launcher ends its processes with itself
        process.wait()


def ended(process: subprocess.Popen[str]) -> str:
    said = said_by(process)
    assert process.returncode == 0, said
    return said


def trained(run: Path) -> dict[str, torch.Tensor]:
    [path] = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors")]
    return load_file(str(path))


def metrics(run: Path) -> list[dict[str, Any]]:
    return rundir.read_lines(run / rundir.METRICS)


# ---- sharing out -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3))
def test_every_row_of_a_step_goes_to_one_process(count: int, ranks: int, seed: int) -> None:
    step = rows(count, seed=seed)
    dealt = shares(step, ranks)
    assert sorted(row.origin.row for part in dealt for row in part) == [row.origin.row for row in step]
    tokens = [sum(row.length for row in part) for part in dealt]
    assert max(tokens) - min(tokens) <= max(row.length for row in step)


def test_one_process_does_everything_itself() -> None:
    alone = Ranks()
    assert alone.first and alone.alone(lambda: 3) == alone.of_first(lambda: 3) == alone.in_turn(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        alone.each(lambda: 1 // 0)


# ---- one step ----------------------------------------------------------------------------------------------------

ONE_STEP = """
import sys
import time
from pathlib import Path
import torch
from tests.tiny import model, recipe, rows
from tunewright.model import adapter
from tunewright.model.loss import TokenLoss
from tunewright.rundir import RunDir
from tunewright.train.batches import Steps
from tunewright.train.ranks import join
from tunewright.train.trainer import StepTrainer

ranks, out = join(), Path(sys.argv[1])
found = {}
for method in ("lora", "full", "freeze"):
    for count in (1, 2, 8):  # of one row a process has nothing to do
        for budget in (1, 80, 10_000):
            torch.manual_seed(1)
            prepared = adapter.prepare(model(), recipe(train__method=method))
            for name, parameter in prepared.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
            step = rows(count)
            run = RunDir(out / f"run-{ranks.number}")
            trainer = StepTrainer(prepared, Steps(step, count, 1, 0), recipe(), run, budget, lambda line: None,
                                  lambda: TokenLoss(prepared), ranks=ranks)
            loss = trainer.training_step(prepared, step)
            parts = [p.grad.flatten() for p in prepared.parameters() if p.grad is not None]
            found[f"{method}, {count} rows, budget {budget}"] = (float(loss), torch.cat(parts))
torch.save(found, out / f"{ranks.count}-{ranks.number}.pt")
"""


def test_two_processes_give_the_loss_and_the_gradient_of_one(tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(ONE_STEP, encoding="utf-8")
    processes = [together(script, tmp_path, cwd=tmp_path, count=count) for count in (1, 2)]
    for process in processes:
        ended(process)
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for case, (loss, gradient) in alone.items():
        assert first[case][0] == second[case][0] == pytest.approx(loss, rel=1e-5), case
        assert torch.equal(first[case][1], second[case][1]), case
        apart = (first[case][1] - gradient).abs() / gradient.abs().max()
        assert float(gradient.abs().max()) > 1e-3 and float(apart.max()) < 1e-5, case


# ---- through the public command line -----------------------------------------------------------------------------


def assert_as_one(run: Path, one: Path) -> None:
    """The same loss and gradient norm at each step and, to rounding, the same weights."""
    for mine, its in zip(metrics(run), metrics(one), strict=True):
        for name in ("step", "epoch", "learning_rate", "tokens", "learned_tokens"):
            assert mine[name] == its[name]
    first, its = metrics(run)[0], metrics(one)[0]
    assert first["loss"] == pytest.approx(its["loss"], rel=1e-5)
    assert first["grad_norm"] == pytest.approx(its["grad_norm"], rel=1e-5)
    weights, expected = trained(run), trained(one)
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    assert {p.name for p in run.iterdir()} == {p.name for p in one.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_end_with_the_weights_of_one(method: str, home: Path, tiny_base: Path) -> None:
    # Five rows a step, so that parts are unequal; replayed rows are in it too.
    words = ["train", "town.jsonl", *quick(tiny_base, *STEPS, f"train.method={method}", "train.batch_size=5",
                                           "train.learning_rate=0.001", "retain=0.2")]  # fmt: skip
    said = ended(together("-m", "tunewright", *words, "--out", "two", cwd=home))
    assert said.count("Talk:") == 1 and "2 processes" in said
    one = tunewright(*words, "--out", "one", cwd=home, cache=home / "cache")
    assert one.returncode == 0, one.stderr
    assert_as_one(home / "two", home / "one")


@pytest.mark.slow
def test_labels_and_the_best_epoch_are_those_of_one_process(home: Path) -> None:
    (home / "base").mkdir()
    write_encoder(home / "base")
    write_rows(home / "texts.jsonl", labelled(120))
    words = ["train", "texts.jsonl", f"base={home / 'base'}", "task=classify", "classify.head=linear",
             "train.method=full", "train.epochs=2", "train.precision=fp32", "data.held_out=40",
             "train.keep=best", "train.dropout=0", "train.max_grad_norm=1",
             "train.batch_size=9"]  # fmt: skip
    said = ended(together("-m", "tunewright", *words, "--out", "two", cwd=home))
    assert said.count("Kept:") == 1
    one = tunewright(*words, "--out", "one", cwd=home, cache=home / "cache")
    assert one.returncode == 0, one.stderr
    assert_as_one(home / "two", home / "one")


# ---- interruptions and failures ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_to_the_same_bytes(home: Path, tiny_base: Path) -> None:
    words = ["train", "town.jsonl", *quick(tiny_base, "train.epochs=12", "save.every=2", "lora.dropout=0.2")]
    unbroken = together("-m", "tunewright", *words, "--out", "unbroken", cwd=home)
    ended(unbroken)
    broken = together("-m", "tunewright", *words, "--out", "broken", cwd=home)
    while len(metrics(home / "broken")) < 6:  # of 60: on a busy machine many steps pass between two looks
        assert broken.poll() is None, broken.communicate()[0]
        time.sleep(0.01)
    pid = rundir.RunDir(home / "broken").status()["pid"]
    os.kill(pid, signal.SIGKILL)
    said_by(broken)
    assert broken.returncode != 0 and rundir.RunDir(home / "broken").status()["state"] == "training"
    said = ended(together("-m", "tunewright", "resume", "broken", cwd=home))
    assert said.count("Going on after step") == 1
    assert weights(home / "broken") == weights(home / "unbroken")


def test_weights_that_are_to_be_divided_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_joined", None)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "town.jsonl"]) == 2
    assert "weights cannot be divided among processes" in capsys.readouterr().err


TOLD_LATE = """
import sys, time
from tunewright.cli.main import main
from tunewright.errors import DataError, TrainingError
from tunewright.train.ranks import join

ranks = join()
if sys.argv[1] == "gone" and not ranks.first:
    sys.exit(0)

def part():
    if sys.argv[1] == "fails" and not ranks.first:
        raise DataError("a row is broken", where="town.jsonl:3")

try:
    ranks.each(part)
except TrainingError as error:
    time.sleep(8)  # of a machine that does something else
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize(
    ("way", "what"),
    [("fails", "a row is broken\n  where: town.jsonl:3"), ("gone", "another process of this training has ended")],
    ids=["fails", "gone"],
)
def test_what_went_wrong_elsewhere_is_told_however_long_that_takes(way: str, what: str, tmp_path: Path) -> None:
    script = tmp_path / "told.py"
    script.write_text(TOLD_LATE, encoding="utf-8")
    process = together(script, way, cwd=tmp_path)
    said = said_by(process)
    assert process.returncode != 0 and said.count(what) == 1, said


LEFT = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("still joined" if dist.is_initialized() else "left"))
from tunewright.train.ranks import join
join()
"""


def test_the_others_are_left_before_the_interpreter_ends(tmp_path: Path) -> None:
    # A thread of the network that outlives it aborts the process (in 3 of 50 ends), and the launcher ends all with it.
    script = tmp_path / "left.py"
    script.write_text(LEFT, encoding="utf-8")
    said = ended(together(script, cwd=tmp_path))
    assert said.count("left") == 2 and "still" not in said


@pytest.mark.parametrize("data", ["nowhere.jsonl", "broken.jsonl"])
def test_an_error_is_told_once_and_nobody_waits_for_ever(data: str, home: Path, tiny_base: Path) -> None:
    (home / "broken.jsonl").write_text('{"instruction": "a", "output": "{{name}}"}\n' * 12)
    process = together("-m", "tunewright", "train", data, *quick(tiny_base), cwd=home)
    said = said_by(process)
    assert process.returncode != 0
    assert said.count("error: ") == 1 and "  type:  tunewright" in said and "fault of Tunewright" not in said
    assert not (home / "runs").exists()
