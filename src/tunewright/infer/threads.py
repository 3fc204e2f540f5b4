"""How many threads a step of serving is quickest with.

A step in which each request goes on by one token reads all weights and computes little; its many small operations wait
for threads longer than they gain by them, and the cores are wanted by the clients' requests as well. So it is tried.
"""

from __future__ import annotations

import time

import torch
from torch import nn

ROWS = 8  # tokens of the trial: that many requests at once
TRIES = 3
WORTH = 0.9  # twice as many threads have to take less than this share of the time


@torch.no_grad()
def quickest(model: nn.Module) -> int:
    """The number of threads, up to those that torch has now, with which a step of few tokens is quickest on this CPU;
    more only where they are worth it. On another device: what torch has."""
    cores = torch.get_num_threads()
    if next(model.parameters()).device.type != "cpu":
        return cores
    ids = torch.ones(1, ROWS, dtype=torch.long)
    best, chosen = float("inf"), 1
    try:
        count = 1
        while count <= cores:
            torch.set_num_threads(count)
            took = min(_timed(model, ids) for _try in range(TRIES))
            if took < WORTH * best:
                best, chosen = took, count
            count *= 2
    finally:
        torch.set_num_threads(cores)
    return chosen


def _timed(model: nn.Module, ids: torch.Tensor) -> float:
    begun = time.perf_counter()
    model(input_ids=ids, use_cache=False)
    return time.perf_counter() - begun
