"""Which way of keeping what a base can do costs little and keeps most of it?

    python benchmarks/retention.py DATA                       # every task and way: an hour on two cores
    python benchmarks/retention.py DATA --bases smollm2-135m-instruct --tasks identity --ways unprotected default
    python benchmarks/retention.py DATA --tasks medical --rows 32 --set train.epochs=2      # where time is short
    python benchmarks/retention.py DATA --tasks reviews --seeds 0 1 2      # the table shows means of the seeds
    python benchmarks/retention.py DATA --show                # the table of what is measured already
    python benchmarks/retention.py DATA --time                # what the default costs, step beside step

Three tasks: the identity example; medical reasoning (DATA/medical_cot, its shortest questions); and reviews classified
by chatting (DATA/rotten_tomatoes). Each is trained once for each way, all else being equal, and every result is a line
of a JSON Lines file, so that a benchmark that was interrupted goes on where it stopped.

The columns: tokens of held-out answers predicted right (the new task) with the difference from unprotected in points;
general questions answered right; those that the base knew and the tuned model still knows; the mean probability of
their right answers, less the base's, in points; nats a token that the model moved from its base; after each of these
four, which share of what the unprotected run lost a way undoes (where it lost any); and the processor time of the
training against that of the unprotected one. Two trainings are minutes apart, on a machine that others may share;
``--time`` takes the steps of one epoch with and without general prompts in turn, several times, and the looks of
settling as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest import mock

from tunewright.settings import before_torch

before_torch()  # safetensors.torch imports it

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import tunewright  # noqa: E402
from tunewright.data.lengths import micro_batches  # noqa: E402
from tunewright.example import Rendered  # noqa: E402
from tunewright.infer import held  # noqa: E402
from tunewright.model import fast, loss  # noqa: E402
from tunewright.recipe.load import load  # noqa: E402
from tunewright.train import again, choose, replay, settle  # noqa: E402
from tunewright.train.batches import Steps  # noqa: E402
from tunewright.train.events import Listener  # noqa: E402
from tunewright.train.learner import Learner  # noqa: E402
from tunewright.train.ready import get_ready  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("identity", "medical", "reviews")
COMMON = ["evaluate.rows=0", "save.every=100000"]  # answers take long and are no number here
MEDICAL = 72  # rows, of which 16 are held out
REVIEWS = 160, 400  # trained, held out; a point is four of these
SHRUNK = 0.7  # of the adapter that is left by the way "scaled"


class Clock(Listener):
    """Processor seconds of the steps, which other programs on the machine do not lengthen."""

    seconds = 0.0

    @contextlib.contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        began = time.process_time()
        yield lambda line: None
        self.seconds = time.process_time() - began


def rows_of(task: str, data: Path, folder: Path, medical: int = MEDICAL) -> list[str]:
    """Writes the task's rows and returns what of a recipe reads them. medical: how many rows that task has."""
    if task == "identity":
        path = ROOT / "examples" / "identity" / "identity.jsonl"
        names = ["data.variables.name=Wren", "data.variables.author=Tunewright"]
        return [f"data.train={path}", *names, "data.held_out=21"]
    if task == "medical":
        found = json.loads((data / "medical_cot" / "medical_o1_demo.json").read_text(encoding="utf-8"))
        chats = sorted(map(_medical, found), key=lambda turns: sum(map(len, turns)))[:medical]
        return [_written(chats, folder / "medical.jsonl"), "data.held_out=16"]
    chats = []
    for ending, word in (("neg", "negative"), ("pos", "positive")):
        lines = (data / "rotten_tomatoes" / f"rt-polarity.{ending}").read_text(encoding="utf-8").splitlines()
        chats += [(f"Is this review positive or negative? {line.strip()}", word) for line in lines]
    random.Random(0).shuffle(chats)
    trained, held_out = REVIEWS
    rows = _written(chats[: trained + held_out], folder / "reviews.jsonl")
    return [rows, "task=chat", f"data.held_out={held_out}"]


def _medical(row: dict[str, Any]) -> tuple[str, str]:
    fields = {name.lower(): str(value) for name, value in row.items()}
    return fields["question"], fields.get("complex_cot", "") + "\n\n" + fields.get("response", "")


def _written(chats: list[tuple[str, str]], path: Path) -> str:
    with open(path, "w", encoding="utf-8") as file:
        for question, answer in chats:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer.strip()}]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    return f"data.train={path}"


# --- the ways -------------------------------------------------------------------------------------------------------


def _words(*given: Any) -> list[Rendered]:
    """The base's answers as plain training rows: their words count, not its distribution."""
    return [Rendered(row.ids, row.learn, row.origin) for row in _answered(*given)]


