"""Reading, checking and rendering 100,000 instruction rows: ours the first time, ours from the cache, `datasets.map`.

    python benchmarks/data_speed.py [--rows 100000] [--base FOLDER_OR_NAME]

Needs `pip install datasets transformers` for the third line only. Each line runs in a process of its own; memory is the
highest sum of resident sizes over that process and all its children, looked at twenty times a second (Linux).
`datasets.map` gets its best stock settings (batched, one process to a core) and does the rendering alone: no checks, no
duplicates, no split.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could people my
than first water been call who oil its now find long down day did get come made may part over new sound take only
little work know place year live me back give most very after thing our just name good sentence man think say great
where help through much before line right too mean old any same tell boy follow came want show also around form
three small set put end does another well large must big even such because turn here why ask went men read need land
different home us move try kind hand picture again change off play spell air away animal house point page letter
mother answer found study still learn should world explain describe summarize compare temperature energy history
language computer software government environment economic research development important information technology
education experience community available including something understand consider provide example result process
method analysis language, model, data. question. reason. however, therefore, because, first, second, finally, water.
people. country. system. market. music.
"""
WORDS = TEXT.split()


def write_rows(path: Path, rows: int, seed: int = 0) -> None:
    """Rows with the lengths of Alpaca: short questions, some with an input, answers with a long tail."""
    draw = random.Random(seed)
    weights = [1 / (rank + 3) for rank in range(len(WORDS))]

    def text(words: float) -> str:
        return " ".join(draw.choices(WORDS, weights, k=max(2, int(words)))).capitalize() + "."

    with open(path, "w", encoding="utf-8") as file:
        file.write("[\n")
        for number in range(rows):
            row = {
                "instruction": text(draw.uniform(6, 20)),
                "input": text(draw.uniform(5, 40)) if draw.random() < 0.4 else "",
                "output": text(min(600, draw.lognormvariate(3.8, 0.9))),
            }
            file.write("  " + json.dumps(row) + (",\n" if number + 1 < rows else "\n"))
        file.write("]\n")


def ours(data: Path, base: str) -> dict[str, float]:
    from tunewright.data.prepare import prepare
    from tunewright.data.template import ChatTemplate
    from tunewright.recipe.schema import Data

    template = ChatTemplate.from_folder(Path(base))
    done = prepare(Data(train=[str(data)]), 0, lambda labels: template, 8192)
    return {"rows": done.ledger["kept"], "tokens": done.ledger["tokens"], "cached": float(done.cached)}


def peer(data: Path, base: str) -> dict[str, float]:
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = datasets.load_dataset("json", data_files=str(data), split="train")

    def render(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts: list[str] = []
        borders: list[int] = []
        for question, more, answer in zip(batch["instruction"], batch["input"], batch["output"], strict=True):
            asked = [{"role": "user", "content": f"{question}\n{more}" if more else question}]
            told = [*asked, {"role": "assistant", "content": answer}]
            prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            whole = tokenizer.apply_chat_template(told, tokenize=False)
            texts += [prompt, whole[len(prompt) :]]
            borders.append(len(prompt))
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return {
            "input_ids": [a + b for a, b in zip(ids[::2], ids[1::2], strict=True)],
            "labels": [[-100] * len(a) + b for a, b in zip(ids[::2], ids[1::2], strict=True)],
        }

    done = rows.map(render, batched=True, num_proc=os.cpu_count(), remove_columns=rows.column_names)
    return {"rows": len(done), "tokens": float(sum(len(row) for row in done["input_ids"])), "cached": 0.0}


def _resident(process: int) -> int:
    """Bytes resident in ``process`` and its descendants."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            sizes[int(entry.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    total, todo = 0, [process]
    while todo:
        one = todo.pop()
        total += sizes.get(one, 0)
        todo += children.get(one, [])
    return total


def measured(what: str, data: Path, base: str, cache: Path) -> dict[str, float]:
    """One run in a process of its own: seconds from start to end, imports included, and peak memory."""
    environment = {
        **os.environ,
        "TUNEWRIGHT_CACHE": str(cache),
        "HF_DATASETS_CACHE": str(cache / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    started = time.perf_counter()
    command = [sys.executable, __file__, "--only", what, "--data", str(data), "--base", base]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{what} failed")
    return {**json.loads(output.strip().splitlines()[-1]), "seconds": seconds, "peak": peak / 2**20}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--base", default="smollm2-135m-instruct")
    arguments.add_argument("--only", choices=("ours", "peer"), help=argparse.SUPPRESS)
    arguments.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.only:
        print(json.dumps((ours if given.only == "ours" else peer)(given.data, given.base)))
        return
    base = given.base
    if not Path(base).is_dir():
        from tunewright.model.source import fetch

        base = str(fetch(base).folder)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.json"
        write_rows(data, given.rows)
        print(f"{given.rows} rows, {data.stat().st_size / 2**20:.0f} MiB, {os.cpu_count()} cores\n")
        print(f"{'':34}{'seconds':>9}{'peak MiB':>10}{'tokens':>12}")
        for title, what in (
            ("tunewright, first time", "ours"),
            ("tunewright, from the cache", "ours"),
            ("datasets.map, rendering only", "peer"),
        ):
            found = measured(what, data, base, Path(folder) / "cache")
            print(f"{title:34}{found['seconds']:9.1f}{found['peak']:10.0f}{found['tokens']:12.0f}", flush=True)


if __name__ == "__main__":
    main()
