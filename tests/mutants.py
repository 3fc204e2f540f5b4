"""Data files and recipes with one to three faults in each, always the same ones for the same seed, and what must hold
of every one: no traceback, no hang, no lost row. ``benchmarks/fuzz.py`` tries ten thousand, the tests some hundreds."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conftest import write_tiny_tokenizer

from tunewright.cli.main import main
from tunewright.data.guess import guess_task
from tunewright.data.prepare import prepare
from tunewright.data.template import ChatTemplate
from tunewright.errors import InputError
from tunewright.recipe.schema import Data

LIMIT = 20.0  # seconds of the processor for one file; a wall clock would measure the machine's other work

CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"place": "Harrow"}'}}
ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "instruction": lambda i: {"instruction": f"Name hill {i}", "input": "", "output": f"It is Harrow {i * i}."},
    "messages": lambda i: {"messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Where is {i}?"},
        {"role": "assistant", "content": f"By the river {i * 3}.", "weight": 1}]},
    "tools": lambda i: {"messages": [
        {"role": "user", "content": f"Find {i}"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "found", "tool_call_id": "1"}, {"role": "assistant", "content": f"Here: {i}"}]},
    "sharegpt": lambda i: {"conversations": [
        {"from": "human", "value": f"你好 {i}"}, {"from": "gpt", "value": f"我是小模型 {i}。"}]},
    "reasoning": lambda i: {"Question": f"Why {i}?", "Complex_CoT": f"First {i}", "Response": f"Because {i}"},
    "labels": lambda i: {"text": f"A note about bread {i}", "label": ["good", "bad"][i % 2]},
    "pairs": lambda i: {"source": f"salt {i}", "target": f"sel {i}"},
    "documents": lambda i: {"text": f"The river {i} rises in the hills."},
}  # fmt: skip

WEIRD: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**400, -(10**30), 1e308, float("nan"), float("inf"), "", " ", "\n", "\0", "\ufeff",
    "\ud800", "\u2028", "{{name}}", "<|im_end|>", "Ã©Ã¨", "x" * 5000, [], {}, [[]], [None], {"": None}, [1, "a", {}],
    {"role": "user"}, {"role": 3, "content": {}}, [{"role": "assistant", "content": "a"}], "NaN", "null", "[", '"',
]  # fmt: skip
BYTES = [
    b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\0", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'"', b"'", b"\\",
    b"\n", b"\r", b"\r\n", b"\t", b",", b";", b"{", b"}", b"[", b"]", b":", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000,
    b"1e999", b"NaN", b"-Infinity", b"\\ud83d", b"\\u0000", b'{"a": 1, "a": 2}', b"\n\n\n", b"PAR1", b"\x1f\x8b\x08",
    b"\xe2\x80\xa8", b"#", b"---\n", b"&a *a ", b"!!python/object:os.system ", b"<<: *a\n", b"? ", b"| ", b"> ", b"%",
    b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n",
]  # fmt: skip

RECIPE = """\
base: smollm2-135m-instruct
task: chat
seed: 3
data:
  train: [a.jsonl, "b.csv"]
  variables: {name: Wren, author: 智汇云}
  held_out: 0.1
  max_length: 512
train:
  method: lora
  epochs: 3
  batch_size: 8
  learning_rate: 2e-4
  schedule: cosine
