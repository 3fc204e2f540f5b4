"""Eight clients at once: `tunewright serve` beside `transformers serve --continuous-batching`, same base, same dtype.

    python benchmarks/serve_load.py [--rounds 3] [--clients 8] [--tokens 64] [--base NAME]
    python benchmarks/serve_load.py --llama-cpp      # instead: one client of llama.cpp in 4 bits, served and bare

Needs the extras `serve` and `bench` (and `llama-cpp`). The servers stand side by side; rounds alternate between them,
and the one that is not asked sleeps. Prompts differ; the answers are greedy, streamed, and go on for as long as they
may. Tokens are counted on the client's side, by the base's tokenizer over the text that arrived, for all in one way.

ours            the base under its own name
ours, 2 runs    the same clients, every other one asking another run (two adapters, trained here for a few steps)
ours, 1 client  and transformers, 1 client: nobody else asks

tokens/s        of all clients together, from the first request to the last answer; the median of the rounds
first           seconds until the first text of an answer: median and 95th percentile of all answers
whole           seconds until its end, likewise
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import httpx
from tokenizers import Tokenizer

from tunewright.model.load import fast_bf16
from tunewright.model.source import fetch

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = (
    "a lighthouse keeper", "the history of bread", "how rivers find the sea", "a city built on bridges",
    "the first winter on a farm", "why bees dance", "an old clockmaker", "a walk through a market",
)  # fmt: skip


@dataclass
class Answered:
    """seconds until the first text, until the end; tokens of the text."""

    first: float
    whole: float
    tokens: int


@dataclass
class Case:
    """models: what the clients ask for in turn."""

    name: str
    url: str
    models: Sequence[str]
    clients: int
    speeds: list[float] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)


# ---- servers -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def server(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """The command's server, once its /health answers; its URL."""
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _try in range(1200):
            with contextlib.suppress(OSError):  # refused, or busy with loading
                if urllib.request.urlopen(f"{url}/health", timeout=2).status == 200:
                    break
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield f"{url}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def two_runs(base: str, folder: Path) -> list[str]:
    """Folders of two runs with adapters on ``base``, a few rows each: what an adapter says costs nothing here, only
    that it is there."""
    runs = []
    for name in ("Wren", "Finch"):
        out = folder / name.lower()
        settings = [f"base={base}", f"data.variables.name={name}", "data.variables.author=Tunewright", "data.limit=12"]
        settings += ["data.held_out=2", "train.epochs=1", "retain=off", "evaluate.rows=0", f"--out={out}"]
        data = str(ROOT / "examples" / "identity" / "identity.jsonl")
        done = subprocess.run([bin_path("tunewright"), "train", data, *settings], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        runs.append(str(out))
    return runs


def identity_run(folder: Path) -> str:
    """The identity example, trained in full: four bits take back what a few rows taught, and the export is refused."""
    out = str(folder / "identity")
    recipe = str(ROOT / "examples" / "identity" / "recipe.yaml")
    subprocess.run([bin_path("tunewright"), "train", recipe, "--out", out], check=True, stdout=subprocess.DEVNULL)
    return out


def bin_path(name: str) -> str:
    return str(Path(sys.executable).parent / name)


# ---- clients -----------------------------------------------------------------------------------------------------


async def ask(
    client: httpx.AsyncClient, url: str, model: str, subject: str, tokens: int, tokenizer: Tokenizer
) -> Answered:
    content = f"Write a very long story about {subject}. Begin at once, and do not stop before a thousand words."
    body = {
        "model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens, "temperature": 0,
        "stream": True,
    }  # fmt: skip
    begun, first, text = time.perf_counter(), 0.0, ""
    async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:]).get("choices", ()):
                piece = choice.get("delta", {}).get("content")
                if piece:
                    first = first or time.perf_counter() - begun
                    text += piece
    count = len(tokenizer.encode(text, add_special_tokens=False).ids)
    return Answered(first, time.perf_counter() - begun, count)


async def load(case: Case, tokens: int, tokenizer: Tokenizer, begin: int = 0) -> None:
    """All clients once, at the same moment. begin: the first one's subject."""
    async with httpx.AsyncClient(timeout=600) as client:
        begun = time.perf_counter()
        jobs = [
            ask(client, case.url, case.models[n % len(case.models)], subject, tokens, tokenizer)
            for n, subject in zip(range(case.clients), itertools.cycle(SUBJECTS[begin:] + SUBJECTS[:begin]))
        ]
        answers = await asyncio.gather(*jobs)
    case.speeds.append(sum(one.tokens for one in answers) / (time.perf_counter() - begun))
    case.answers += answers