def _questions(engine: Any, template: Any, base: str, system: str | None, progress: Any) -> list[Any]:
    """The base's distribution at the questions too, from where they differ, and not at its answers alone."""
    rows = _answered(engine, template, base, system, progress)
    alike = [len(set(ids)) == 1 for ids in zip(*(row.ids.tolist() for row in rows), strict=False)]
    start = alike.index(False)
    places = [np.arange(row.length) for row in rows]
    both = [
        Rendered(row.ids, (place >= start) & (place <= row.learn.nonzero()[0].max()), row.origin)
        for row, place in zip(rows, places, strict=True)
    ]
    states = held._states(engine, both)
    return [loss.Replayed(row.ids, row.learn, row.origin, one) for row, one in zip(both, states, strict=True)]


_answered = replay.answered


def _held(cost: float, most: float, pull: float) -> tuple[list[str], list[Any]]:
    """The base's distribution held to, with other constants than the default's."""
    constants = [(choose, "RETAIN_COST", cost), (choose, "MOST_RETAINED", most), (replay, "PULL", pull)]
    return ["lora.settle=false"], [mock.patch.object(*constant) for constant in constants]


# What each way changes of a recipe and of the code.
WAYS: dict[str, tuple[list[str], list[Any]]] = {
    "unprotected": (["retain=off"], []),
    "default": ([], []),
    "not settled": (["lora.settle=false"], []),  # as if _held(0.15, 2, 8)
    "questions too": (["lora.settle=false"], [mock.patch.object(replay, "answered", _questions)]),
    "tenth, pull 2": _held(0.10, 0.5, 2),
    "15 %, pull 2": _held(0.15, 0.5, 2),
    "tenth, pull 8": _held(0.10, 0.5, 8),
    "15 %, pull 4": _held(0.15, 2, 4),
    "15 %, pull 16": _held(0.15, 2, 16),
    "quarter, pull 8": _held(0.25, 2, 8),
    "words": (["lora.settle=false"], [mock.patch.object(replay, "answered", _words)]),
    "slower": (["retain=off"], []),  # half the learning rate, see `measure`
    "scaled": ([], []),  # the unprotected adapter at SHRUNK of its size, see `measure`
}


