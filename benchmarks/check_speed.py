"""`tunewright data check` on 100,000 instruction rows, of which a tenth nearly repeat another one, on one core.

    python benchmarks/check_speed.py [--rows 100000]

Prints the time of the whole command (its start included), its peak memory, and what it found. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_speed import write_rows


def repeat_nearly(path: Path, share: float, seed: int = 0) -> None:
    """Adds rows that repeat an earlier one but for its last word."""
    draw = random.Random(seed)
    rows = json.loads(path.read_text(encoding="utf-8"))
    again = [dict(row) for row in draw.sample(rows, int(share * len(rows)))]
    for number, row in enumerate(again):
        row["output"] += f" {number}"
    path.write_text("[\n" + ",\n".join(map(json.dumps, rows + again)) + "\n]\n", encoding="utf-8")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=100_000)
    rows = arguments.parse_args().rows
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, for this process and the one it starts
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.json"
        write_rows(data, rows - rows // 11)
        repeat_nearly(data, 0.1)
        size = data.stat().st_size / 2**20
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "tunewright", "data", "check", str(data), "--json"], capture_output=True, text=True
        )
        seconds = time.perf_counter() - started
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{told['rows']} rows, {size:.0f} MiB, one core: {seconds:.1f} seconds, {peak:.0f} MiB at most")
    for finding in told["findings"]:
        print(f"  {finding['code']} {finding['count']}")


if __name__ == "__main__":
    main()
