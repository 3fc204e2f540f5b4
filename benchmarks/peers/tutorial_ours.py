"""The same training by Tunewright, for ``tutorials.py``: everything of a run but the evaluations before and after."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import judge
from clock import Clock, memory
from transformers import AutoTokenizer

from tunewright import rundir
from tunewright.data.template import ChatTemplate
from tunewright.example import Message
from tunewright.infer.engines import labels_of
from tunewright.model import adapter, fast
from tunewright.model.load import load as load_base
from tunewright.recipe.load import load
from tunewright.train.batches import Steps
from tunewright.train.events import Listener
from tunewright.train.ready import Ready, get_ready
from tunewright.train.trainer import StepTrainer, fit


def trained(job: dict[str, Any], out: Path) -> tuple[Ready, Any, dict[str, Any]]:
    overrides = [
        f"base={job['base']}", f"seed={job['seed']}", f"data.validation={job['held_out']}",
        f"train.batch_size={job['batch_size']}", f"train.epochs={job['epochs']}", "train.schedule=linear",
        f"train.learning_rate={job['learning_rate']}", "train.warmup=0", "train.keep=last", "save.every=1000000",
        *job["ours"],
    ]  # fmt: skip
    ready = get_ready(load(job["train"], overrides), Listener())
    recipe, prepared = ready.recipe, ready.prepared
    run = rundir.create("tutorial", out / "run")
    run.checkpoints.mkdir()
    labels = labels_of(recipe, prepared.labels)
    model = adapter.prepare(load_base(ready.base, recipe.train.precision, head=ready.task.head, labels=labels), recipe)
    steps = Steps(prepared.train, recipe.train.batch_size, recipe.train.epochs, recipe.seed)
    clock = Clock()
    with fast.kernels(model):
        trainer = StepTrainer(
            model, steps, recipe, run, recipe.train.token_budget, lambda line: None,
            lambda: ready.task.objective(model, prepared.codec),
        )  # fmt: skip
        trainer.add_callback(clock)
        fit(trainer, None)
    return ready, model, {"seconds": clock.ends[-1] - clock.began, "peak": memory("VmHWM")}


def judged(job: dict[str, Any], ready: Ready, model: Any) -> dict[str, Any]:
    """The held-out number of ``peers/judge.py``, from prompts as Tunewright writes them."""
    rows, codec = ready.prepared.held_out, ready.prepared.codec
    held = [json.loads(line) for line in Path(job["held_out"]).read_text("utf-8").split("\n") if line]
    if job["kind"] == "review":
        texts = [row.ids[~row.learn].tolist() for row in rows]
        cut = ready.prepared.ledger["cut"]["rows"]
        return {"accuracy": judge.right(model, texts, [int(row.ids[-1]) for row in rows]), "cut": cut, "said": cut}
    if job["kind"] == "label_word":
        tokens = codec.label_ids  # type: ignore[attr-defined]
        wanted = [tokens.index(int(row.ids[-1])) for row in rows]
        return {"accuracy": judge.right_tokens(model, [row.ids[:-1].tolist() for row in rows], tokens, wanted)}
    if job["kind"] in ("reasoning", "identity"):
        assert isinstance(codec, ChatTemplate)
        tokenizer = AutoTokenizer.from_pretrained(job["base"])
        pairs = []
        for row in held:
            asked, answer = row.get("instruction"), row.get("output")
            if job["kind"] == "reasoning":
                asked, answer = row["Question"], f"<think>\n{row['Complex_CoT']}\n</think>\n\n{row['Response']}"
            ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
            pairs.append((codec.prompt_ids([Message("user", asked)]), ids))
        nats, ends = judge.surprise(model, pairs, codec.stop_ids[0])
        return {"nats": nats, "end": ends}
    sources = [row.ids[~row.learn].tolist() for row in rows]
    targets = [row["target"] for row in held]
    return {"bleu": judge.bleu(model, sources, targets, lambda ids: codec.decode(ids.tolist(), True))}


def main(job: dict[str, Any], out: Path) -> None:
    ready, model, found = trained(job, out)
    (out / "measured.json").write_text(json.dumps(found | judged(job, ready, model)), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
