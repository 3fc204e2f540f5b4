"""What a person sees of a training: sentences and bars on standard error, everything also in the run's log."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tunewright.rundir import LOG, RunDir
from tunewright.text import _
from tunewright.train.events import Listener


def _wrapped(line: str) -> str:
    """A long line broken at 80 columns; what follows stands under the line's last column (two spaces or more apart)."""
    columns = [place.end() for place in re.finditer(r"(?:^|\S)(?: {2,}|: +)(?=\S)", line) if place.end() <= 40]
    return textwrap.fill(line, 80, subsequent_indent=" " * max(columns, default=0), break_on_hyphens=False)


def leave_terminal() -> None:
    """The terminal is closed: what would go to it, or come from it, is nothing from now on."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode):  # files and pipes stay
                os.dup2(null, number)
    if null > 2:
        os.close(null)


class _Terminal:
    """Standard error, which a closed terminal must not turn into the end of a training."""

    def write(self, text: str) -> int:
        return int(self._lasting(lambda: sys.stderr.write(text)))

    def flush(self) -> None:
        self._lasting(sys.stderr.flush)

    def _lasting(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            leave_terminal()
            return act()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class Screen(Listener):
    def __init__(self, set_log: Callable[[Path], None] | None = None) -> None:
        self.console = Console(file=cast(TextIO, _Terminal()), highlight=False)
        self.run: RunDir | None = None
        self.set_log = set_log
        self.said: list[str] = []  # before there was a log to write it to

    def say(self, text: str) -> None:
        for line in text.splitlines():
            self.console.print(_wrapped(line), markup=False, soft_wrap=True)
        self.log(text)

    def opened(self, run: RunDir) -> None:
        self.run = run
        if self.set_log:
            self.set_log(run.file(LOG))
        self.console.print(_("Run:    {run}", run=run), markup=False, soft_wrap=True)
        for text in self.said:
            self.log(text)

    def log(self, text: str) -> None:
        """For the run's log alone, once there is one."""
        if self.run is None:
            self.said.append(text)
            return
        with open(self.run.file(LOG), "a", encoding="utf-8") as log:
            log.write(text + "\n")

    @contextlib.contextmanager
    def doing(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        with self._bars() as bars:
            task = bars.add_task(what, total=total or None)
            yield lambda count: bars.advance(task, count)

    @contextlib.contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        with self._bars(TextColumn("{task.fields[numbers]}")) as bars:
            task = bars.add_task(_("Training"), total=steps, completed=done, numbers="")

            def show(line: dict[str, Any]) -> None:
                if "note" in line:
                    self.say(line["note"])
                    return
                speed = line["tokens_per_second"]
                numbers = _("loss {loss:.3f} · {speed:.0f} tokens/s", loss=line["loss"], speed=speed)
                bars.update(task, completed=line["step"], numbers=numbers)

            yield show

    def _bars(self, *more: TextColumn) -> Progress:
        columns = [
            TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), *more,
            TimeElapsedColumn(), TextColumn("·"), TimeRemainingColumn(),
        ]  # fmt: skip
        return Progress(*columns, console=self.console, transient=not self.console.is_terminal)


def plan_table(plan: dict[str, Any]) -> str:
    """Memory, time and disk, one a line."""
    gb = 1e9
    memory = [f"{name} {size / gb:.2f}" for name, size in plan["memory"].items() if name != "total" and size]
    phases = [f"{name} {seconds:.0f} s" for name, seconds in plan["phases"].items()]
    lines = [
        _("Memory  {total:.1f} GB", total=plan["memory_bytes"] / gb),
        *_parts(memory),
        _("Time    {total}", total=_minutes(plan["seconds"])),
        *_parts(phases),
        _("Disk    {total:.2f} GB for the run folder", total=plan["disk_bytes"] / gb),
        _("Tokens  {all:,} an epoch, {learned:,} of them learned", all=plan["tokens"], learned=plan["learned_tokens"]),
    ]
    return "\n".join(lines)


def _parts(parts: list[str]) -> list[str]:
    return textwrap.wrap(", ".join(parts), 80, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
