"""``tunewright doctor``: what this machine has, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.table import Table

from tunewright.cli.main import json_option, verb
from tunewright.model import derived
from tunewright.settings import settings
from tunewright.text import _

State = Literal["ok", "note", "wrong"]
NEEDED = ("torch", "transformers", "peft", "safetensors", "gguf", "huggingface_hub")
OPTIONAL = ("modelscope", "tensorboard", "wandb", "mlflow", "trackio")  # each has an extra of its own name
GIB = 1 << 30


@dataclass(frozen=True)
class Line:
    """One thing looked at. ``wrong`` means that training cannot work; ``do`` says what to do about it."""

    what: str
    state: State
    value: str
    do: str = ""


@verb(next="tunewright models")
@json_option
def command(as_json: bool) -> None:
    """Look at this machine: versions, cores, memory, disk, GPU, cache. Asks no network.

    Exits 2 if something essential is wrong.
    """
    lines = look()
    wrong = [line for line in lines if line.state == "wrong"]
    if as_json:
        found = {"ok": not wrong, "lines": [asdict(line) for line in lines]}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        _show(lines, wrong)
    if wrong:
        sys.exit(2)


def look() -> list[Line]:
    lines = [_python(), *_packages()]
    if importlib.util.find_spec("torch"):
        lines += _chip()
    return [*lines, _cores(), _memory(), _disk(), _cache(), _pip(), _extras()]


def _show(lines: list[Line], wrong: list[Line]) -> None:
    console = Console(width=min(80, Console().width), highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {"ok": "green", "note": "yellow", "wrong": "red"}
    for line in lines:
        text = line.value + (f"\n{line.do}" if line.do else "")
        table.add_row(f"[{colours[line.state]}]{line.state}[/]", line.what, text.replace("[", "\\["))
    console.print(table)
    console.print()
    if wrong:
        console.print(_("Training cannot work yet, because of: {what}", what=", ".join(line.what for line in wrong)))
        console.print(_("Next: mend it as written above, then type tunewright doctor again"), markup=False)
    else:
        console.print(_("Everything needed is there. Next: tunewright train data.jsonl"), markup=False)


def _python() -> Line:
    return Line("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _packages() -> list[Line]:
    lines = []
    for name in NEEDED:
        try:
            lines.append(Line(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            lines.append(Line(name, "wrong", _("not installed"), f"pip install {name}"))
    return lines


def _chip() -> list[Line]:
    try:
        import torch

        from tunewright.model.load import fast_bf16, pick_device
    except Exception as error:  # whatever a broken installation throws is the finding
        return [Line("torch", "wrong", _("cannot be imported: {why}", why=error), _("install torch again"))]
    device = pick_device()
    gpu = Line("gpu", "note", _("none; training runs on the CPU"))
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        gpu = Line("gpu", "ok", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    fast, why = fast_bf16(device)
    return [gpu, Line("bf16", "ok" if fast else "note", why)]


def _cores() -> Line:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Line("cores", "ok", str(usable))


def _memory() -> Line:
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    value = _("{free} of {total} GiB free", free=f"{memory.available / GIB:.1f}", total=f"{memory.total / GIB:.1f}")
    if memory.available < 1.5 * GIB:
        return Line("memory", "note", value, _("the smallest base wants about 1.5 GiB; close something"))
    return Line("memory", "ok", value)


def _disk() -> Line:
    usage = shutil.disk_usage(Path.cwd())
    value = _("{free} GiB free in this folder", free=f"{usage.free / GIB:.1f}")
    if usage.free < GIB:
        return Line("disk", "note", value, _("a run with its checkpoints wants about 1 GiB"))
    return Line("disk", "ok", value)


def _cache() -> Line:
    folder = settings().cache
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"tunewright")
    except OSError as error:
        advice = _("name a folder you may write to with TUNEWRIGHT_CACHE=FOLDER")
        return Line("cache", "wrong", f"{folder}: {error.strerror or error}", advice)
    used = derived.bytes_below(folder)
    left = sorted(p.name for p in derived.root().glob(".*.partial")) if derived.root().exists() else []
    value = _("{folder} ({size} GiB)", folder=folder, size=f"{used / GIB:.1f}")
    if shutil.disk_usage(folder).free < GIB:
        return Line("cache", "note", value, _("less than 1 GiB is free there; TUNEWRIGHT_CACHE puts it elsewhere"))
    if left:
        names = ", ".join(left)
        return Line("cache", "note", value, _("unfinished: {names}; the next fetch goes on from there", names=names))
    return Line("cache", "ok", value)


def _pip() -> Line:
    if importlib.util.find_spec("pip") is None:
        return Line("pip", "note", _("not installed; bases from packages cannot be fetched"), "python -m ensurepip")
    value = importlib.metadata.version("pip")
    return Line("pip", "ok", value + (_("; offline by your wish") if settings().offline else ""))


def _extras() -> Line:
    missing = sorted(name for name in OPTIONAL if importlib.util.find_spec(name) is None)
    if not missing:
        return Line("extras", "ok", _("all optional packages are installed"))
    value = _("not installed, and not needed unless you ask for them: {names}", names=", ".join(missing))
    return Line("extras", "note", value, f"pip install 'tunewright[{missing[0]}]'")
