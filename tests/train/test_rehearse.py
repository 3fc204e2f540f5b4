"""The longest step, an evaluation and a save come before step 1, and leave nothing behind but numbers."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import quick, tunewright, weights

from tunewright import api, rundir
from tunewright.cli.main import main
from tunewright.errors import ResourceError
from tunewright.train import rehearse, space
from tunewright.train import run as story
from tunewright.train.best import Standing
from tunewright.train.events import Listener
from tunewright.train.forecast import Micro, cut
from tunewright.train.space import Room

STEPS = ["train.epochs=2", "save.every=4"]


class Heard(Listener):
    """Remembers what was said, and may pull the plug at a step."""

    def __init__(self, dies_at: int = 0) -> None:
        self.said: list[str] = []
        self.dies_at = dies_at

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        def show(line: dict[str, Any]) -> None:
            if line.get("step") == self.dies_at:
                raise ZeroDivisionError

        yield show


def train(base: Path, *more: str, out: str = "run", listener: Listener | None = None) -> Path:
    return api.train("town.jsonl", quick(base, *STEPS, *more), out=out, listener=listener).folder.path


def plan_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / rundir.PLAN).read_text(encoding="utf-8")))


def small(monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
    """A machine with so much memory, asked again and again; the last size stays."""
    left = list(sizes)
    for module in (space, rehearse):
        monkeypatch.setattr(module, "room", lambda _device: Room(left.pop(0) if len(left) > 1 else left[0], "there"))


# ---- nothing is changed by it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_a_run_ends_with_the_same_bytes_as_one_without(
    method: str, home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed = train(tiny_base, f"train.method={method}", out="with")
    monkeypatch.setattr(story, "_rehearse", lambda trainer, *_more: trainer.token_budget)
    plain = train(tiny_base, f"train.method={method}", out="without")
    assert weights(rehearsed) == weights(plain)
    one, two = (rundir.read_lines(run / rundir.METRICS) for run in (rehearsed, plain))
    assert [line["loss"] for line in one] == [line["loss"] for line in two]
    names = [{str(p.relative_to(run)) for p in run.rglob("*")} for run in (rehearsed, plain)]
    assert names[0] == names[1]


def test_weights_gradients_and_random_numbers_are_what_they_were(training: Callable[..., Any]) -> None:
    made = training(lora__dropout=0.5)  # draws random numbers in every step
    before = made.weights()
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    once(made)
    assert torch.equal(made.weights(), before)
    assert all(p.grad is None for p in made.model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn[0]) and random.getstate() == drawn[1]
    assert np.random.get_state()[1].tolist() == drawn[2]
    assert list(made.run.checkpoints.iterdir()) == [] and made.trainer.optimizer is None


def once(made: Any) -> rehearse.Rehearsed:
    return rehearse.rehearse(made.trainer, ready_for(made), lambda rows: Standing(0.0), "cpu")


def ready_for(made: Any) -> Any:
    """What the rehearsal asks of a run's beginnings."""
    from types import SimpleNamespace

    from tests.tiny import prepared

    from tunewright.model import memory

    base = made.model.get_base_model() if hasattr(made.model, "get_base_model") else made.model
    facts = memory.from_config(base.config.to_dict())
    plan = SimpleNamespace(memory={"total": 1}, seconds={"training": 1.0})
    return SimpleNamespace(
        recipe=made.trainer.recipe, facts=facts, prepared=prepared(12), replayed=0, device="cpu", plan=plan
    )  # fmt: skip


# ---- what is rehearsed -------------------------------------------------------------------------------------------


