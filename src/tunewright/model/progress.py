"""What is being done right now, on stderr, for anything that takes more than a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# Called with bytes done so far (None: unknown) and, where it changed, what is being done.
Report = Callable[[int | None, str | None], None]


def say(text: str) -> None:
    """One line on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


@contextlib.contextmanager
def doing(text: str, total_bytes: int | None = None, show: bool = True) -> Iterator[Report]:
    """A spinner (or a bar of bytes) while the block runs; a plain line where stderr is no terminal."""
    console = Console(stderr=True, highlight=False)
    if not show or not console.is_terminal:
        if show:
            say(text)
        yield lambda done, what: None
        return
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if total_bytes:
        columns += [BarColumn(bar_width=20), DownloadColumn()]
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(text, total=total_bytes)

        def report(done: int | None, what: str | None) -> None:
            bar.update(task, completed=done, description=what or text)

        yield report
