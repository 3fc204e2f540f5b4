"""Held-out loss of any number of adapters, all by the same code: Tunewright's engine, the base in fp32.

fp32, so that the rounding of a forward pass has no say in which adapter is better. The same file also measures how
fast this machine multiplies bf16 matrices.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tunewright.data.prepare import prepare
from tunewright.data.template import ChatTemplate
from tunewright.infer.transformers import TransformersEngine
from tunewright.model import adapter, source
from tunewright.model.generation import generation_config
from tunewright.model.load import load
from tunewright.recipe.schema import Data


def matrix_peak(size: int = 2048, seconds: float = 4.0) -> dict[str, float]:
    """Floating-point operations a second of the fastest of many products of two bf16 matrices of size x size."""
    left, right = (torch.randn(size, size).to(torch.bfloat16) for _side in "ab")
    out = torch.empty(size, size, dtype=torch.bfloat16)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - began)
    return {"flops": 2 * size**3 / best, "threads": torch.get_num_threads()}


def scored(job: dict[str, Any], adapters: list[str]) -> dict[str, Any]:
    """Nats per learned token of the held-out rows: of the base (name ``""``) and with each adapter."""
    base = source.fetch(job["base"])
    template = ChatTemplate.from_folder(base.folder)
    data = Data(train=[job["train"]], validation=[job["held_out"]])
    rows = list(prepare(data, job["seed"], lambda labels: template, 1 << 20).held_out)
    losses: dict[str, float] = {}
    for folder in ["", *adapters]:
        model: Any = load(base, "fp32")
        if folder:
            model = adapter.load_run(model, Path(folder))
        found = TransformersEngine(model, template, generation_config(base)).score(rows)
        losses[folder] = sum(one.loss for one in found) / sum(row.learned for row in rows)
    return {"losses": losses, "rows": len(rows), "learned": sum(row.learned for row in rows)}


if __name__ == "__main__":
    if sys.argv[1] == "--peak":
        print(json.dumps(matrix_peak()))
    else:
        print(json.dumps(scored(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.argv[2:])))
