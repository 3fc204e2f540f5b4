"""Does every shipped recipe make its model better? Trains them all and prints one line for each.

    python benchmarks/recipes.py [NAME ...]                          # all of recipes/ by default
    python benchmarks/recipes.py translate --base translate=FOLDER   # another base than the recipe names

The table of docs/recipes.md is what this prints. ``--base`` is for bases of the hub that lie in a folder already. Where
the hub is not reached, `t5_shape.py` writes a base whose minutes, and nothing else, stand for instruct-seq2seq's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tunewright
from tunewright.evaluate import names

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"
# What a recipe is about, and is judged by; the first that a run has.
ABOUT = ("accuracy", "check: ", "perplexity", "chrf", "loss")


@dataclass(frozen=True)
class Outcome:
    """metric: by its name in ``evaluation.json``.  before, after: as people read them.  better: beyond chance."""

    metric: str
    before: str
    after: str
    better: bool
    minutes: float
    verdict: str


def recipes() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def run(name: str, out: Path, overrides: list[str]) -> Outcome:
    """Train ``recipes/NAME.yaml`` into ``out``."""
    began = time.monotonic()
    trained = tunewright.train(RECIPES / f"{name}.yaml", overrides, out=out)
    minutes = (time.monotonic() - began) / 60
    return outcome(trained.evaluation, minutes)


def outcome(evaluation: dict[str, Any], minutes: float) -> Outcome:
    before, after, difference = (evaluation[part] for part in ("before", "after", "difference"))
    metric = next(key for about in ABOUT for key in after if key.startswith(about))
    shown = [names.shown(metric, side[metric]) for side in (before, after)]
    better = difference[metric].get("better") is True
    return Outcome(metric, *shown, better, minutes, evaluation["verdict"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--base", action="append", default=[], metavar="NAME=FOLDER")
    options = parser.parse_args()
    bases = dict(item.split("=", 1) for item in options.base)
    print("| recipe | measured by | before | after | better than chance | minutes |\n|---|---|---|---|---|---|")
    for name in options.names or recipes():
        with tempfile.TemporaryDirectory() as folder:
            words = [f"base={bases[name]}"] if name in bases else []
            found = run(name, Path(folder) / "run", words)
        metric = names.label(found.metric)
        better = "yes" if found.better else "no"
        print(f"| {name} | {metric} | {found.before} | {found.after} | {better} | {found.minutes:.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