lora: {rank: 8, alpha: 16, targets: [q_proj, v_proj]}
evaluate: {rows: 20}
checks:
- contains: "{{name}}"
- number
"""


class Hang(BaseException):
    """It took longer than ``LIMIT``. No Exception, so that nothing on the way catches it."""


@contextlib.contextmanager
def limited(seconds: float = LIMIT) -> Iterator[None]:
    def late(_number: int, _frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# ---- making them -------------------------------------------------------------------------------------------------


def mutant(seed: int, number: int) -> tuple[str, bytes]:
    """Name and content of mutant ``number``: three data files, then a recipe."""
    draw = random.Random(f"{seed}/{number}")
    if number % 4 == 3:
        return f"{number}.yaml", _damaged(draw, RECIPE.encode(), draw.randint(1, 3))
    kind = draw.choice(sorted(ROWS))
    rows = [ROWS[kind](i) for i in range(draw.choice([1, 3, 12, 14]))]
    if draw.random() < 0.6:
        for _ in range(draw.randint(1, 3)):
            rows[draw.randrange(len(rows))] = _replaced(draw, rows[draw.randrange(len(rows))])
    suffix = draw.choice(["jsonl", "jsonl", "json", "csv", "tsv", "parquet"])
    content = _written(suffix, rows)
    if draw.random() < 0.45:
        content = _damaged(draw, content, draw.randint(1, 3))
    if draw.random() < 0.08:
        content = _encoded(draw, content)
    return f"{number}.{suffix}", content


def _replaced(draw: random.Random, value: Any) -> Any:
    """The same value with something odd at one place of it, or a key gone, new or twice as long."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(sorted(value))
        how = draw.random()
        if how < 0.1:
            return {name: one for name, one in value.items() if name != key}
        if how < 0.2:
            return value | {draw.choice(["", "label", "messages", "extra", key + " ", key.upper()]): draw.choice(WEIRD)}
        return value | {key: _replaced(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        if draw.random() < 0.2:
            return value[:place] + value[place + 1 :]
        return [*value[:place], _replaced(draw, value[place]), *value[place + 1 :]]
    return draw.choice(WEIRD)


def _written(suffix: str, rows: list[Any]) -> bytes:
    if suffix == "json":
        return json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if suffix == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    flat = [{str(k): v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
            for row in rows if isinstance(row, dict)] or [{"text": ""}]  # fmt: skip
    names = list(dict.fromkeys(name for row in flat for name in row))
    if suffix == "parquet":
        return _parquet(names, flat)
    out = io.StringIO()
    writer = csv.DictWriter(out, names, delimiter="\t" if suffix == "tsv" else ",")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _parquet(names: list[str], rows: list[dict[str, str]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    clean = {n: [r.get(n, "").encode("utf-8", "replace").decode() for r in rows] for n in names}
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(clean), out)
    return out.getvalue()


def _damaged(draw: random.Random, content: bytes, times: int) -> bytes:
    for _ in range(times):
        place = draw.randrange(len(content) + 1)
        how = draw.randrange(6)
        if how == 0:
            content = content[:place]
        elif how == 1:
            content = content[:place] + content[place + draw.randint(1, 12) :]
        elif how == 2 and content:
            place = min(place, len(content) - 1)
            content = content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        elif how == 3:
            content = content[:place] + content[place : place + 40] * draw.choice([2, 2, 50]) + content[place:]
        else:
            content = content[:place] + draw.choice(BYTES) + content[place:]
    return content


def _encoded(draw: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(draw.choice(["utf-16", "utf-16-le", "utf-32", "gb18030", "latin-1", "cp1252"]), "replace")


# ---- what must hold ----------------------------------------------------------------------------------------------


class Trial:
    """Tries mutants in ``folder``; ``template`` is that of a tiny base, for the ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = folder / "base"
        base.mkdir(parents=True)
        write_tiny_tokenizer(base)
        (base / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        self.template = ChatTemplate.from_folder(base, None, True)
        self.counted = {"refused": 0, "read": 0, "ledgers": 0}

    def __call__(self, name: str, content: bytes) -> str | None:
        """None, or what is wrong."""
        path = self.folder / name
        path.write_bytes(content)
        try:
            with limited():
                return self._recipe(path) if path.suffix == ".yaml" else self._data(path)
        except Hang:
            return f"took longer than {LIMIT:g} seconds"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            path.unlink()

    def _recipe(self, path: Path) -> str | None:
        code, _said, error = run("recipe", "check", str(path))
        self.counted["read" if code == 0 else "refused"] += 1
        return _verdict(code, error)

    def _data(self, path: Path) -> str | None:
        code, said, error = run("data", "check", str(path), "--json")
        wrong = _verdict(code, error if not said.startswith('{\n  "task"') else "  type:  ")
        if wrong or not said.startswith('{\n  "task"'):
            self.counted["refused"] += 1
            return wrong
        self.counted["read"] += 1
        there, found = rows_there(path), json.loads(said)
        if there is not None and found["rows"] != there:
            return f"{found['rows']} rows read of {there} that are there"
        return self._ledger(path, found["rows"])

    def _ledger(self, path: Path, rows: int) -> str | None:
        data = Data(train=[str(path)], too_long="drop", max_length=200, allow_unlearned=True, allow_few=True)
        try:
            if guess_task(data)[0] != "chat":
                return None
            ledger = prepare(data, 0, lambda labels: self.template, 512, cache=False).ledger
        except InputError:
            return None
        self.counted["ledgers"] += 1
        out = sum(ledger["left_out"].values())
        held = ledger["train"] + ledger["held_out"]
        if not ledger["rows_in"] == ledger["kept"] + out == rows or held != ledger["kept"]:
            return f"the ledger does not add up: {ledger}"
        return None


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return code, out.getvalue(), err.getvalue()


def _verdict(code: int, error: str) -> str | None:
    if code not in (0, 2):
        return f"exit code {code}: {error.strip()}"
    if code == 2 and "  type:  " not in error:
        return f"refused without saying what to type: {error.strip()}"
    return None


def rows_there(path: Path) -> int | None:
    """Rows of a file as plain Python counts them; None where it cannot, or where that is a matter of opinion."""
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return int(parquet.read_table(path).num_rows)
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix in (".csv", ".tsv"):
            read = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",",
                                   strict=True))  # fmt: skip
            return len(read) - 1 if all(len(row) == len(read[0]) > 1 for row in read) else None
        if text.lstrip().startswith("["):
            whole = json.loads(text)
            return len(whole) if isinstance(whole, list) else None
        lines = [line for line in text.split("\n") if line.strip()]
        return len(lines) if all(isinstance(json.loads(line), dict) for line in lines) else None
    except Exception:
        return None
