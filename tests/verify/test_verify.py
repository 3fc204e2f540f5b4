"""The verb: runs of every task, what does not apply, what is written, and questions that have no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.predicting import labelled, write_rows
from tests.tiny import quick, tunewright
from tests.verify.conftest import QUICK_PROOFS, Verify, failed

from tunewright import api, rundir
from tunewright.cli.main import main
from tunewright.errors import RunError
from tunewright.rundir import RunDir
from tunewright.train.checkpoints import Checkpoint, finish, newest
from tunewright.verify import resume


def outcomes(proofs: dict[str, Any]) -> dict[str, str]:
    return {name: proof["outcome"] for name, proof in proofs.items()}


def work_in(run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(run.parents[1])
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(run.parents[1] / "cache"))
    return str(run)


# ---- every task ------------------------------------------------------------------------------------------------------


def test_a_run_of_labels(label_run: Path, monkeypatch: pytest.MonkeyPatch, verified: Verify) -> None:
    proofs = verified(work_in(label_run, monkeypatch))
    assert outcomes(proofs) == {
        "template": "pass", "stop": "not applicable", "merge": "not applicable", "effect": "pass", "identity": "pass"
    }  # fmt: skip
    assert "chooses labels" in proofs["stop"]["numbers"] and "method full" in proofs["merge"]["numbers"]
    assert proofs["effect"]["values"]["mean_change"] > 0.1


def test_a_run_of_pairs(pair_run: Path, monkeypatch: pytest.MonkeyPatch, verified: Verify) -> None:
    proofs = verified(work_in(pair_run, monkeypatch))
    assert outcomes(proofs) == dict.fromkeys(QUICK_PROOFS, "pass") | {"merge": "not applicable"}


ON_LABELS = ["task=classify", "train.epochs=2", "train.keep=last", "data.held_out=4", "train.learning_rate=0.01"]
CASES = {
    "linear": ["classify.head=linear", "train.precision=fp32"],
    "label_token": ["classify.head=label_token", "train.precision=bf16"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_classifier_with_an_adapter(case: str, home: Path, tiny_base: Path, verified: Verify) -> None:
    write_rows(home / "texts.jsonl", labelled(24))
    api.train("texts.jsonl", [f"base={tiny_base}", *ON_LABELS, *CASES[case]], out="run")
    proofs = verified()
    assert outcomes(proofs) == dict.fromkeys(QUICK_PROOFS, "pass") | {"stop": "not applicable"}
    assert proofs["merge"]["values"]["places"] == 24


def test_documents(home: Path, tiny_base: Path, verified: Verify) -> None:
    """Their rows are joined, and each one ends in the token that ends a text; nothing is answered."""
    write_rows(home / "docs.jsonl", [{"text": f"The river rises in hill {i}. " * (1 + i % 4)} for i in range(24)])
    words = [f"base={tiny_base}", "task=pretrain", "data.max_length=32", "train.precision=fp32", "data.held_out=4"]
    api.train("docs.jsonl", [*words, "train.epochs=2", "train.learning_rate=0.01"], out="run")
    proofs = verified()
    assert outcomes(proofs) == dict.fromkeys(QUICK_PROOFS, "pass")
    assert proofs["stop"]["values"] == {"learned_ends": 20, "stop_ids": [2]}


def test_conversations_of_every_shape_raise_no_alarm(home: Path, tiny_base: Path, verified: Verify) -> None:
    """Several turns, a system message, reasoning, special tokens that a person typed, and rows that had to be cut."""
    answer = {"role": "assistant", "content": "The town is called Harrow."}
    shapes: list[list[dict[str, str]]] = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}, answer],
        [{"role": "user", "content": "What?"}, answer, {"role": "user", "content": "And the river?"}, answer],
        [{"role": "user", "content": "What does <|im_end|> do?"}, answer],
        [{"role": "user", "content": "Why?"}, answer | {"content": "<think>\nA bridge.\n</think>\n\nOlder."}],
        [{"role": "user", "content": "Long " + "river " * 60}, answer, {"role": "user", "content": "And?"}, answer],
    ]
    for number in range(20):
        turns = [dict(turn) for turn in shapes[number % 5]]
        turns[0]["content"] += f" {number}"
        shapes.append(turns)
    write_rows(home / "mixed.jsonl", [{"messages": turns} for turns in shapes[5:]])
    words = ["data.max_length=64", "data.too_long=truncate", "train.epochs=3"]
    api.train("mixed.jsonl", quick(tiny_base, *words), out="run")
    proofs = verified(only=["template", "stop"])
    assert failed(proofs) == []
    assert proofs["template"]["values"]["by_transformers"] > 5


# ---- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_of_it_on_the_command_line(town: Path) -> None:
    """In a process of its own, with the killed ones that it starts; the run is left as it was."""
    before = {path: path.stat().st_mtime_ns for path in (town / "run").rglob("*")}
    done = tunewright("verify", "run", cwd=town, cache=town / "cache")
    assert done.returncode == 0, done.stderr
    assert "6 of 6 proofs hold." in done.stdout and "equal to the bit" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    kept = json.loads((town / "run" / rundir.VERIFY).read_text())
    assert [proof["name"] for proof in kept["proofs"]] == [*QUICK_PROOFS[:4], "resume", "identity"]
    assert kept["failed"] == []
    after = {path: path.stat().st_mtime_ns for path in (town / "run").rglob("*") if path.name != rundir.VERIFY}
    assert after == before
    assert list((town / "cache" / "verify").iterdir()) == []


@pytest.mark.slow
def test_a_resume_that_forgets_its_optimizer(town: Path, verified: Verify, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tools do that save weights only."""
    real = resume._run

    def forgetting(run: RunDir, die_after: int = 0) -> None:
        real(run, die_after)
        if die_after:
            kept, _skipped = newest(run.checkpoints)
            assert kept is not None
            halve_moments(kept)

    monkeypatch.setattr(resume, "_run", forgetting)
    proofs = verified(only=["resume"])
    assert failed(proofs) == ["resume"]
    assert "a training that was killed and went on ended elsewhere" in proofs["resume"]["what"]
    assert proofs["resume"]["values"]["equal"] is False and proofs["resume"]["values"]["largest_difference"] > 0


