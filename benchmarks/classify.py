"""How well do the ways of classifying do on real reviews, and was a language model worth it?

    python benchmarks/classify.py DATA                     # DATA holds rotten_tomatoes/ and imdb/
    python benchmarks/classify.py DATA --only rotten_tomatoes --methods full lora --seeds 0 1 2
    python benchmarks/classify.py DATA --methods lora --set train.learning_rate=5e-4 train.epochs=3

DATA/rotten_tomatoes: `rt-polarity.pos` and `rt-polarity.neg` (Pang and Lee 2005), of which 1,066 rows are drawn for the
test and 2,000 others for training, always the same. DATA/imdb: `train.csv` and `test.csv` with the columns text and
label, of whose reviews the last 256 tokens are kept. Prints for each data set, method and seed: accuracy of the tuned
model with its interval, of the yardsticks on the same rows, and minutes.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import time
from pathlib import Path

import tunewright

DRAW = 0  # the seed of the split; another one gives other rows, and other numbers
TEST_ROWS, TRAIN_ROWS = 1066, 2000
IMDB = [
    "data.max_length=256", "data.too_long=truncate", "data.truncation_side=left",
    'classify.names={"0": negative, "1": positive}',
]  # fmt: skip


def rotten_tomatoes(source: Path, folder: Path) -> tuple[Path, list[str]]:
    """The split as two files in ``folder``: the training rows, and what of a recipe reads both."""
    rows = []
    for ending, label in (("neg", "negative"), ("pos", "positive")):
        lines = (source / f"rt-polarity.{ending}").read_text(encoding="utf-8").splitlines()
        rows += [(line.strip(), label) for line in lines]
    random.Random(DRAW).shuffle(rows)
    _write(folder / "test.csv", rows[:TEST_ROWS])
    _write(folder / "train.csv", rows[TEST_ROWS : TEST_ROWS + TRAIN_ROWS])
    return folder / "train.csv", [f"data.validation={folder / 'test.csv'}"]


def imdb(source: Path, folder: Path) -> tuple[Path, list[str]]:
    return source / "train.csv", [f"data.validation={source / 'test.csv'}", *IMDB]


SETS = {"rotten_tomatoes": rotten_tomatoes, "imdb": imdb}


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def measure(rows: Path, settings: list[str], folder: Path) -> str:
    """Train, and the numbers as a line."""
    began = time.monotonic()
    run = tunewright.train(rows, settings, out=folder)
    minutes = (time.monotonic() - began) / 60
    found = run.evaluation["after"]["accuracy"]
    yard = {each["name"]: each["values"]["accuracy"]["value"] for each in run.evaluation["labels"]["yardsticks"]}
    others = "  ".join(f"{name} {value:.4f}" for name, value in yard.items())
    interval = f"{found['low']:.3f}…{found['high']:.3f}"
    return f"{found['value']:.4f}  {interval}  {others}  {minutes:5.1f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", default="minilm-l6")
    parser.add_argument("--only", choices=[*SETS], nargs="+", default=[*SETS])
    parser.add_argument("--methods", nargs="+", default=["full", "lora", "freeze"])
    parser.add_argument("--seeds", nargs="+", default=["0"])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other values for keys of the recipe")
    options = parser.parse_args()
    for name in options.only:
        for method in options.methods:
            for seed in options.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    rows, settings = SETS[name](options.data / name, Path(folder))
                    settings += ["task=classify", "classify.head=linear", f"base={options.base}", f"seed={seed}"]
                    settings += [f"train.method={method}", *options.set]
                    line = measure(rows, settings, Path(folder) / "run")
                print(f"{name:<16} {method:<7} seed {seed}  {line}", flush=True)


if __name__ == "__main__":
    main()
