"""Training speed, memory and held-out loss: ours and TRL's SFTTrainer, same rows, same base, alternating.

    python benchmarks/train_speed.py [--rows 64] [--rounds 3] [--data PATH] [--base NAME]

Each run is a process of its own. TRL gets a fresh environment in the cache (a few minutes the first time) with the
versions of torch, transformers, peft, accelerate and datasets that `constraints.txt` names. Both train one epoch with
rank 16 on q_proj and v_proj, batch 8, AdamW at a constant learning rate, bf16 weights and an fp32 adapter, no
activation recomputed, no row cut. What each side sets besides stands in `peers/ours_run.py` and `peers/trl_run.py`.

What is printed:

tokens/s    tokens of the rendered rows, padding not counted, divided by the wall time from the start of the training
            loop to the end of its last optimizer step (`peers/clock.py`, the same callback for both). Whether both
            trained the same token ids, and how many of them were learned, is compared and said.
peak MiB    most memory that the process ever had resident (VmHWM), imports and loading included.
held-out    nats per learned token over the same 32 rows, for both by one function after all runs (`peers/score.py`).
of peak     useful arithmetic / seconds / the fastest of many bf16 products of 2048 x 2048 x 2048 on all threads, tried
            before, between and after the runs. Useful is what the mathematics asks for, whoever does it how; for a row
            of T tokens, L of them learned, with P weights in the decoder's linear layers, A in the adapter, width H of
            all query heads together, N layers, hidden size D and V words:

                linear layers   T * 2P * 2             forward, gradient of the input; they are frozen
                adapter         T * 2A * 3             forward, gradients of input and weights
                attention       N * 2 T^2 H * (1 + 2)  two causal products forward, four backward; each T^2 / 2 pairs
                output layer    L * 2DV * 2            at learned tokens only

            Not counted: norms, softmax, rotary embedding, optimizer, padding, logits of tokens that are not learned,
            and anything done twice. (The first layer's q, k and v need no gradient of their input; 0.2 % too much.)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from tunewright.model import memory
from tunewright.model.source import fetch
from tunewright.settings import settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = HERE / "peers"
ALPACA = ROOT.parent / "shared" / "data" / "alpaca" / "alpaca_en_demo.json"
PEER = "trl==1.16.0"
WITH = ("torch==2.13.0", "transformers", "peft", "accelerate", "datasets")
HELD_OUT = 32
AFTER_THE_END = "it also learns what the template writes behind an answer's end"
NAMES = {"ours": "tunewright", "trl": PEER.replace("==", " ")}


# ---- preparing ---------------------------------------------------------------------------------------------------


def peer_python() -> Path:
    """Python of the peer's own environment, made if it is not there whole."""
    folder = settings().cache / "peers" / PEER.replace("==", "-")
    python = folder / "bin" / "python"
    whole = folder / "whole"
    if not whole.exists():
        print(f"making an environment for {PEER} in {folder} (once, a few minutes)", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), PEER, *WITH], check=True)
        whole.touch()
    return python


