"""Tunewright: from a data file to a measurably better chat model.

    import tunewright
    run = tunewright.train("data.jsonl")
    print(run.chat("Who are you?"))

Nothing heavy is imported until ``train`` or ``Run`` is asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tunewright.settings import before_torch

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "train"]

if TYPE_CHECKING:
    from tunewright.api import Run as Run
    from tunewright.api import train as train


def _api() -> Any:
    before_torch()  # which api imports
    return importlib.import_module("tunewright.api")


class _Package(ModuleType):
    """``tunewright.train`` is the function, although there is a room of that name.

    The import system writes a room's module into its package when the room is first imported; a plain attribute would
    then stop being the function, depending on what somebody imported before. Import from the room as
    ``from tunewright.train import loss``.
    """

    @property
    def train(self) -> Any:
        return _api().train

    @train.setter
    def train(self, value: Any) -> None:
        """The room's module: it stays in ``sys.modules``, where imports look for it."""

    @property
    def Run(self) -> Any:
        return _api().Run


sys.modules[__name__].__class__ = _Package
