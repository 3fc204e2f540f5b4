"""What a training tells the person who waits for it. The command line shows it; Python may ignore it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tunewright.rundir import RunDir


class Listener:
    """Does nothing; subclass it to show things."""

    def say(self, text: str) -> None:
        """A sentence that stays on the screen."""

    def opened(self, run: RunDir) -> None:
        """The run folder is there."""

    @contextlib.contextmanager
    def doing(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A piece of work of ``total`` items; the callable counts finished ones."""
        yield lambda count: None

    @contextlib.contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        """The steps. The callable is given each line of ``metrics.jsonl``, or ``{"note": sentence}``."""
        yield lambda line: None
