"""All that the rest of the house knows of a task.

A task says how rows are read (``reads``), what kind of model it needs (``head``) and what a trained model gives back
(``gives``); it writes examples as ids, loads the model and states the loss. Trainer, measuring, report and the verbs
know tasks only through this file, so that a new task is a new file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from tunewright.data.codec import Codec
from tunewright.example import Chat, Rendered
from tunewright.model.labels import LabelLogits
from tunewright.recipe.schema import Recipe

Reads = Literal["turns", "labels", "pairs", "documents"]  # which formats of data/ apply
Head = Literal["decoder", "classifier", "encoder_decoder"]  # which class of transformers loads the base
Gives = Literal["answers", "labels", "outputs", "likelihood"]  # how infer/, evaluate/ and report/ treat its model
Objective = Callable[[Sequence[Rendered]], torch.Tensor]  # rows -> loss in nats summed over learned tokens, () fp32


@dataclass(frozen=True, slots=True)
class Question:
    """A row turned into something to ask. prompt: ids up to where the answer begins.  text: what is given, for
    people.  reference: the answer that the row holds.  thinking: the chain of thought before it, if it has one."""

    prompt: Sequence[int]
    text: str
    reference: str
    thinking: str | None = None


class Task(Protocol):
    """A new task is a new file with one of these. See ``tasks/chat.py`` for the plainest."""

    name: str
    reads: Reads
    head: Head
    gives: Gives
    retains: bool  # general prompts are asked before and after, and held to the base while training

    def require(self, folder: Path, name: str) -> None:
        """Raises BaseModelError, naming bases that would do, unless the base in ``folder`` can learn this task."""
        ...

    def codec(self, folder: Path, recipe: Recipe, labels: Sequence[str] = ()) -> Codec:
        """How examples are written for the base in ``folder`` (or a run's own folder). ``labels``: their names in the
        order of their numbers, where the task reads labels; before they are known it is empty."""
        ...

    def objective(self, model: Any, codec: Codec) -> Objective:
        """The loss of rows."""
        ...

    def question(self, chat: Chat, codec: Codec) -> Question | None:
        """How an example is asked, None if it has no learned answer to compare with."""
        ...


@runtime_checkable
class LabelTask(Task, Protocol):
    """A task that gives labels. Its codec has ``labels``, their names in the order of their numbers."""

    def logits(self, model: Any, codec: Codec) -> LabelLogits:
        """One number to each label, before softmax (or sigmoid, where a row may have several)."""
        ...

    def given(self, chat: Chat) -> tuple[str, str | None]:
        """The text of an example, and the second one of a pair."""
        ...

    def wanted(self, chat: Chat, labels: Sequence[str]) -> tuple[int, ...]:
        """Numbers of the example's labels."""
        ...


@runtime_checkable
class JoiningTask(Task, Protocol):
    """A task whose examples are joined to rows of one length before they are trained on."""

    def arrange(self, rows: Sequence[Rendered], length: int, measured: bool = False) -> Sequence[Rendered]:
        """The trained rows of at most ``length`` tokens; of measured ones each stays apart from the others."""
        ...
