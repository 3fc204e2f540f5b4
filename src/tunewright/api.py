"""Tunewright from Python: the same verbs as on the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright import rundir
from tunewright.example import Message
from tunewright.recipe.load import load
from tunewright.report import curves, page
from tunewright.rundir import RunDir
from tunewright.train import run as story
from tunewright.train.events import Listener


@dataclass
class Run:
    """A finished run: its folder, its numbers, and its model once it is asked something."""

    folder: RunDir
    _engines: dict[bool, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Run:
        """The run in ``path``, or the last one."""
        return cls(rundir.find(None if path is None else os.fspath(path)))

    @property
    def evaluation(self) -> dict[str, Any]:
        """The content of ``evaluation.json``."""
        return dict(rundir.read_json(self.folder.file(rundir.EVALUATION)))

    @property
    def verdict(self) -> str:
        return str(self.evaluation["verdict"])

    def chat(
        self, text: str, *, max_new_tokens: int = 256, temperature: float = 0.0, top_p: float = 1.0, tuned: bool = True
    ) -> str:
        """One answer; greedy unless ``temperature`` is above 0. ``tuned=False`` asks the base instead."""
        return "".join(self.stream([Message("user", text)], max_new_tokens, temperature, top_p, tuned)).strip()

    def stream(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        tuned: bool = True,
    ) -> Any:
        """The answer to a conversation, piece by piece."""
        if tuned not in self._engines:
            self._engines[tuned] = story.open_engine(self.folder, tuned)
        engine, recipe = self._engines[tuned]
        opening = [Message("system", recipe.data.system)] if recipe.data.system else []
        prompt = engine.template.prompt_ids([*opening, *messages])
        return engine.stream(prompt, max_new_tokens, temperature, top_p)


def train(
    source: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
) -> Run:
    """Train on a data file or a recipe. ``overrides`` are recipe keys as on the command line: ``["train.epochs=2"]``.

    Raises the errors of ``tunewright.errors``.
    """
    return Run(written(story.train(load(os.fspath(source), overrides), out, listener)))


def resume(path: str | os.PathLike[str] | None = None, listener: Listener | None = None) -> Run:
    """Go on with an interrupted run."""
    return Run(written(story.resume(rundir.find(None if path is None else os.fspath(path)), listener)))


def written(run: RunDir) -> RunDir:
    """The curve and the page, which read a run and are no part of training."""
    curves.write(run)
    page.write(run)
    return run
