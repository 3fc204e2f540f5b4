"""All that one server answers with: runs by name, and under them each base in memory once.

A run that trained an adapter and answers in words is a name and an adapter on its base's engine. A run that trained the
weights themselves has an engine of its own. Runs that choose labels or write outputs come with their own head or their
own search, so each has a model; where it is an adapter, the frozen weights under it are the same memory for all.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunewright import rundir
from tunewright.data.codec import Codec
from tunewright.data.template import ChatTemplate
from tunewright.errors import BaseModelError, RunError
from tunewright.infer.embeddings import open_encoder
from tunewright.infer.engines import frozen_generation
from tunewright.infer.live import Card, Gives, LiveEngine, Served
from tunewright.infer.open import Told, open_told, read_run, saved_codec, saved_generation
from tunewright.infer.pool import Pool
from tunewright.model import source
from tunewright.model.load import writes_text
from tunewright.model.source import Base, read_config
from tunewright.recipe.schema import Recipe
from tunewright.rundir import RunDir
from tunewright.tasks import TASKS, Task
from tunewright.text import _


class Engines(Protocol):
    """Makes the engines of one kind. name: for people and ``Card.engine``."""

    name: str

    def of_base(self, base: Base, precision: str | None) -> LiveEngine:
        """precision: None for any."""
        ...

    def of_run(self, run: RunDir, told: Told) -> LiveEngine | None:
        """A run's own engine; None if it is answered by its base's, with its adapter."""
        ...


GIVES: dict[str, Gives] = {"answers": "answers", "likelihood": "answers", "outputs": "outputs", "labels": "labels"}


@dataclass
class _Member:
    card: Card
    asked_base: str  # as the recipe says it, by which it is found
    open: Callable[[], Served]
    served: Served | None = None
    opening: asyncio.Task[None] | None = None  # while it is loaded, whoever still waits for it


class RunFleet:
    """A ``Fleet``. engines: where answers come from."""

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self._members: dict[str, _Member] = {}
        self._bases: dict[tuple[str, str], LiveEngine] = {}  # by the base's hash and precision
        self._own: list[LiveEngine] = []
        self._base_names: dict[str, str] = {}  # by the base's hash
        self._precisions: dict[str, str] = {}  # what the runs on a base want it in, by the base's hash
        self._opening = threading.Lock()
        self._pool = Pool()

    def add_run(self, run: RunDir) -> None:
        """Raises RunError or BaseModelError for a run that cannot be served; no weight is read yet."""
        told = read_run(run)
        name = run.path.resolve().name
        if name in self._members:
            raise _two(name, str(run))
        created = int(run.file(rundir.MANIFEST).stat().st_mtime)
        card = Card(
            name, created, self._name_of(told.base, told.recipe.base), GIVES[told.task.gives], str(run),
            told.task.gives in ("answers", "outputs"), self.engines.name,
        )  # fmt: skip
        if card.gives == "answers" and told.is_adapter:
            self._precisions.setdefault(told.base.sha256, str(told.recipe.train.precision))
        opener = self._open_writer if card.gives == "answers" else self._open_other
        self._members[name] = _Member(card, told.recipe.base, functools.partial(opener, card, told, run))

    def add_base(self, base: str) -> None:
        """A base as it is; one that only reads is asked for vectors. Raises BaseModelError, RunError if a run has its
        name."""
        found = source.fetch(base)
        name = self._name_of(found, base)
        if name in self._members:
            if self._members[name].card.run is not None:
                raise _two(name, str(found.folder))
            return
        now = int(time.time())
        if not writes_text(read_config(found.folder)):
            card = Card(name, now, name, "vectors", None, False, self.engines.name)
            self._members[name] = _Member(card, base, functools.partial(_open_encoder, card, found))
            return
        task = TASKS["chat"]
        try:
            codec = task.codec(found.folder, Recipe())
        except BaseModelError:  # no template: it goes on with a text, and is asked nothing
            task = TASKS["pretrain"]
            codec = task.codec(found.folder, Recipe())
        card = Card(name, now, name, "answers", None, isinstance(codec, ChatTemplate), self.engines.name)
        self._members[name] = _Member(card, base, functools.partial(self._open_base, card, found, task, codec))

    def add_bases_of_runs(self) -> None:
        """Each base under a run that answers: it is in memory anyway, and can be asked beside what was tuned."""
        for member in list(self._members.values()):
            if member.card.run is not None and member.card.gives == "answers":
                self.add_base(member.asked_base)

    def cards(self) -> list[Card]:
        return [member.card for member in self._members.values()]

    async def get(self, name: str) -> Served:
        member = self._members[name]
        if member.served is None:
            if member.opening is None:
                member.opening = asyncio.create_task(_load(member))
            await asyncio.shield(member.opening)  # a client that leaves takes no other's model with it
        assert member.served is not None
        return member.served

    def _name_of(self, base: Base, asked: str) -> str:
        """What clients call a base. Two that lie in folders of one name are told apart by their hashes."""
        if base.sha256 not in self._base_names:
            name = base_name(asked)
            taken = name in self._base_names.values()
            self._base_names[base.sha256] = f"{name}-{base.sha256[:8]}" if taken else name
        return self._base_names[base.sha256]

    async def close(self) -> None:
        loading = [member.opening for member in self._members.values() if member.opening is not None]
        await asyncio.gather(*loading, return_exceptions=True)
        for engine in [*self._bases.values(), *self._own]:
            await asyncio.to_thread(engine.close)

    # --- opening, each in a thread of its own ---

    def _open_writer(self, card: Card, told: Told, run: RunDir) -> Served:
        codec = saved_codec(told.folder, told.recipe, told.labels)
        stops = frozenset(saved_generation(told.folder, told.task)["eos_token_id"])
        own = self.engines.of_run(run, told)
        engine = own or self._of_base(told.base, str(told.recipe.train.precision))
        if own is None:
            engine.offer(card.name, told.folder)
        else:
            self._own.append(own)
        return Served(
            card.name, card.created, card.base, "answers", codec, engine, stops,
            None if own else card.name, told.recipe.data.system, card.chats,
        )  # fmt: skip

    def _open_other(self, card: Card, told: Told, run: RunDir) -> Served:
        opened = open_told(told)
        if told.is_adapter:  # what it trained is little beside what it stands on
            self._pool.share(opened.engine.model, told.base.sha256)
        return Served(
            card.name, card.created, card.base, card.gives, opened.codec, opened.engine, labels=told.labels,
            opened=opened,
        )  # fmt: skip

    def _open_base(self, card: Card, base: Base, task: Task, codec: Codec) -> Served:
        stops = frozenset(frozen_generation(task, base, codec)["eos_token_id"])
        return Served(
            card.name, card.created, card.base, "answers", codec, self._of_base(base, None), stops,
            chats=card.chats,
        )  # fmt: skip

    def _of_base(self, base: Base, precision: str | None) -> LiveEngine:
        """precision: None takes what the runs on this base want, so that it is in memory once."""
        wanted = precision or self._precisions.get(base.sha256)
        key = (base.sha256, wanted or "auto")
        with self._opening:
            if key not in self._bases:
                self._bases[key] = self.engines.of_base(base, wanted)
            return self._bases[key]


async def _load(member: _Member) -> None:
    try:
        member.served = await asyncio.to_thread(member.open)
    finally:
        member.opening = None


def _open_encoder(card: Card, base: Base) -> Served:
    encoder = open_encoder(base)
    return Served(card.name, card.created, card.base, "vectors", encoder.codec, encoder)


def _two(name: str, where: str) -> RunError:
    return RunError(
        _("two models are called {name}", name=name), where=where,
        do=_("name each once, and rename the folder of one if they are two"), command="tunewright serve --help",
    )  # fmt: skip


def base_name(base: str) -> str:
    """What clients call a base: as a recipe says it, but for a path its last part."""
    path = Path(base).expanduser()
    return path.resolve().name if path.exists() else base