def write_rows(data: Path, rows: int, folder: Path) -> tuple[Path, Path]:
    """The first ``rows`` of an instruction file and its last 32, as conversations that both sides read."""
    found = json.loads(data.read_text(encoding="utf-8"))
    if len(found) < rows + HELD_OUT:
        raise SystemExit(f"{data} has {len(found)} rows; {rows} + {HELD_OUT} are needed")
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    for path, part in zip(paths, (found[:rows], found[-HELD_OUT:]), strict=True):
        lines = []
        for row in part:
            question = f"{row['instruction']}\n{row['input']}" if row.get("input", "").strip() else row["instruction"]
            chat = [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
            lines.append(json.dumps({"messages": chat}, ensure_ascii=False) + "\n")
        path.write_text("".join(lines), encoding="utf-8")
    return paths


# ---- running -----------------------------------------------------------------------------------------------------


def run(python: Path | str, script: str, *arguments: str) -> str:
    """Standard output of a script of ``peers/`` in a process of its own, without a GPU."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ROOT / "src") if python == sys.executable else "",
    }
    command = [str(python), str(PEERS / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def train(who: str, python: Path | str, job: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    run(python, f"{who}_run.py", str(job), str(out))
    return {"who": who, "adapter": str(out / "adapter"), **json.loads((out / "measured.json").read_text())}


def peak() -> float:
    """bf16 floating-point operations a second that this machine reaches just now."""
    return float(json.loads(run(sys.executable, "score.py", "--peak").splitlines()[-1])["flops"])


def useful(base: Path, lengths: list[list[int]], rank: int, targets: list[str]) -> float:
    """Floating-point operations that one epoch over rows of [tokens, learned] asks for; see the top of this file."""
    facts = memory.describe(base)
    linear = facts.linear()
    weights = sum(a * b for a, b in linear.values())
    adapter = sum(rank * (a + b) for name, (a, b) in linear.items() if name.rpartition(".")[2] in targets)
    return float(
        sum(
            tokens * (4 * weights + 6 * adapter)
            + facts.layers * 6 * tokens**2 * facts.queries
            + learned * 4 * facts.hidden * facts.vocabulary
            for tokens, learned in lengths
        )
    )


# ---- telling -----------------------------------------------------------------------------------------------------


def same_tokens(ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """Whether both trained the same ids, and how many of them each learned."""
    shared = (Counter(ours["rows"]) & Counter(peer["rows"])).total()
    totals = [[sum(column) for column in zip(*side["lengths"], strict=True)] for side in (ours, peer)]
    (tokens, learned), (peer_tokens, peer_learned) = totals
    text = f"{shared} of {len(ours['rows'])} rows are the same token ids in both"
    text += f"; {tokens} tokens" if tokens == peer_tokens else f"; {tokens} tokens, TRL's {peer_tokens}"
    if learned == peer_learned:
        return f"{text}, {learned} learned by both"
    return f"{text}\n{learned} learned tokens, TRL's {peer_learned} ({peer_learned - learned:+d}): {AFTER_THE_END}"


def table(runs: list[dict[str, Any]], flops: float, top: float) -> None:
    head = f"{'':24}{'tokens/s':>10}{'seconds':>9}{'peak MiB':>10}{'of peak':>9}{'held-out':>10}"
    print(head)
    for one in runs:
        line(NAMES[one["who"]], one, flops, top)
    print()
    middle = {who: medians([one for one in runs if one["who"] == who]) for who in NAMES}
    for who, one in middle.items():
        line(f"{NAMES[who]}, median", one, flops, top)
    ours, peer = middle["ours"], middle["trl"]
    speed, space = ours["speed"] / peer["speed"], ours["peak"] / peer["peak"]
    loss, share = ours["loss"] / peer["loss"] - 1, flops / ours["seconds"] / top
    print()
    print(f"{'ours / TRL':24}{speed:9.2f}x{'':9}{space:10.1%}{'':9}{loss:+10.2%}")
    print(f"{'goal':24}{'2.20x':>10}{'':9}{'<= 45.0%':>10}{'>= 50%':>9}{'<= +1.00%':>10}")
    told = ["met" if good else "missed" for good in (speed >= 2.2, space <= 0.45, share >= 0.5, loss <= 0.01)]
    print(f"{'':24}{told[0]:>10}{'':9}{told[1]:>10}{told[2]:>9}{told[3]:>10}")


def line(name: str, one: dict[str, Any], flops: float, top: float) -> None:
    share = flops / one["seconds"] / top
    print(
        f"{name:24}{one['speed']:10.1f}{one['seconds']:9.2f}{one['peak'] / 2**20:10.0f}{share:9.1%}{one['loss']:10.4f}",
        flush=True,
    )


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: median(one[name] for one in runs) for name in ("speed", "seconds", "peak", "loss")}


# ---- all of it ---------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64, help="training rows, the first of the file")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, alternating")
    parser.add_argument("--data", type=Path, default=ALPACA, help="a JSON array of instruction, input, output")
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ours", action="append", default=[], metavar="KEY=VALUE", help="one more recipe key for ours")
    parser.add_argument("--trl", type=json.loads, default={}, metavar="JSON", help="more of SFTConfig for TRL")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the runs there, with all that was measured")
    return parser.parse_args()


def measure(given: argparse.Namespace, folder: Path) -> None:
    peer = peer_python()
    base = fetch(given.base).folder
    train_rows, held_out = write_rows(given.data, given.rows, folder)
    job: dict[str, Any] = {
        "base": str(base), "train": str(train_rows), "held_out": str(held_out), "seed": given.seed, "batch_size": 8,
        "learning_rate": given.learning_rate, "rank": 16, "alpha": 32, "targets": ["q_proj", "v_proj"],
        "ours": given.ours, "trl": given.trl,
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    load = os.getloadavg()[0]
    print(f"{given.rows} rows of {given.data.name}, {HELD_OUT} held out; base {given.base}; {os.cpu_count()} cores")
    if load > 0.5:
        print(f"note: other work keeps this machine busy (load {load:.1f}); look at the ratios, not at the speeds")
    print(flush=True)
    runs: list[dict[str, Any]] = []
    tops = [peak()]
    for number in range(1, given.rounds + 1):
        for who, python in (("ours", sys.executable), ("trl", peer)):
            print(f"round {number} of {given.rounds}: {NAMES[who]}", file=sys.stderr)
            runs.append(train(who, python, path, folder / f"{who}-{number}"))
        tops.append(peak())
    scores = json.loads(run(sys.executable, "score.py", str(path), *[one["adapter"] for one in runs]).splitlines()[-1])
    lengths = runs[0]["lengths"]
    tokens = {who: sum(length for length, _l in one["lengths"]) for who, one in (("ours", runs[0]), ("trl", runs[1]))}
    for one in runs:
        one["loss"] = scores["losses"][one["adapter"]]
        one["speed"] = tokens[one["who"]] / one["seconds"]
    flops = useful(base, lengths, job["rank"], job["targets"])
    print(same_tokens(runs[0], runs[1]))
    print(f"useful arithmetic {flops / 1e12:.2f} Tflop an epoch; bf16 peak {max(tops) / 1e9:.0f} Gflop/s, ", end="")
    print(f"{runs[0]['threads']} threads, tried {len(tops)} times ({min(tops) / 1e9:.0f} the slowest)")
    print(f"held-out loss of the base {scores['losses']['']:.4f}, {scores['rows']} rows, {scores['learned']} tokens\n")
    table(runs, flops, max(tops))
    if given.keep:
        everything = {"job": job, "runs": runs, "scores": scores, "flops": flops, "peaks": tops}
        (folder / "measured.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")


def main() -> None:
    given = arguments()
    if given.keep:
        given.keep.mkdir(parents=True)
        measure(given, given.keep.resolve())
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder))


if __name__ == "__main__":
    main()
