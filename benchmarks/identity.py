"""Does the identity example work for names it has never seen, asked in ways it has never seen?

    python benchmarks/identity.py [NAME AUTHOR]...        # Wren Tunewright 小智 智汇云 by default
    python benchmarks/identity.py --data FILE [NAME AUTHOR]...

Trains `recipes/identity.yaml` once for each name, with nothing else set, and asks the 40 fresh questions of
`tests/data/identity_fresh.yaml`, none of which is in the training rows. (They were looked at while the defaults were
chosen; a name that you give here was not.)
Prints, for each name: answers with the right name in English, in Chinese and on the run's held-out rows; answers that
stop by themselves; bundled general questions kept of those that the base knew; minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

import tunewright
from tunewright.example import Message
from tunewright.infer.open import open_run

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "identity.yaml"
FRESH = ROOT / "tests" / "data" / "identity_fresh.yaml"
ANSWER_TOKENS = 160


@dataclass(frozen=True)
class Result:
    """(right, asked) of each kind, and minutes of the whole run."""

    english: tuple[int, int]
    chinese: tuple[int, int]
    held_out: tuple[int, int]
    stops: tuple[int, int]
    kept: int
    knew: int
    minutes: float


def measure(name: str, author: str, folder: Path, more: Sequence[str] = (), every: int = 1) -> Result:
    """Train for ``name`` into ``folder`` and ask. more: overrides of the recipe.  every: of so many fresh questions one
    is asked."""
    began = time.monotonic()
    wanted = [f"data.variables.name={name}", f"data.variables.author={author}", *more]
    run = tunewright.train(RECIPE, wanted, out=folder)
    minutes = (time.monotonic() - began) / 60
    evaluation = run.evaluation
    engine = open_run(run.folder).engine
    right, stops = {}, 0
    for language, questions in yaml.safe_load(FRESH.read_text(encoding="utf-8")).items():
        prompts = [engine.template.prompt_ids([Message("user", question)]) for question in questions[::every]]
        answers = engine.generate(prompts, ANSWER_TOKENS)
        right[language] = (sum(name in answer.text for answer in answers), len(answers))
        stops += sum(answer.stopped for answer in answers)
    check = evaluation["after"][f"check: contains: {name}"]
    general = evaluation["general"]
    return Result(
        right["en"], right["zh"], (round(check["value"] * check["n"]), check["n"]),
        (stops, sum(asked for _right, asked in right.values())), general["kept"], general["before"], minutes,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME AUTHOR")
    parser.add_argument("--data")
    options = parser.parse_args()
    names = options.names or ["Wren", "Tunewright", "小智", "智汇云"]
    if len(names) % 2:
        parser.error("give a name and an author, or several such pairs")
    print(f"{'name':<12} {'English':>8} {'Chinese':>8} {'held out':>9} {'stops':>8} {'general':>9} {'minutes':>8}")
    for name, author in zip(names[::2], names[1::2], strict=True):
        with tempfile.TemporaryDirectory() as folder:
            more = [f"data.train={options.data}"] if options.data else []
            found = measure(name, author, Path(folder) / "run", more)
        shares = ["{}/{}".format(*pair) for pair in (found.english, found.chinese, found.held_out, found.stops)]
        general = f"{found.kept}/{found.knew}"
        numbers = f"{shares[0]:>8} {shares[1]:>8} {shares[2]:>9} {shares[3]:>8} {general:>9} {found.minutes:>8.1f}"
        print(f"{name:<12} {numbers}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
