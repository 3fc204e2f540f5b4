"""One training by Tunewright, for ``train_speed.py``: everything of a run but the evaluations before and after."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from clock import Clock, write

from tunewright import rundir
from tunewright.model import adapter
from tunewright.model.generation import generation_config
from tunewright.model.load import load as load_base
from tunewright.recipe.load import load
from tunewright.train.batches import Steps
from tunewright.train.events import Listener
from tunewright.train.ready import get_ready
from tunewright.train.trainer import StepTrainer, fit


def main(job: dict[str, Any], out: Path) -> None:
    """job: as ``train_speed.py`` writes it.  out: a new folder."""
    overrides = [
        f"base={job['base']}", f"seed={job['seed']}", f"data.validation={job['held_out']}",
        f"train.batch_size={job['batch_size']}", "train.epochs=1", f"train.learning_rate={job['learning_rate']}",
        "train.schedule=constant", "train.warmup=0", "train.precision=bf16",
        f"lora.rank={job['rank']}", f"lora.alpha={job['alpha']}", f"lora.targets={json.dumps(job['targets'])}",
        "retain=off", "evaluate.rows=0", "save.every=1000000",
        *job["ours"],
    ]  # fmt: skip
    ready = get_ready(load(job["train"], overrides), Listener())
    recipe, rows = ready.recipe, ready.prepared.train
    assert recipe.train.batch_size != "auto" and recipe.train.token_budget != "auto"
    run = rundir.create("train_speed", out)
    run.checkpoints.mkdir()
    model = adapter.prepare(load_base(ready.base, "bf16"), recipe)
    steps = Steps(rows, recipe.train.batch_size, 1, recipe.seed)
    trainer = StepTrainer(
        model, steps, recipe, run, recipe.train.token_budget, lambda line: None,
        lambda: ready.task.objective(model, ready.prepared.codec),
    )
    clock = Clock()
    trainer.add_callback(clock)
    fit(trainer, None)
    adapter.save(model, run.file(rundir.ADAPTER), ready.prepared.codec.save, generation_config(ready.base))
    seen = ((row.ids.tolist(), [False, *row.learn[1:].tolist()]) for row in rows)
    write(out / "measured.json", clock, seen, threads=torch.get_num_threads())


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
