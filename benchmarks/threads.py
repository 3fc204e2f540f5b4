"""Why waiting threads sleep: a small model's layer while the machine is quiet, and while something else runs.

    python benchmarks/threads.py

Times many passes through three linear layers of the embedded base's size in a process of its own, with torch's threads
spinning (the default) and sleeping (OMP_WAIT_POLICY=passive), alone and beside as many busy processes as there are
cores. Prints milliseconds a pass, median of five; what matters are the ratios within a column.
"""

from __future__ import annotations

import os
import subprocess
import sys

WORK = """
import time, torch
x = torch.randn(64, 576).bfloat16(); a = torch.randn(1536, 576).bfloat16(); b = torch.randn(576, 1536).bfloat16()
def once():
    began = time.perf_counter()
    for _ in range(60):
        y = torch.nn.functional.silu(x @ a.T) @ b.T
    return (time.perf_counter() - began) / 60 * 1e3
once()
print(sorted(once() for _ in range(5))[2])
"""
BUSY = "while True: sum(range(10000))"
POLICIES = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "passive"}}


def milliseconds(policy: dict[str, str]) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | policy
    done = subprocess.run([sys.executable, "-c", WORK], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    alone = {name: milliseconds(policy) for name, policy in POLICIES.items()}
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        beside = {name: milliseconds(policy) for name, policy in POLICIES.items()}
    finally:
        for other in others:
            other.kill()
            other.wait()
    print(f"{'threads':<10} {'alone, ms':>10} {'beside others, ms':>18}")
    for name in POLICIES:
        print(f"{name:<10} {alone[name]:>10.2f} {beside[name]:>18.2f}")


if __name__ == "__main__":
    main()
