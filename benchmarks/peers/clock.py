"""What is measured inside a training process: the same lines for ours and for the peer.

Runs in two environments, so it imports nothing of Tunewright. Both sides train with transformers' Trainer underneath,
and this callback sits at the same two places of its loop.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Wall time from the start of the training loop to the end of its last optimizer step.

    Data loading, forward, backward, clipping, optimizer, logging between the steps are inside; imports, loading the
    base, rendering and saving are outside.
    """

    def __init__(self) -> None:
        self.began = 0.0
        self.ends: list[float] = []
        self.resident = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        self.resident = memory("VmRSS")
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        self.ends.append(time.perf_counter())

    def steps(self) -> list[float]:
        """Seconds of each step."""
        return [end - start for start, end in zip([self.began, *self.ends], self.ends, strict=False)]


def memory(name: str) -> int:
    """Bytes of a line of ``/proc/self/status``: VmRSS (now) or VmHWM (the most there ever was in this program).

    getrusage is second choice: on Linux it may remember the program that this process was before it was this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def write(path: Path, clock: Clock, rows: Iterable[tuple[Sequence[int], Sequence[bool]]], **more: Any) -> None:
    """What ``train_speed.py`` reads. rows: (ids, whether each is learned) of the training rows, each once."""
    seen = sorted(
        (hashlib.sha256(json.dumps([int(i) for i in ids]).encode()).hexdigest()[:16], len(ids), int(sum(learn)))
        for ids, learn in rows
    )
    found = {
        "seconds": clock.ends[-1] - clock.began,
        "steps": clock.steps(),
        "peak": memory("VmHWM"),
        "resident": clock.resident,
        "rows": [digest for digest, _length, _learned in seen],
        "lengths": [[length, learned] for _digest, length, learned in seen],
        **more,
    }
    path.write_text(json.dumps(found), encoding="utf-8")
