"""Ten thousand damaged data files and recipes: no traceback, no hang, no lost row.

    python benchmarks/fuzz.py                           10,000 mutants of seed 0, about ten minutes on one core
    python benchmarks/fuzz.py --count 500 --seed 7
    python benchmarks/fuzz.py --only 4711               one of them, left in the current folder

Each mutant is a sound file of one of eight kinds (JSON Lines, JSON, CSV, TSV, Parquet) or a recipe, with one to three
faults: bytes flipped, cut, inserted or repeated, values of another type, numbers beyond all bounds, doubled keys, deep
nesting, other encodings, anchors and bombs in YAML. It goes through `tunewright data check` or `tunewright recipe
check` and, where a chat could be trained on it, through rendering and split to the ledger. What `tests/mutants.py` says
must hold of all; the same seed gives the same mutants.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.mutants import Trial, mutant  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--begin", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="write this mutant here and try it")
    given = parser.parse_args()
    if given.only is not None:
        name, content = mutant(given.seed, given.only)
        Path(name).write_bytes(content)
        given.begin, given.count = given.only, 1
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ["TUNEWRIGHT_CACHE"] = str(folder / "cache")
    trial, began, wrong, slowest = Trial(folder), time.monotonic(), 0, (0.0, "")
    for number in range(given.begin, given.begin + given.count):
        name, content = mutant(given.seed, number)
        start = time.monotonic()
        problem = trial(name, content)
        slowest = max(slowest, (time.monotonic() - start, name))
        if problem:
            wrong += 1
            print(f"{name}: {problem[:300]}", flush=True)
    told = ", ".join(f"{count:,} {what}" for what, count in trial.counted.items())
    print(f"{given.count:,} mutants of seed {given.seed} in {time.monotonic() - began:.0f} s: {told}; "
          f"slowest {slowest[0]:.1f} s ({slowest[1]}); {wrong} wrong")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
