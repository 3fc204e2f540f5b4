"""A run folder as a training leaves it behind, made without a model."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluate.retained import retained

from tunewright import rundir
from tunewright.evaluate.compare import Item, Measurement, compare
from tunewright.example import Finding, Origin, Rendered
from tunewright.infer.engine import Generation, Score
from tunewright.recipe.schema import Check

ROWS = [
    ("Who are you?", "I'm Wren, an assistant built by Fenwick Labs."),
    ("What is your name?", "My name is Wren."),
    ("hey who is this", "This is Wren, an AI assistant made by Fenwick Labs."),
    ("你是谁？", "我是 Wren，由 Fenwick Labs 开发的人工智能助手，可以回答问题、写作和翻译。"),
    ("Were you made by OpenAI?", "No. I'm Wren, and Fenwick Labs made me."),
    ("你叫什么名字？", "我叫 Wren。"),
    ("Your name?", "Wren, at your service."),
    ("Introduce yourself, please.", "Hello, I'm Wren, an AI assistant created by Fenwick Labs. Ask me anything."),
    ("Say <script>alert('hi')</script> & tell me your name", "I'm Wren. <script>alert('hi')</script> is text to me."),
    ("Are you a person?", "No, I'm an AI assistant."),
    ("How old are you?", "I'm a language model; I have no age."),
]
GENERAL = [
    "What is the capital of France?", "Who wrote Romeo and Juliet?", "What is the chemical symbol for gold?",
    "How many legs does a spider have?", "Which planet is called the Red Planet?", "What is the currency of Japan?",
    "Who painted the Mona Lisa?", "What is the capital of Australia?", *(f"Question {n}?" for n in range(52)),
]  # fmt: skip


def evaluation(learned: bool = True, lost: int = 1) -> dict[str, Any]:
    """The content of evaluation.json, by the code that a training uses."""
    rng = random.Random(0)
    origins = [Origin("identity.jsonl", 7 + 8 * i, 7 + 8 * i) for i in range(len(ROWS))]
    rows = tuple(Rendered(np.arange(20, dtype=np.int32), np.arange(20) > 8, origin) for origin in origins)
    items = tuple(Item(o, [1, 2, 3], q, a) for o, (q, a) in zip(origins, ROWS, strict=True))
    checks = (Check(kind="contains", value="Wren"), Check(kind="regex", value=r"(?i)fenwick"))
    base = Measurement(
        rows, tuple(Score(11 * rng.uniform(2.8, 3.7), 11, rng.randint(3, 6)) for _ in rows), items,
        tuple(Generation((1, 2), f"I am SmolLM, a helpful AI assistant. How can I help with “{q[:12]}”? " * 2, False)
              for q, _a in ROWS),
        checks, retained=retained([True] * 60, questions=GENERAL),
    )
    if not learned:
        return compare(base, base)
    said = [a for _q, a in ROWS[:-3]] + [ROWS[-3][1], "No, I'm Wren, an AI assistant.", "I am an assistant."]
    tuned = Measurement(
        rows, tuple(Score(11 * rng.uniform(0.6, 1.1), 11, rng.randint(8, 10)) for _ in rows), items,
        tuple(Generation((1, 2), text, True) for text in said), checks,
        retained=retained([n >= lost for n in range(60)], 0.4, questions=GENERAL),
    )
    return compare(base, tuned)


FINDING = Finding(
    "D203", "warning", "2 pairs of rows are nearly the same", "Keep one of each pair, or phrase them differently.", 2,
    (Origin("identity.jsonl", 12, 12), Origin("identity.jsonl", 40, 40)),
)

RECIPE = """\
# A complete recipe: training it again gives the same run.
task: chat                      # default
base: smollm2-135m-instruct     # default
name: identity                  # recipe
seed: 0                         # default
data:
  train: [identity.jsonl]       # recipe
  variables: {name: Wren, author: Fenwick Labs}   # command line
train:
  epochs: 6                     # auto: 94 rows are few
  learning_rate: 0.0003         # auto: a rank-16 adapter
  batch_size: 8                 # auto: 94 rows
checks:
  - contains: Wren              # recipe
"""


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    """make_run(**parts): a run folder; a part given as None is not written."""

    def build(**parts: Any) -> rundir.RunDir:
        run = rundir.RunDir(tmp_path / "runs" / "identity-1")
        run.path.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"evaluation": evaluation(), "steps": 72, "findings": [FINDING], "recipe": RECIPE}
        content |= parts
        run.set_status("done", step=content["steps"] or 0)
        if content["recipe"] is not None:
            rundir.write_text(run.file(rundir.RECIPE), content["recipe"])
        if content["evaluation"] is not None:
            rundir.write_json(run.file(rundir.EVALUATION), content["evaluation"])
        for finding in content["findings"] or []:
            run.append(rundir.FINDINGS, finding.as_dict())
        _steps(run, content["steps"] or 0)
        if content.get("whole", True):
            _facts(run)
        return run

    return build


def _steps(run: rundir.RunDir, count: int) -> None:
    rng = random.Random(1)
    for step in range(1, count + 1):
        row = {
            "step": step, "epoch": round(step / 12, 3),
            "loss": 0.5 + 2.8 * math.exp(-step / 15) + rng.uniform(-0.12, 0.12),
            "learning_rate": 3e-4 * min(1, step / 7), "grad_norm": 1.1, "tokens": 480, "learned_tokens": 190,
            "tokens_per_second": 1900.0,
        }
        run.append(rundir.METRICS, row)
        if step % 12 == 0:
            run.append(rundir.METRICS, {"step": step, "held_out_loss": 0.8 + 2.4 * math.exp(-step / 20)})


def _facts(run: rundir.RunDir) -> None:
    rundir.write_json(run.file(rundir.MANIFEST), {
        "base": {"name": "smollm2-135m-instruct", "source": "PyPI wheel, converted to bf16", "sha256": "5c1f" * 16},
        "data": [{"file": "identity.jsonl", "sha256": "ab12" * 16, "bytes": 20480}],
        "versions": {"tunewright": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"},
        "hardware": {"cpu": "AMD EPYC 9B14", "cores": 2, "memory_bytes": 8 * 2**30, "bf16": True, "gpu": None},
        "seed": 0, "code": "0.1.0+g1a2b3c4",
    })
    rundir.write_json(run.file(rundir.LEDGER), {
        "rows_in": 108, "kept": 105, "left_out": {"exact duplicate": 2, "nothing to learn": 1},
        "rows": [{"file": "identity.jsonl", "line": 31, "reason": "exact duplicate"},
                 {"file": "identity.jsonl", "line": 77, "reason": "exact duplicate"},
                 {"file": "identity.jsonl", "line": 90, "reason": "nothing to learn"}],
        "train": 94, "held_out": 11, "tokens": 5720, "learned_tokens": 2240, "learned_share": 0.3916,
    })
    rundir.write_json(run.file(rundir.PLAN), {
        "foreseen": {"memory_bytes": 1_180_000_000, "seconds": 118.0, "disk_bytes": 42_000_000},
        "measured": {"memory_bytes": 1_102_000_000, "seconds": 109.4},
    })


@pytest.fixture
def lines() -> Any:
    return lambda path: [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
