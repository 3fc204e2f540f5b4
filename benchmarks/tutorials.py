"""The way of the tutorials and ours, on the same rows, side by side: speed, memory and what is held out.

    python benchmarks/tutorials.py [KIND ...] [--rounds 2] [--scale 1.0] [--held 200]

Kinds: review (a small encoder on imdb, as BERT and DistilBERT are taught), label_word (a causal model on
rotten_tomatoes, as GPT-2 is), reasoning (chains of thought, as small R1 distillates are), identity (a chat model its
name, as Qwen is taught), translation (an encoder-decoder, as Flan-T5 is). Both sides have the same base, rows, epochs,
batch size, learning rate and, where there is one, the same adapter; `peers/tutorial_run.py` is the tutorial,
`peers/tutorial_ours.py` is ours. Each run is a process of its own; the two alternate, and medians are printed. Needs
the public data in ../shared/data.

rows/s      rows of all epochs / wall time from the start of the training loop to the end of its last step
peak MiB    most memory that the process had resident while it trained (VmHWM), imports and loading included
held-out    by `peers/judge.py` for both: accuracy, nats per answer token (and of the token that ends it), or BLEU
cut, said   reviews that lost their beginning, in training or held out, and how many of them the output speaks of
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tunewright.model.source import fetch

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared"
DATA = SHARED / "data"
NAMES = {"tutorial_run": "the tutorial's way", "tutorial_ours": "tunewright"}
Rows = list[dict[str, Any]]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").rstrip("\n").split("\n")


def imdb(train: int, held: int) -> tuple[Rows, Rows]:
    def rows(name: str, count: int) -> Rows:
        with open(DATA / "imdb" / f"{name}.csv", encoding="utf-8", newline="") as file:
            return [{"text": row["text"], "label": int(row["label"])} for row in csv.DictReader(file)][:count]

    return rows("train", train), rows("test", held)


def rotten_tomatoes(train: int, held: int) -> tuple[Rows, Rows]:
    sides = [lines(DATA / "rotten_tomatoes" / f"rt-polarity.{name}") for name in ("neg", "pos")]
    both = [
        {"text": text.strip(), "label": label} for pair in zip(*sides, strict=False) for label, text in enumerate(pair)
    ]
    return both[:train], both[-held:]


def medical(train: int, held: int) -> tuple[Rows, Rows]:
    found = json.loads((DATA / "medical_cot" / "medical_o1_demo.json").read_text(encoding="utf-8"))
    rows = [{name: row[name] for name in ("Question", "Complex_CoT", "Response")} for row in found]
    return rows[:train], rows[-held:]


def identity(train: int, held: int) -> tuple[Rows, Rows]:
    """The project's own conversations, their placeholders filled."""
    rows: Rows = []
    for line in lines(HERE.parent / "examples" / "identity" / "identity.jsonl"):
        said = json.loads(line.replace("{{name}}", "Wren").replace("{{author}}", "Tunewright"))["messages"]
        if [turn["role"] for turn in said] == ["user", "assistant"]:
            rows.append({"instruction": said[0]["content"], "output": said[1]["content"]})
    return rows[:train], rows[-held:]


def multi30k(train: int, held: int) -> tuple[Rows, Rows]:
    def rows(name: str, count: int) -> Rows:
        sides = [lines(DATA / "multi30k" / f"{name}.{code}") for code in ("en", "fr")]
        return [{"source": one, "target": two} for one, two in zip(*sides, strict=True)][:count]

    return rows("train", train), rows("test_2016_flickr", held)


