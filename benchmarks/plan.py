"""How near the forecast comes: memory and time foreseen before any weight was loaded, and then measured.

    python benchmarks/plan.py RUN [RUN ...]

Every run writes both into its plan.json; this prints them side by side. To measure the demo: `make demo`, then
`python benchmarks/plan.py runs/identity-1`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(runs: list[str]) -> None:
    print(f"{'run':<24} {'':<8} {'foreseen':>10} {'measured':>10} {'off by':>8}")
    for run in runs:
        plan = json.loads((Path(run) / "plan.json").read_text(encoding="utf-8"))
        foreseen, measured = plan["foreseen"], plan["measured"]
        if measured is None:
            print(f"{run:<24} is not finished")
            continue
        for what, key, unit in (("memory", "memory_bytes", 2**20), ("time", "seconds", 1)):
            one, two = foreseen[key] / unit, measured[key] / unit
            name = "MiB" if unit > 1 else "s"
            numbers = f"{one:>6.0f} {name:<3} {two:>6.0f} {name:<3} {100 * (one / two - 1):>+6.0f} %"
            print(f"{Path(run).name:<24} {what:<8} {numbers}")


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit(__doc__))