def measure(
    base: str, task: str, way: str, data: Path, folder: Path, medical: int = MEDICAL, keys: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Train and measure once; ``folder`` keeps the unprotected run for the way ``scaled``. keys: more of the recipe."""
    more, patches = WAYS[way]
    plain = folder / f"{Path(base).name}-{task}-{seed}"
    slower = ["train.learning_rate=2e-4"] if way == "slower" else []
    source, settings = _asked(base, rows_of(task, data, folder, medical), [f"seed={seed}", *more, *keys, *slower])
    clock = Clock()
    out = plain if way == "unprotected" else folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        if way == "scaled":
            shutil.copytree(plain, out)
            _scale(out / "adapter" / "adapter_model.safetensors")
            evaluation = again.evaluate(tunewright.api.rundir.RunDir(out), None, clock)
        else:
            evaluation = tunewright.train(source, settings, out=out, listener=clock).evaluation
    general = evaluation["general"]
    return {
        "base": Path(base).name, "task": task, "way": way, "seed": seed, "seconds": round(clock.seconds, 1),
        "right_before": evaluation["before"]["token_accuracy"]["value"],
        "right": evaluation["after"]["token_accuracy"]["value"],
        "loss": evaluation["after"]["loss"]["value"],
        "asked": general["asked"], "knew": general["before"], "kept": general["kept"], "after": general["after"],
        "divergence": general["divergence"]["value"],
        "sure_before": general["probability"]["before"]["value"],
        "sure": general["probability"]["after"]["value"],
    }  # fmt: skip


def _asked(base: str, rows: Sequence[str], keys: Sequence[str]) -> tuple[str, list[str]]:
    """The file of the rows, and the rest of the recipe."""
    settings = [f"base={base}", *rows, *COMMON, *keys]
    source = next(item.partition("=")[2] for item in settings if item.startswith("data.train="))
    return source, [item for item in settings if not item.startswith("data.train=")]


def _scale(path: Path) -> None:
    weights = load_file(str(path))
    save_file({name: w * SHRUNK if "lora_B" in name else w for name, w in weights.items()}, str(path))


# --- what it costs ---------------------------------------------------------------------------------------------------


def cost(base: str, task: str, data: Path, folder: Path, medical: int, keys: Sequence[str], rounds: int = 3) -> str:
    """One line: processor time that general prompts add to an epoch's steps, and settling to all of them."""
    ready = get_ready(load(*_asked(base, rows_of(task, data, folder, medical), keys)), Listener())
    recipe, rows = ready.recipe, ready.prepared.train
    learner = Learner(ready)
    general = replay.answered(
        learner.engine(), ready.prepared.codec, ready.base.sha256, recipe.data.system, lambda count: None
    )
    learner.adapt()
    learner.model.train()
    optimizer = torch.optim.AdamW([p for p in learner.model.parameters() if p.requires_grad], lr=1e-6)

    def epoch(share: float) -> float:
        steps = Steps(rows, recipe.train.batch_size, 1, recipe.seed, None, general if share else (), share)
        began = time.process_time()
        for step in map(steps.__getitem__, range(len(steps))):
            for group in micro_batches([row.length for row in step], recipe.train.token_budget):
                (objective([step[index] for index in group]) / 100).backward()
            optimizer.step()
            optimizer.zero_grad()
        return time.process_time() - began

    with fast.kernels(learner.model):
        objective = ready.task.objective(learner.model, ready.prepared.codec)
        taken = [(epoch(0), epoch(recipe.retain)) for _round in range(rounds)]
    plain = median(without for without, _with in taken) * recipe.train.epochs
    looked = settle.sample(rows, int(recipe.train.epochs * sum(row.length for row in rows)), recipe.seed)
    with fast.kernels(learner.model):
        began = time.process_time()
        settle.settle(learner.model, learner.engine(), looked, 1.0, lambda count: None)
        settling = time.process_time() - began
    added = sorted(two / one - 1 for one, two in taken)
    return (f"{Path(base).name:<22} {task:<9} {recipe.retain:>5} to a row {median(added):>+6.1%} "
            f"({added[0]:+.1%} to {added[-1]:+.1%})   settling {settling / plain:+.1%}")  # fmt: skip


# --- the table ------------------------------------------------------------------------------------------------------


LEAST = {"answers": 1, "kept": 0, "sure": 0.5, "divergence": 0}  # what must have been lost for a share of it to be said


def means(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each base, task and way: the means of its seeds, of the seeds that its unprotected run has too."""
    plain = {(line["base"], line["task"], line["seed"]) for line in lines if line["way"] == "unprotected"}
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in lines:
        if (line["base"], line["task"], line["seed"]) in plain:
            found.setdefault((line["base"], line["task"], line["way"]), []).append(line)
    return [
        {name: mean(line[name] for line in some) if isinstance(value, int | float) else value
         for name, value in some[0].items()}
        for some in found.values()
    ]  # fmt: skip


def show(lines: list[dict[str, Any]]) -> None:
    head = f"{'base':<22} {'task':<9} {'way':<16} {'right':>7} {'points':>7} {'answers':>10} {'undone':>7} "
    print(head + f"{'kept':>11} {'undone':>7} {'points':>7} {'undone':>7} {'nats':>6} {'undone':>7} {'time':>6}")
    plain = {(line["base"], line["task"]): line for line in lines if line["way"] == "unprotected"}
    for line in sorted(lines, key=lambda one: (one["base"], one["task"])):
        other = plain.get((line["base"], line["task"]))
        other = None if other is line else other
        points = f"{100 * (line['right'] - other['right']):+.1f}" if other else ""
        longer = f"{line['seconds'] / other['seconds'] - 1:+.0%}" if other and line["seconds"] else ""
        lost, before = _lost(line), _lost(other) if other else {}
        undone = {name: f"{1 - lost[name] / was:.0%}" if was > LEAST[name] else "" for name, was in before.items()}
        shown = {name: f"{undone.get(name, ''):>7}" for name in lost}
        print(f"{line['base']:<22} {line['task']:<9} {line['way']:<16} {100 * line['right']:>6.1f}% {points:>7} "
              f"{line['after']:>3.0f} of {line['asked']} {shown['answers']} "
              f"{line['kept']:>4.0f} of {line['knew']} {shown['kept']} "
              f"{-lost['sure']:>+7.1f} {shown['sure']} "
              f"{line['divergence']:>6.3f} {shown['divergence']} {longer:>6}")  # fmt: skip


def _lost(line: dict[str, Any]) -> dict[str, float]:
    """Of a run against its base: right answers in all, right answers of the base that turned, points of their
    probability, nats a token."""
    return {
        "answers": line["knew"] - line["after"], "kept": line["knew"] - line["kept"],
        "sure": 100 * (line["sure_before"] - line["sure"]), "divergence": line["divergence"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bases", nargs="*", default=["smollm2-135m-instruct"], help="names, hub ids or folders")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--results", type=Path, default=Path("retention.jsonl"))
    parser.add_argument("--rows", type=int, default=MEDICAL, help="of the medical task, the shortest")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of each recipe")
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("--time", action="store_true", help="only what the default costs")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    done = {(line["base"], line["task"], line["way"], line["seed"]) for line in lines}
    tasks = [(base, task) for base in given.bases for task in given.tasks]
    with tempfile.TemporaryDirectory() as folder:
        for base, task in tasks if given.time else []:
            print(cost(base, task, given.data.resolve(), Path(folder), given.rows, given.set), flush=True)
        every = [(*one, way, seed) for one in tasks for seed in given.seeds for way in given.ways]
        for base, task, way, seed in [] if given.show or given.time else every:
            if (Path(base).name, task, way, seed) in done:
                continue
            line = measure(base, task, way, given.data.resolve(), Path(folder), given.rows, given.set, seed)
            lines.append(line)
            with open(given.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    if not given.time:
        show(means(lines))


if __name__ == "__main__":
    main()