# kind: rows, how many (to train, held out), what both sides set, what ours sets besides
Kind = tuple[Callable[[int, int], tuple[Rows, Rows]], int, int, dict[str, Any], list[str]]
KINDS: dict[str, Kind] = {
    "review": (
        imdb, 128, 200, {"base": "minilm-l6", "epochs": 3, "batch_size": 8, "learning_rate": 5e-5},
        ["task=classify", "classify.head=linear", "train.method=full", "data.max_length=512", "data.too_long=truncate",
         "data.truncation_side=left"],
    ),
    "label_word": (
        rotten_tomatoes, 160, 200, {"base": "smollm2-135m-instruct", "epochs": 1, "batch_size": 8,
        "learning_rate": 4e-4, "targets": ["q_proj", "v_proj"]},
        ["task=classify", "classify.head=label_token", "classify.names={'0': negative, '1': positive}",
         "lora.rank=16", "lora.alpha=32", "lora.targets=[q_proj, v_proj]"],
    ),
    "reasoning": (
        medical, 32, 16, {"base": "smollm2-135m-instruct", "epochs": 1, "batch_size": 8, "accumulation": 4,
        "learning_rate": 2e-4, "targets": ["q_proj", "v_proj"]},
        ["task=chat", "lora.rank=16", "lora.alpha=32", "lora.targets=[q_proj, v_proj]", "retain=off"],
    ),
    "identity": (
        identity, 80, 16, {"base": "smollm2-135m-instruct", "epochs": 2, "batch_size": 8, "learning_rate": 2e-4,
        "targets": ["q_proj", "v_proj"]},
        ["task=chat", "lora.rank=16", "lora.alpha=32", "lora.targets=[q_proj, v_proj]", "retain=off"],
    ),
    "translation": (
        multi30k, 256, 60, {"base": str(SHARED / "models" / "opus-mt-en-fr"), "epochs": 1, "batch_size": 16,
        "learning_rate": 5e-5},
        ["task=seq2seq", "train.method=full", "data.max_length=128"],
    ),
}  # fmt: skip


def run(script: str, job: Path, out: Path) -> dict[str, Any]:
    """One training in a process of its own, without a GPU."""
    out.mkdir()
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(HERE.parent / "src"),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "peers" / f"{script}.py"), str(job), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-4000:]}")
    return dict(json.loads((out / "measured.json").read_text(encoding="utf-8")))


def compare(kind: str, rounds: int, scale: float, most: int, folder: Path) -> None:
    rows, count, held_out, settings, ours = KINDS[kind]
    sides = rows(max(8, round(count * scale)), min(held_out, most))
    job = {"kind": kind, "seed": 0, "accumulation": 1, "targets": [], "ours": ours, **settings}
    if "/" not in job["base"]:
        job["base"] = str(fetch(job["base"]).folder)
    for name, part in zip(("train", "held_out"), sides, strict=True):
        path = folder / f"{kind}-{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part), encoding="utf-8")
        job[name] = str(path)
    written = folder / f"{kind}.json"
    written.write_text(json.dumps(job), encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for number in range(rounds):
        for script in NAMES:
            print(f"{kind}, round {number + 1} of {rounds}: {NAMES[script]}", file=sys.stderr)
            found[script].append(run(script, written, folder / f"{kind}-{script}-{number}"))
    middle = {name: {key: median(one[key] for one in runs) for key in runs[0]} for name, runs in found.items()}
    seen = len(sides[0]) * settings["epochs"]
    print(f"{kind}: {len(sides[0])} rows, {settings['epochs']} epochs, {len(sides[1])} held out")
    for script, one in middle.items():
        rest = "  ".join(f"{key} {value:.3f}" for key, value in one.items() if key not in ("seconds", "peak"))
        speed, space = seen / one["seconds"], one["peak"] / 2**20
        print(f"  {NAMES[script]:20}{speed:8.2f} rows/s{space:8.0f} MiB  {rest}", flush=True)
    theirs, own = middle["tutorial_run"], middle["tutorial_ours"]
    speed, space = theirs["seconds"] / own["seconds"], own["peak"] / theirs["peak"]
    print(f"  {'ours / theirs':20}{speed:8.2f} x{space:12.0%}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of the training rows")
    parser.add_argument("--held", type=int, default=200, help="held-out rows at the most; few show that all still runs")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"note: other work keeps this machine busy (load {load:.1f}); look at the ratios, not at the speeds\n")
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds or KINDS:
            compare(kind, options.rounds, options.scale, options.held, Path(folder))


if __name__ == "__main__":
    main()
