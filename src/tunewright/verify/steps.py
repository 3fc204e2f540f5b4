"""What ``resume`` runs as a process of its own: the steps of a recipe in a scratch folder, with a way to die in one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tunewright.errors import InputError
from tunewright.rundir import RunDir
from tunewright.train.events import Listener
from tunewright.train.run import steps_alone


class Dying(Listener):
    """Kills its own process, as ``kill -9`` from outside would, when ``step`` is told; never for 0."""

    def __init__(self, step: int) -> None:
        self.step = step

    @contextlib.contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        def show(line: dict[str, Any]) -> None:
            if self.step and line.get("step") == self.step:
                os.kill(os.getpid(), signal.SIGKILL)

        yield show


def main(folder: str, die_after: str) -> int:
    try:
        steps_alone(RunDir(folder), Dying(int(die_after)))
    except InputError as error:
        print(" ".join(str(error).split()))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