def test_step_evaluation_and_save_are_really_made(home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            seen.append(name)
            return function(*args, **more)

        return called

    monkeypatch.setattr(story.StepTrainer, "accumulate", noting("step", story.StepTrainer.accumulate))
    monkeypatch.setattr(story, "standing", noting("evaluation", story.standing))
    monkeypatch.setattr(story.StepTrainer, "_save", noting("save", story.StepTrainer._save))
    heard = Heard(dies_at=1)
    with pytest.raises(ZeroDivisionError):
        train(tiny_base, listener=heard)
    assert seen == ["step", "evaluation", "save", "step"]


def test_it_is_the_step_with_the_largest_micro_batch(training: Callable[..., Any]) -> None:
    made = training(budget=80)
    found = once(made)
    sizes = [max(micro.tokens for micro in cut(made.steps.lengths(n), 80, False)) for n in range(len(made.steps))]
    rows = made.steps[found.step - 1]
    assert max(micro.tokens for micro in cut([row.length for row in rows], 80, False)) >= 0.9 * max(sizes)
    assert (found.rows, found.tokens) == (len(rows), sum(row.length for row in rows))
    assert found.disk_bytes > 0 and found.memory_bytes > 10**8


def test_time_of_all_steps_is_that_of_one_by_their_tokens(training: Callable[..., Any]) -> None:
    made = training(budget=80)
    found = once(made)
    every = [sum(micro.tokens for micro in cut(made.steps.lengths(n), 80, False)) for n in range(len(made.steps))]
    assert found.training_seconds == pytest.approx(found.step_seconds * sum(every) / every[found.step - 1], abs=0.06)


def test_lengths_of_steps_are_those_of_their_rows(training: Callable[..., Any]) -> None:
    steps = training(train__epochs=2).steps
    for number in range(len(steps)):
        assert steps.lengths(number) == [row.length for row in steps[number]]


def test_it_is_told_beside_the_plan_and_kept(home: Path, tiny_base: Path) -> None:
    heard = Heard()
    run = train(tiny_base, listener=heard)
    said = "\n".join(heard.said)
    assert "Rehearsed: step " in said and "foreseen" in said and "for all" in said
    plan = plan_of(run)
    assert plan["rehearsed"]["memory_bytes"] > 0 and plan["rehearsed"]["training_seconds"] > 0
    assert plan["foreseen"]["memory_bytes"] > 0 and plan["measured"]["seconds"] > 0


def test_going_on_is_not_rehearsed_again_unless_memory_has_shrunk(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError):
        train(tiny_base, listener=Heard(dies_at=6))
    shutil.copytree("run", "again")
    first, second = Heard(), Heard()
    api.resume("run", first)
    assert any(text.startswith("Rehearsed when the run began") for text in first.said)
    kept = plan_of(Path("again"))
    kept["rehearsed"]["memory_bytes"] = 1 << 60
    (Path("again") / rundir.PLAN).write_text(json.dumps(kept))
    api.resume("again", second)
    assert any(text.startswith("Rehearsed: step") for text in second.said)
    assert weights(Path("run")) == weights(Path("again"))


# ---- what does not fit -------------------------------------------------------------------------------------------


def test_a_rehearsal_out_of_memory_names_the_budget_that_fits(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_memory_above(monkeypatch, 100)
    with pytest.raises(ResourceError) as caught:
        train(tiny_base, "train.token_budget=400")
    assert "train.token_budget=" in str(caught.value) and "changes no result" in str(caught.value)
    budget = int(caught.value.command.rpartition("=")[2])
    assert budget <= 100
    assert not list((Path("run") / rundir.CHECKPOINTS).iterdir()), "nothing half-written"
    assert json.loads((Path("run") / rundir.STATUS).read_text())["state"] == "failed"


def test_with_fit_auto_the_budget_is_taken_and_written_down(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    with monkeypatch.context() as patch:
        out_of_memory_above(patch, 100)
        run = train(tiny_base, "train.token_budget=400", "train.fit=auto", listener=heard)
    written = (run / rundir.RECIPE).read_text()
    budget = plan_of(run)["rehearsed"]["token_budget"]
    assert budget <= 100 and f"token_budget: {budget}" in written and "rehearsal did not fit" in written
    assert f"Changed to fit: train.token_budget={budget}, which changes no result" in heard.said
    same = train(tiny_base, f"train.token_budget={budget}", out="same")
    assert weights(run) == weights(same)


def out_of_memory_above(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """The machine refuses micro-batches above so many tokens."""
    real = story.StepTrainer.accumulate

    def refusing(self: Any, rows: Any, *more: Any) -> Any:
        if max(micro.tokens for micro in cut([row.length for row in rows], self.token_budget, True)) > tokens:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, rows, *more)

    monkeypatch.setattr(story.StepTrainer, "accumulate", refusing)


def test_a_full_disk_is_noticed_before_step_1(home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(rehearse.shutil, "disk_usage", lambda _path: Usage)
    with pytest.raises(ResourceError, match=r"needs .* on the disk"):
        train(tiny_base)
    assert not (Path("run") / rundir.METRICS).exists()


def test_a_checkpoint_that_cannot_be_written_is_noticed_before_step_1(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearse.torch, "save", lambda *_what: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(ResourceError, match="cannot be written"):
        train(tiny_base)
    assert not (Path("run") / rundir.METRICS).exists()


# ---- foreseen ----------------------------------------------------------------------------------------------------


def test_too_little_memory_is_foreseen_before_a_folder_is_made(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, 1000)
    assert main(["train", "town.jsonl", *quick(tiny_base)]) == 2
    told = capsys.readouterr().err
    assert "needs about 0.5 GB of memory; 0.0 GB are there" in told and "tunewright" in told
    assert not (home / "runs").exists()


@pytest.mark.parametrize(("method", "wanted"), [("lora", "train.token_budget"), ("full", "train.token_budget")])
def test_the_smallest_change_is_the_token_budget(
    method: str, wanted: str, home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["train.token_budget=4000", f"train.method={method}", "train.batch_size=16"]
    needs = plan_json(tiny_base, *more)["memory_bytes"]
    small(monkeypatch, needs - 10_000)
    error = caught(tiny_base, *more)
    assert list(error.change.values) == [wanted] and error.change.bytes < needs


def test_then_an_adapter_instead_of_every_weight(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora, full = (plan_json(tiny_base, f"train.method={m}", "train.token_budget=50") for m in ("lora", "full"))
    assert lora["memory_bytes"] < full["memory_bytes"]
    small(monkeypatch, lora["memory_bytes"] + 1000)
    assert caught(tiny_base, "train.method=full", "train.token_budget=50").change.values == {"train.method": "lora"}


def test_with_fit_auto_what_is_foreseen_is_changed_and_written_down(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = plan_json(tiny_base, "train.token_budget=4000")["memory_bytes"]
    small(monkeypatch, needs - 10_000, 1 << 40)
    heard = Heard()
    run = train(tiny_base, "train.token_budget=4000", "train.fit=auto", listener=heard)
    assert any(text.startswith("Changed to fit: train.token_budget=") for text in heard.said)
    line = next(line for line in (run / rundir.RECIPE).read_text().splitlines() if "token_budget:" in line)
    assert "4000" not in line and "chosen: this training needs about" in line


def caught(base: Path, *more: str) -> Any:
    with pytest.raises(space.DoesNotFit) as error:
        train(base, *more)
    return error.value


def plan_json(base: Path, *more: str) -> dict[str, Any]:
    from tunewright.recipe.load import load
    from tunewright.train.ready import get_ready

    return get_ready(load("town.jsonl", quick(base, *STEPS, *more)), Listener()).plan.as_dict()


def test_a_limit_of_a_container_counts(tmp_path: Path) -> None:
    own, inside = tmp_path / "cgroup", tmp_path / "group" / "job"
    inside.mkdir(parents=True)
    own.write_text("0::/job\n")
    (inside / "memory.max").write_text("1000\n")
    (inside / "memory.current").write_text("900\n")
    (inside / "memory.stat").write_text("anon 700\ninactive_file 150\n")
    assert list(space._left_in_cgroups(tmp_path / "group", own)) == [250]
    (inside / "memory.max").write_text("max\n")
    assert list(space._left_in_cgroups(tmp_path / "group", own)) == []


def test_the_older_kind_of_container_counts_too(tmp_path: Path) -> None:
    own, inside = tmp_path / "cgroup", tmp_path / "memory" / "job"
    inside.mkdir(parents=True)
    own.write_text("5:cpu:/job\n4:memory:/job\n")
    (inside / "memory.limit_in_bytes").write_text("1000\n")
    (inside / "memory.usage_in_bytes").write_text("900\n")
    assert list(space._left_in_cgroups(tmp_path, own)) == [100]


@pytest.mark.slow
def test_a_limit_on_address_space_is_told_and_not_died_of(home: Path, tiny_base: Path) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000, 3_000_000_000))

    done = tunewright(
        "train", "town.jsonl", *quick(tiny_base), "data.max_length=512", cwd=home, cache=home / "cache",
        preexec_fn=limited,
    )  # fmt: skip
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr


def test_micro_batches_are_cut_as_in_training() -> None:
    assert cut([5, 9, 4], 9, True) == [Micro(9, 9), Micro(5, 5), Micro(4, 4)]
    assert cut([5, 9, 4, 4], 12, True) == [Micro(9, 9), Micro(10, 5), Micro(4, 4)]
    assert cut([5, 9, 4, 4], 12, False) == [Micro(9, 9), Micro(9, 4), Micro(4, 4)]