def halve_moments(kept: Checkpoint) -> None:
    import torch

    path = kept.folder / "optimizer.pt"
    stored = torch.load(path, weights_only=True)
    for state in stored["state"].values():
        state["exp_avg"] /= 2
    torch.save(stored, path)
    (kept.folder / "complete.json").unlink()
    finish(kept.folder.rename(kept.folder.with_name("again")), kept.folder.parent, kept.step, kept.token_budget)


def test_one_step_leaves_nothing_to_go_on_with(home: Path, tiny_base: Path, verified: Verify) -> None:
    api.train("town.jsonl", quick(tiny_base, "train.max_steps=1"), out="run")
    assert outcomes(verified(only=["resume"])) == {"resume": "not applicable"}


# ---- questions without an answer -------------------------------------------------------------------------------------


def test_a_run_that_is_not_finished(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir("run").set_status("stopped")
    assert main(["verify", "run"]) == 2
    said = capsys.readouterr().err
    assert "this run is not finished" in said and "tunewright resume run" in said


def test_a_proof_that_does_not_exist(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "run", "--only", "speed"]) == 2
    said = capsys.readouterr().err
    assert "there is no proof 'speed'" in said and "template, stop, merge, effect, resume, identity" in said


def test_a_manifest_that_is_damaged(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (town / "run" / rundir.MANIFEST).write_text('{"tunewright": "0.1.0"}')
    assert main(["verify", "run"]) == 2
    assert "manifest.json is damaged: it has no base" in capsys.readouterr().err


def test_no_such_run(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "runn"]) == 2
    assert "there is no run 'runn'" in capsys.readouterr().err


def test_a_part_of_it_is_not_kept(town: Path, verified: Verify) -> None:
    verified(only=["identity"])
    assert not (town / "run" / rundir.VERIFY).exists()


def test_from_python(town: Path) -> None:
    found = api.Run.open("run").verify(["effect"])
    assert found.failed == () and found.proofs[0].values["divergence"] > 0
    (town / "town.jsonl").unlink()
    found = api.Run.open("run").verify(["identity"])
    with pytest.raises(RunError, match="1 of 1 proofs failed: identity"):
        found.require()
