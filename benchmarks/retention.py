"""Which way of keeping what a base can do costs little and keeps most of it?

    python benchmarks/retention.py DATA                       # every task and way: an hour on two cores
    python benchmarks/retention.py DATA --bases smollm2-135m-instruct --tasks identity --ways unprotected default
    python benchmarks/retention.py DATA --tasks medical --rows 32 --set train.epochs=2      # where time is short
    python benchmarks/retention.py DATA --show                # the table of what is measured already

Three tasks: the identity example; medical reasoning (DATA/medical_cot, its shortest questions); and reviews classified
by chatting (DATA/rotten_tomatoes). Each is trained once for each way, all else being equal, and every result is a line
of a JSON Lines file, so that a benchmark that was interrupted goes on where it stopped.

The columns: tokens of held-out answers predicted right (the new task) with the difference from unprotected in points;
general questions that the base knew and the tuned model still knows; the mean probability of their right answers, less
the base's, in points; nats a token that the model moved from its base; after each of the three, which share of what the
unprotected run lost a way undoes (of the probability only where it lost any); and the processor time of the training
against that of the unprotected one.
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
from typing import Any
from unittest import mock

from tunewright.settings import before_torch

before_torch()  # safetensors.torch imports it

from safetensors.torch import load_file, save_file  # noqa: E402

import tunewright  # noqa: E402
from tunewright.example import Rendered  # noqa: E402
from tunewright.model import loss  # noqa: E402
from tunewright.train import again, choose, replay  # noqa: E402
from tunewright.train.events import Listener  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("identity", "medical", "reviews")
COMMON = ["evaluate.rows=0", "save.every=100000", "seed=0"]  # answers take long and are no number here
MEDICAL = 72  # rows, of which 16 are held out
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
    return [_written(chats[:240], folder / "reviews.jsonl"), "task=chat", "data.held_out=80"]


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


_answered = replay.answered

def _held(cost: float, most: float, pull: float) -> tuple[list[str], list[Any]]:
    """The base's distribution held to, with other constants than the default's."""
    constants = [(choose, "RETAIN_COST", cost), (choose, "MOST_RETAINED", most), (loss, "HOLD", pull)]
    return ["lora.settle=false"], [mock.patch.object(*constant) for constant in constants]


# What each way changes of a recipe and of the code.
WAYS: dict[str, tuple[list[str], list[Any]]] = {
    "unprotected": (["retain=off"], []),
    "default": ([], []),
    "not settled": (["lora.settle=false"], []),  # as if _held(0.15, 2, 8)
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
    base: str, task: str, way: str, data: Path, folder: Path, medical: int = MEDICAL, keys: Sequence[str] = ()
) -> dict[str, Any]:
    """Train and measure once; ``folder`` keeps the unprotected run for the way ``scaled``. keys: more of the recipe."""
    more, patches = WAYS[way]
    plain = folder / f"{Path(base).name}-{task}"
    settings = [f"base={base}", *rows_of(task, data, folder, medical), *COMMON, *more, *keys]
    settings += ["train.learning_rate=2e-4"] if way == "slower" else []
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
            source = next(item.partition("=")[2] for item in settings if item.startswith("data.train="))
            others = [item for item in settings if not item.startswith("data.train=")]
            evaluation = tunewright.train(source, others, out=out, listener=clock).evaluation
    general = evaluation["general"]
    return {
        "base": Path(base).name, "task": task, "way": way, "seconds": round(clock.seconds, 1),
        "right_before": evaluation["before"]["token_accuracy"]["value"],
        "right": evaluation["after"]["token_accuracy"]["value"],
        "loss": evaluation["after"]["loss"]["value"],
        "asked": general["asked"], "knew": general["before"], "kept": general["kept"], "after": general["after"],
        "divergence": general["divergence"]["value"],
        "sure_before": general["probability"]["before"]["value"],
        "sure": general["probability"]["after"]["value"],
    }  # fmt: skip


def _scale(path: Path) -> None:
    weights = load_file(str(path))
    save_file({name: w * SHRUNK if "lora_B" in name else w for name, w in weights.items()}, str(path))


# --- the table ------------------------------------------------------------------------------------------------------


def show(lines: list[dict[str, Any]]) -> None:
    head = f"{'base':<22} {'task':<9} {'way':<16} {'right':>7} {'points':>7} {'kept':>11} {'undone':>7} "
    print(head + f"{'points':>7} {'undone':>7} {'nats':>6} {'undone':>7} {'time':>6}")
    plain = {(line["base"], line["task"]): line for line in lines if line["way"] == "unprotected"}
    for line in sorted(lines, key=lambda one: (one["base"], one["task"])):
        other = plain.get((line["base"], line["task"]))
        other = None if other is line else other
        points = f"{100 * (line['right'] - other['right']):+.1f}" if other else ""
        longer = f"{line['seconds'] / other['seconds'] - 1:+.0%}" if other and line["seconds"] else ""
        sure = 100 * (line["sure"] - line["sure_before"])
        lost = {
            "kept": (line["knew"] - line["kept"], other and other["knew"] - other["kept"]),
            "sure": (-sure, other and 100 * (other["sure_before"] - other["sure"])),
            "divergence": (line["divergence"], other and other["divergence"]),
        }
        undone = {name: f"{1 - one / two:.0%}" if two and two > 0.5 * (name == "sure") else ""
                  for name, (one, two) in lost.items()}  # fmt: skip
        print(f"{line['base']:<22} {line['task']:<9} {line['way']:<16} {100 * line['right']:>6.1f}% {points:>7} "
              f"{line['kept']:>4} of {line['knew']} {undone['kept']:>7} {sure:>+7.1f} {undone['sure']:>7} "
              f"{line['divergence']:>6.3f} {undone['divergence']:>7} {longer:>6}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bases", nargs="*", default=["smollm2-135m-instruct"], help="names, hub ids or folders")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--results", type=Path, default=Path("retention.jsonl"))
    parser.add_argument("--rows", type=int, default=MEDICAL, help="of the medical task, the shortest")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of each recipe")
    parser.add_argument("--show", action="store_true", help="train nothing")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    done = {(line["base"], line["task"], line["way"]) for line in lines}
    wanted = [(base, task, way) for base in given.bases for task in given.tasks for way in given.ways]
    with tempfile.TemporaryDirectory() as folder:
        for base, task, way in [] if given.show else wanted:
            if (Path(base).name, task, way) in done:
                continue
            line = measure(base, task, way, given.data.resolve(), Path(folder), given.rows, given.set)
            lines.append(line)
            with open(given.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    show(lines)


if __name__ == "__main__":
    main()
