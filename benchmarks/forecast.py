"""How near the forecast comes: memory and time of six trainings, foreseen, rehearsed and measured.

    python benchmarks/forecast.py SHORT LONG [--only lora-short …] [--rounds 3] [--steps 4] [--base NAME]

SHORT and LONG are files of rows (alpaca and medical reasoning); from SHORT come rows of up to about 80 tokens and of
about 200 to 300, from LONG rows of about 500 to 700. Each training is a process of its own, for a few steps, as
`tunewright train` does it, less the measuring of base and tuned model and without general prompts. The six take turns;
each number is the median of the rounds, because the speed of a shared machine moves between one minute and the next.

`busy` is the share of the processor's threads that the steps really got. On a machine with other work on it the clock
measures that work too: below 50 % `measured` is processor seconds divided by threads instead, which is a little less
than a quiet clock would show, because parts of a step use one thread only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tunewright.settings import before_torch

METHODS = ("lora", "full")
CHARACTERS = {"short": (80, 280), "middle": (800, 1100), "long": (1900, 2600)}
ROWS = 48


def rows_of(path: Path, low: int, high: int) -> list[dict[str, Any]]:
    """The first rows whose texts together have so many characters."""
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    fitting = [row for row in rows if low <= sum(len(v) for v in row.values() if isinstance(v, str)) <= high]
    return fitting[:ROWS]


def one(method: str, data: Path, steps: int, base: str) -> dict[str, Any]:
    """One training in this process, without measuring base and tuned model. Times its steps by the clock and by what
    the processor spent on them."""
    before_torch()
    import torch

    from tunewright.recipe.load import load
    from tunewright.rundir import RunDir
    from tunewright.train import run as story
    from tunewright.train.events import Listener
    from tunewright.train.learner import Learner
    from tunewright.train.ready import get_ready
    from tunewright.train.rehearse import Peak

    marks: list[tuple[float, float]] = []
    peak = Peak("cuda" if torch.cuda.is_available() else "cpu")

    class Clock(Listener):
        def training(self, steps: int, done: int) -> Any:
            return _Marked(super().training(steps, done), marks, peak)

    with tempfile.TemporaryDirectory() as folder:
        keys = [f"base={base}", f"train.method={method}", f"train.max_steps={steps}", "retain=off", "train.epochs=10",
                "data.held_out=2", "save.every=1000", "save.keep=1", "train.batch_size=8"]  # fmt: skip
        ready = get_ready(load(str(data), keys), Listener())
        run = RunDir(folder)
        story._open(run, ready)
        learner = Learner(ready)
        learner.adapt()
        story._fit(
            learner, story._steps(ready, []), run, None, None, Clock(),
            rehearsal=lambda trainer, measure: story._rehearse(trainer, measure, ready, None, Listener()),
        )  # fmt: skip
        plan = json.loads((Path(folder) / "plan.json").read_text())
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    threads = torch.get_num_threads()
    wall, cpu = (marks[-1][i] - marks[0][i] for i in (0, 1))
    return {
        "plan": plan, "peak": peak.bytes, "wall": wall / (len(marks) - 1), "cpu": cpu / threads / (len(marks) - 1),
        "tokens": [line["tokens"] for line in lines], "steps": steps,
    }  # fmt: skip


class _Marked:
    """A training bar that notes both clocks at every step, and the most memory held after the first."""

    def __init__(self, inner: Any, marks: list[tuple[float, float]], peak: Any) -> None:
        self.inner, self.marks, self.peak = inner, marks, peak

    def __enter__(self) -> Any:
        show = self.inner.__enter__()

        def marked(line: dict[str, Any]) -> None:
            if not self.marks:
                self.peak.__enter__()
            self.marks.append((time.monotonic(), time.process_time()))
            show(line)

        return marked

    def __exit__(self, *error: Any) -> Any:
        self.peak.__exit__()
        return self.inner.__exit__(*error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("short", type=Path)
    parser.add_argument("long", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--base", default="auto")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.short, given.steps, given.base)))
        return
    found: dict[str, list[Numbers]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            for length, (low, high) in CHARACTERS.items():
                data = Path(folder) / f"{length}.json"
                data.write_text(json.dumps(rows_of(given.long if length == "long" else given.short, low, high)))
                for method in METHODS:
                    name = f"{method}-{length}"
                    if not given.only or name in given.only:
                        print(f"\rround {number + 1}: {name:<12}", end="", file=sys.stderr, flush=True)
                        found.setdefault(name, []).append(_numbers(_apart(method, data, given)))
    print(file=sys.stderr)
    print(f"{'':<12} {'tokens':>7} | memory, MB{'':<21} | seconds a step{'':<14}")
    print(f"{'':<12} {'a step':>7} | foreseen rehearsed  measured   off | foreseen  measured   off  busy")
    for name, rounds in found.items():
        print(_line(name, Numbers(*map(median, zip(*rounds, strict=True)))))


def _apart(method: str, data: Path, given: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, str(data), str(data), "--one", method, "--steps", str(given.steps)]
    done = subprocess.run([*command, "--base", given.base], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Numbers(NamedTuple):
    """Memory in MB, seconds of a step, and the share of the threads that the steps got."""

    tokens: float
    foreseen: float
    rehearsed: float
    measured: float
    seconds_foreseen: float
    seconds: float
    busy: float


def _numbers(found: dict[str, Any]) -> Numbers:
    plan, tokens = found["plan"], found["tokens"]
    share = sum(tokens[1:]) / (len(tokens) - 1) / (sum(tokens) / len(tokens))  # the first step is not between two marks
    busy = found["cpu"] / found["wall"]
    return Numbers(
        sum(tokens) / len(tokens), plan["foreseen"]["memory_bytes"] / 1e6, plan["rehearsed"]["memory_bytes"] / 1e6,
        found["peak"] / 1e6, plan["foreseen"]["phases"]["training"] / found["steps"] * share,
        found["wall"] if busy > 0.5 else found["cpu"], busy,
    )  # fmt: skip


def _line(name: str, n: Numbers) -> str:
    return (
        f"{name:<12} {n.tokens:>7.0f} | {n.foreseen:>8.0f} {n.rehearsed:>9.0f} {n.measured:>9.0f} "
        f"{100 * (n.foreseen / n.measured - 1):>+4.0f}% | {n.seconds_foreseen:>8.2f} {n.seconds:>9.2f} "
        f"{100 * (n.seconds_foreseen / n.seconds - 1):>+4.0f}% {100 * n.busy:>4.0f}%"
    )


if __name__ == "__main__":
    main()