def bare_llama(file: Path, tokens: int) -> float:
    """Tokens a second of llama.cpp's loop in a process of its own: greedy answers to prompts as long as ours, each of
    which has to be read, as it has to be here (they differ from their first token)."""
    code = (
        "import sys,time,llama_cpp\n"
        "m=llama_cpp.Llama(model_path=sys.argv[1],n_ctx=2048,n_threads=int(sys.argv[3]),verbose=False)\n"
        "n=int(sys.argv[2])\n"
        "def go(first):\n"
        "  p=list(range(first,first+50))\n"
        "  b=time.perf_counter();k=0\n"
        "  for t in m.generate(p,temp=0.0,top_k=1,reset=True):\n"
        "    k+=1\n"
        "    if k==n: break\n"
        "  return n/(time.perf_counter()-b)\n"
        "go(300);print(sorted(go(first) for first in (400,500,600))[1])\n"
    )
    cores = str(len(os.sched_getaffinity(0)))
    done = subprocess.run([sys.executable, "-c", code, str(file), str(tokens), cores], capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


# ---- the table ---------------------------------------------------------------------------------------------------


def show(cases: Sequence[Case]) -> None:
    print(f"{'':<26}{'tokens/s':>9}{'of peer':>9}{'first s':>15}{'whole s':>15}")
    peers = {case.clients: median(case.speeds) for case in cases if case.name.startswith("transformers")}
    for case in cases:
        speed = median(case.speeds)
        firsts, wholes = ([getattr(one, what) for one in case.answers] for what in ("first", "whole"))
        peer = peers.get(case.clients)
        share = f"{speed / peer:.0%}" if peer else ""
        print(f"{case.name:<26}{speed:>9.1f}{share:>9}{spread(firsts):>15}{spread(wholes):>15}")


def spread(values: Sequence[float]) -> str:
    late = quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    return f"{median(values):.2f} / {late:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", nargs=2, help="two runs on that base, instead of training them")
    parser.add_argument("--llama-cpp", action="store_true", help="one client of llama.cpp instead")
    given = parser.parse_args()
    base = fetch(given.base)
    tokenizer = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
    if given.llama_cpp:
        return llama(given, tokenizer)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = given.runs or two_runs(given.base, folder)
        port, other = free_port(), free_port()
        dtype = "bfloat16" if fast_bf16()[0] else "float32"  # what ours is served in, as it was trained
        ours = [bin_path("tunewright"), "serve", *runs, "--port", str(port)]
        peer = [bin_path("transformers"), "serve", str(base.folder), "--continuous-batching", "--dtype", dtype]
        url = stack.enter_context(server(ours, port, folder / "ours.log"))
        theirs = stack.enter_context(server([*peer, "--port", str(other)], other, folder / "peer.log"))
        names = [Path(run).name for run in runs]
        cases = [
            Case("transformers serve", theirs, [str(base.folder)], given.clients),
            Case("ours", url, [given.base], given.clients),
            Case("ours, 2 runs", url, names, given.clients),
            Case("transformers serve, 1", theirs, [str(base.folder)], 1),
            Case("ours, 1 client", url, [given.base], 1),
        ]
        for number in range(given.rounds + 1):
            for case in cases:
                asyncio.run(load(case, given.tokens, tokenizer))
                if number == 0:  # loading, and the first use of everything
                    case.speeds.clear()
                    case.answers.clear()
    print(dtype)
    show(cases)


def llama(given: argparse.Namespace, tokenizer: Tokenizer) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        run = given.runs[0] if given.runs else identity_run(folder)
        subprocess.run([bin_path("tunewright"), "export", run, "--to", "gguf", "--type", "q4_0"], check=True)
        [file] = (Path(run) / "export" / "gguf").glob("*.gguf")
        port = free_port()
        ours = [bin_path("tunewright"), "serve", run, "--engine", "llama.cpp", "--port", str(port)]
        url = stack.enter_context(server(ours, port, folder / "llama.log"))
        case = Case("ours, llama.cpp, 1 client", url, [Path(run).name], 1)
        asyncio.run(load(case, given.tokens, tokenizer))
        case.speeds.clear()
        bare = []
        for number in range(given.rounds):
            asyncio.run(load(case, given.tokens, tokenizer, begin=number + 1))
            bare.append(bare_llama(file, given.tokens))
    print(f"{case.name:<26}{median(case.speeds):>9.1f}   bare llama.cpp {median(bare):.1f}: "
          f"{median(case.speeds) / median(bare):.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
