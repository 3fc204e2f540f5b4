"""Kill -9 at random moments over a training; it must always go on, and always end with the same bytes.

    python benchmarks/kill.py                     twenty kills over trainings of a tiny model, a few minutes
    python benchmarks/kill.py --kills 40 --seed 7
    python benchmarks/kill.py --recipe examples/identity/recipe.yaml       the same with a real base

Each moment is drawn from the whole life of a process, start-up included, and each phase of it gets its share: measuring
the base, training, saving, writing the adapter, measuring the tuned model and writing the report. Prints one line a
kill: the phase, the moment, the state and step that it was found in. Ends with the hash of what was trained, which must
be that of a run that nobody killed, and with the steps and numbers of the two, which must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.conftest import write_tiny_model, write_tiny_tokenizer  # noqa: E402
from tests.tiny import quick, write_chats  # noqa: E402

from tunewright import rundir  # noqa: E402

PHASES = ["start", "preparing", "training", "saving", "adapter", "evaluating", "report"]  # in the order of a life
OFTEN = {"training": 4, "saving": 2}  # as often as one of the others
LONG = ["train.epochs=40", "save.every=3", "save.keep=2", "evaluate.rows=4", "evaluate.max_new_tokens=16"]


def started(words: list[str], home: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TUNEWRIGHT_CACHE": os.environ.get(
        "TUNEWRIGHT_CACHE", str(home / "cache"))}  # fmt: skip
    with open(home / "screen.txt", "ab") as screen:
        return subprocess.Popen([sys.executable, "-m", "tunewright", *words], cwd=home, env=env, stdout=screen,
                                stderr=screen)  # fmt: skip


def status(run: Path) -> dict[str, Any]:
    return rundir.RunDir(run).status() if (run / rundir.STATUS).exists() else {}


def reached(phase: str, run: Path, known: int) -> bool:
    """Whether the process is now in ``phase``. known: steps that its metrics had when it was started."""
    if phase == "start":
        return True
    if phase == "saving":
        return (run / "checkpoints" / ".saving").exists()
    if phase == "adapter":
        return (run / ".adapter.unfinished").exists() or (run / ".model.unfinished").exists()
    if phase == "report":
        return status(run).get("state") == "done" and not (run / rundir.REPORT).exists()
    if phase == "training":
        return len(rundir.read_lines(run / rundir.METRICS)) > known
    return bool(status(run).get("state") == phase)


def wait(process: subprocess.Popen[bytes], what: Callable[[], bool]) -> bool:
    """False if the process ended before ``what`` was so."""
    while not what():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    return True


def ends(run: Path) -> dict[str, Any]:
    """What two runs must have in common."""
    [path] = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors")]
    evaluation = json.loads((run / rundir.EVALUATION).read_text(encoding="utf-8"))
    steps = [{k: v for k, v in line.items() if k != "tokens_per_second"}
             for line in rundir.read_lines(run / rundir.METRICS)]  # fmt: skip
    return {
        "weights": hashlib.sha256(path.read_bytes()).hexdigest(), "steps": steps,
        "numbers": [evaluation["before"], evaluation["after"], evaluation["rows"]],
        "files": sorted(p.name for p in run.iterdir()),
    }  # fmt: skip


def finish(run: Path, words: list[str], home: Path) -> None:
    """To the end without a kill. What was killed while its page was written is done, and gets the page."""
    if status(run).get("state") != "done":
        code = started(words, home).wait()
        assert code == 0, (home / "screen.txt").read_text(encoding="utf-8")[-3000:]
    if not (run / rundir.REPORT).exists():
        assert started(["report", run.name], home).wait() == 0


def one_life(number: int, kills: int, train: list[str], home: Path, draw: random.Random) -> tuple[Path, int]:
    """One training, killed in phases drawn from its whole life. Returns its folder and how many kills came before its
    end."""
    run, done = home / f"run-{number}", 0
    words = [*train, "--out", run.name]
    drawn = draw.choices(PHASES, [OFTEN.get(phase, 1) for phase in PHASES], k=kills)
    for phase in sorted(drawn, key=PHASES.index):
        known = len(rundir.read_lines(run / rundir.METRICS))
        process = started(words, home)
        wait(process, lambda p=phase, k=known: reached(p, run, k))  # type: ignore[misc]
        later = draw.random() * {"start": 8, "preparing": 3, "training": 0.8}.get(phase, 0.05)
        time.sleep(later)
        if process.poll() is not None:  # the moment lay behind its end
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
        found, steps = status(run), len(rundir.read_lines(run / rundir.METRICS))
        print(f"run {number}  kill {done:2d}  in {phase:<10} {later:4.2f} s later: state {found.get('state', '-'):<10} "
              f"{steps:3d} steps written", flush=True)  # fmt: skip
        if found.get("state") == "done":
            break
        words = ["resume", run.name] if (run / rundir.RECIPE).exists() else words
    finish(run, words, home)
    return run, done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=10, help="kills to one training at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", help="a recipe instead of the tiny model")
    given = parser.parse_args()
    draw, home = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="kill-"))
    if given.recipe:
        train = ["train", str(Path(given.recipe).resolve())]
    else:
        base = home / "base"
        base.mkdir()
        write_tiny_tokenizer(base)
        write_tiny_model(base)
        write_chats(home / "town.jsonl")
        train = ["train", "town.jsonl", *quick(base, *LONG)]
    began, left, number = time.monotonic(), given.kills, 0
    finish(home / "unbroken", [*train, "--out", "unbroken"], home)
    wanted = ends(home / "unbroken")
    while left > 0:
        number += 1
        run, kills = one_life(number, min(left, given.each), train, home, draw)
        left -= kills
        found = ends(run)
        differing = [name for name in wanted if found[name] != wanted[name]]
        told = "equal to the bit" if not differing else "DIFFERS in " + ", ".join(differing)
        print(f"run {number}  ended after {kills} kills: weights {found['weights'][:12]}, {told}", flush=True)
        if differing:
            print(f"see {home}")
            return 1
    print(f"{given.kills} kills over {number} trainings in {time.monotonic() - began:.0f} s: all went on, all equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
