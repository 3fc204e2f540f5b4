"""Answering many at once: what the endpoint asks, and what each engine that serves it must do.

An engine that serves is another thing than one that measures (``engine.py``): requests come one by one, each with its
own limits, run side by side, and their tokens are wanted as they come. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tunewright.data.codec import Codec

End = Literal["stop", "length"]
Gives = Literal["answers", "outputs", "labels", "vectors"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted.

    prompt: ids, at least one.  stops: ids that end the answer.  adapter: the run whose adapter answers, None for the
    weights as they are.  temperature: 0 is greedy.  top_p: the nucleus that is drawn from, in (0, 1].  seed: the same
    seed draws the same tokens, whatever else is answered at the same time.  top_logprobs: log-probabilities of so many
    likeliest tokens are wanted with each token; 0 of the chosen one alone; None of none.  grammar: what the answer has
    to look like, in llguidance's form (``infer/grammar.py``).
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    stops: frozenset[int]
    adapter: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    top_logprobs: int | None = None
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One token. end: set on the last one: with ``stop`` the token is the one that ends the answer and is no part of
    it, with ``length`` it is the last that was allowed.  logprob: natural logarithm of its probability by the model,
    before temperature and nucleus.  top: (token, logprob) of the likeliest, best first."""

    token: int
    end: End | None = None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class LiveEngine(Protocol):
    """context: tokens that a prompt and its answer may have together."""

    context: int

    def offer(self, adapter: str, folder: Path) -> None:
        """An adapter that may be asked for from now on; it is read on first use."""
        ...

    def answer(self, ask: Ask) -> AsyncIterator[Step]:
        """The tokens of one answer as they come. Closing the iterator (``aclose``) gives its place to others.

        Raises TunewrightError if the engine failed on it.
        """
        ...

    def close(self) -> None:
        """Finishes what is being answered, takes nothing new, and gives the memory back."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """One model as the endpoint knows it.

    name: what clients ask for.  created: unix seconds.  base: the name of the base under it; equal to ``name`` for a
    base itself.  codec: its own template (``data.template.ChatTemplate`` for answers).  engine: a LiveEngine for
    answers; else what ``infer.engines.engine_for`` gave, to be asked by one thread at a time.  system: the system
    message that it was trained with.  chats: its codec writes conversations; a model that was trained on plain text
    only goes on with a text.
    """

    name: str
    created: int
    base: str
    gives: Gives
    codec: Codec
    engine: Any
    stops: frozenset[int] = frozenset()
    adapter: str | None = None
    system: str | None = None
    chats: bool = False
    labels: tuple[str, ...] = ()
    opened: Any = None  # infer.open.Opened, for models that choose labels or write outputs


@dataclass(frozen=True, slots=True)
class Card:
    """A model that can be asked for, before it is loaded. run: its folder, None for a base.  chats: it may be asked
    with a conversation; one that was trained on plain text, or has no template, goes on with a text.  engine: where
    its answers come from (``transformers``, ``llama.cpp``, ``vllm``)."""

    name: str
    created: int
    base: str
    gives: Gives
    run: str | None
    chats: bool
    engine: str = "transformers"


class Fleet(Protocol):
    """All that is served: runs and their bases, each base in memory once (``infer/fleet.py``)."""

    def cards(self) -> list[Card]:
        """In the order they were given, bases last."""
        ...

    async def get(self, name: str) -> Served:
        """The model, loaded on first use. Raises KeyError for a name that no card has, TunewrightError if it cannot be
        loaded."""
        ...

    async def close(self) -> None: ...
