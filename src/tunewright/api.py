"""Tunewright from Python: the same verbs as on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright import rundir
from tunewright.data.asked import asking, line_column
from tunewright.data.read import Row
from tunewright.example import Message, Origin
from tunewright.export.run import Exported
from tunewright.export.run import export as export_run
from tunewright.infer.open import Opened, open_run
from tunewright.infer.predict import Empty, Options, Predictor, TooLong, reading_of
from tunewright.recipe.load import load
from tunewright.report import confusion, curves, page
from tunewright.rundir import RunDir
from tunewright.train import run as story
from tunewright.train.events import Listener
from tunewright.train.ranks import join
from tunewright.verify import run as proofs
from tunewright.verify.run import Verified


@dataclass
class Run:
    """A finished run: its folder, its numbers, and its model once it is asked something."""

    folder: RunDir
    _opened: dict[bool, Opened] = field(default_factory=dict, repr=False)

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

    def predict(
        self, rows: Sequence[str | Mapping[str, Any]], *, too_long: TooLong | None = None, empty: Empty = "stop",
        max_new_tokens: int | None = None, tuned: bool = True,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Labels with probabilities, outputs or answers: one result to each row, as ``tunewright predict`` writes it.

        rows: texts, or rows with fields as in a data file. ``tuned=False`` asks the base instead. Raises DataError for
        a row that is empty or too long, unless it should be skipped (or cut).
        """
        opened = self._open(tuned)
        reading = reading_of(opened.task, opened.recipe, opened.labels)
        column = line_column(opened.recipe.data)
        fields = [{column: row} if isinstance(row, str) else dict(row) for row in rows]
        read = [Row(one, Origin("rows", 0, number)) for number, one in enumerate(fields, start=1)]
        if not read:
            return []
        chats = asking(read, opened.recipe.data, reading).chats(read)
        return Predictor(opened, Options(too_long, empty, max_new_tokens))(read, chats)

    def verify(self, only: Sequence[str] = (), listener: Listener | None = None) -> Verified:
        """What ``tunewright verify`` proves; a proof that does not hold is a result. ``only``: names of proofs."""
        return proofs.verify(self.folder, only, listener)

    def export(
        self, to: str, out: str | os.PathLike[str] | None = None, *, type: str | None = None, force: bool = False,
        listener: Listener | None = None,
    ) -> Exported:  # fmt: skip
        """As ``tunewright export --to TO``: written, read back, compared; only then in its place (by default
        ``export/TO`` of the run). Raises the errors of ``tunewright.errors``."""
        return export_run(self.folder, to, out, type, force, listener)

    def _open(self, tuned: bool) -> Opened:
        if tuned not in self._opened:
            self._opened[tuned] = open_run(self.folder, tuned)
        return self._opened[tuned]

    def stream(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        tuned: bool = True,
    ) -> Any:
        """The answer to a conversation, piece by piece."""
        opened = self._open(tuned)
        opened.require_chat(self.folder)
        engine, recipe = opened.engine, opened.recipe
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
    """The pictures and the page, which read a run and are no part of training. Of several processes one writes them."""
    if not join().first:
        return run
    curves.write(run)
    confusion.write(run)
    page.write(run)
    return run
