"""Everything that is known before weights are loaded: base and data met, every ``auto`` chosen, the cost foreseen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

from tunewright.data.findings import places, short
from tunewright.data.guess import reading_of
from tunewright.data.prepare import Prepared, prepare
from tunewright.data.template import ChatTemplate
from tunewright.errors import BaseModelError, DataError, MissingExtra
from tunewright.evaluate import checks as own_checks
from tunewright.evaluate import learned, questions
from tunewright.evaluate.compare import Item
from tunewright.example import Chat
from tunewright.model import adapter, memory, source
from tunewright.model.load import fast_bf16, pick_device
from tunewright.model.memory import ModelFacts
from tunewright.model.source import Base
from tunewright.recipe.load import Loaded, changed
from tunewright.recipe.schema import Recipe
from tunewright.tasks import JoiningTask, Task, task_of
from tunewright.tasks.pretrain import ROW
from tunewright.text import _
from tunewright.train import choose, replay, space
from tunewright.train.decide import decide, decide_head
from tunewright.train.events import Listener
from tunewright.train.forecast import Plan, foresee


@dataclass(frozen=True)
class Ready:
    """sources: of each recipe key, ``chosen: why`` included.  items: held-out rows to be answered.  seen:
    training rows to be answered, to see whether they are recited.  asked: general questions, where the task keeps what
    the base can do.  replayed: general prompts that are mixed in."""

    recipe: Recipe
    sources: dict[str, str]
    base: Base
    facts: ModelFacts
    task: Task
    prepared: Prepared
    items: list[Item]
    seen: list[Item]
    asked: list[questions.Asked]
    plan: Plan
    replayed: int = 0
    device: str = "cpu"

    @property
    def chosen(self) -> dict[str, str]:
        """Why, of each key that was left to us."""
        return {key: source for key, source in self.sources.items() if source.startswith("chosen")}

    @property
    def shortage(self) -> space.DoesNotFit | None:
        """The error to raise if more memory is foreseen than there is, with the smallest change that would do."""
        there, needs = space.room(self.device), self.plan.memory["total"]
        if needs <= there.bytes:
            return None
        change = space.smallest_change(
            self.recipe, self.facts, self.prepared, self.replayed, self.device, there.bytes
        )  # fmt: skip
        return space.does_not_fit(needs, there, change, self.recipe.task, self.facts.parameters)


def get_ready(loaded: Loaded, listener: Listener) -> Ready:
    """Fetch the base, read the data, choose what was left to us, foresee memory and time."""
    recipe, reasons = decide(loaded)
    _require_trackers(recipe.train.report_to)
    base = source.fetch(recipe.base)
    recipe, more = decide_head(recipe, base.folder)
    task = task_of(recipe)
    _require_base(task, base, reasons.get("task"))
    adapter.check(base.folder, recipe, task.head)
    if base.source in ("folder", "gguf"):  # a path has to mean the same in every folder that the run is used from
        recipe = changed(recipe, {"base": str(Path(recipe.base).expanduser().resolve())})
    facts = memory.describe(base.folder)
    prepared = _prepare(recipe, task, base.folder, facts.max_length or 4096, listener)
    recipe = _with_variables(recipe)
    own_checks.validate(recipe.checks)
    device = pick_device()
    recipe, chosen = choose.fill(recipe, choose.Known(task, prepared, facts, fast_bf16(device), device))
    reasons |= more | chosen
    items = _items(prepared, task, recipe)
    seen = _seen(prepared, task, recipe.seed) if items else []
    asked = _asked(prepared, task, recipe)
    prompts = len(replay.prompts()) if replay.share(recipe) else 0
    sources = loaded.sources | {key: _("chosen: {why}", why=why) for key, why in reasons.items()}
    _tell(listener, base, prepared, recipe, reasons)
    plan = foresee(recipe, facts, task, prepared, len(items) + len(asked) // 8, prompts, device)
    return Ready(recipe, sources, base, facts, task, prepared, items, seen, asked, plan, prompts, device)


def get_fitting(loaded: Loaded, listener: Listener) -> Ready:
    """What ``get_ready`` gives, if the training is foreseen to fit into memory.

    Else the smallest change with which it would is named in a ResourceError, or with ``train.fit: auto`` made, said and
    written down as the source of its keys.
    """
    ready = get_ready(loaded, listener)
    short = ready.shortage
    if short is None:
        return ready
    if short.change is None or ready.recipe.train.fit != "auto":
        raise short
    values = short.change.values
    listener.say(_("Changed to fit: {keys}, {cost}", keys=short.change.keys, cost=short.change.cost))
    sources = loaded.sources | dict.fromkeys(values, _("chosen: {why}", why=short.what))
    return get_ready(Loaded(changed(loaded.recipe, values), sources, loaded.path), listener)


def _require_base(task: Task, base: Base, why: str | None) -> None:
    """Raises BaseModelError for a base that cannot learn the task; where that was guessed, ``why`` it was."""
    try:
        task.require(base.folder, base.name)
    except BaseModelError as error:
        if why is not None:
            error.do = _("{do}; or name another task: {task} was chosen because of this: {why}",
                         do=error.do, task=task.name, why=why)  # fmt: skip
        raise


def _require_trackers(names: Sequence[str]) -> None:
    for name in names:
        known = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(find_spec(package) for package in known):
            raise MissingExtra(name, name, f"train.report_to={name}")


def _prepare(recipe: Recipe, task: Task, folder: Path, context: int, listener: Listener) -> Prepared:
    shown: dict[str, int] = {}
    keep = recipe.train.keep
    watch = keep == "best" or (keep == "auto" and task.gives == "labels")
    with listener.doing(_("Reading and rendering"), 0) as count:

        def progress(what: str, done: int, total: int) -> None:
            count(done - shown.get(what, 0))
            shown[what] = done

        prepared = prepare(
            recipe.data, recipe.seed, lambda names: task.codec(folder, recipe, names), context, reading_of(recipe),
            watch, progress,
        )  # fmt: skip
    if keep == "best" and not prepared.watched:
        raise DataError(
            _("there are too few rows to hold some out for choosing among epochs"), where="train.keep",
            do=_("give more rows, or write train.keep=last"),
        )  # fmt: skip
    if not isinstance(task, JoiningTask):
        return prepared
    length = min(context, ROW) if recipe.data.max_length == "auto" else recipe.data.max_length
    return replace(
        prepared, train=task.arrange(prepared.train, length), max_length=length, longest=length,
        held_out=task.arrange(prepared.held_out, length, measured=True),
        watched=task.arrange(prepared.watched, length, measured=True),
    )  # fmt: skip


def _with_variables(recipe: Recipe) -> Recipe:
    """``{{name}}`` in checks and the system message, filled as it is in the data."""

    def filled(value: str | None) -> str | None:
        for name, filling in recipe.data.variables.items():
            value = value.replace("{{" + name + "}}", filling) if value else value
        return value

    checks = [check.model_copy(update={"value": filled(check.value)}) for check in recipe.checks]
    data = recipe.data.model_copy(update={"system": filled(recipe.data.system)})
    return recipe.model_copy(update={"checks": checks, "data": data})


def _items(prepared: Prepared, task: Task, recipe: Recipe) -> list[Item]:
    assert recipe.evaluate.rows != "auto"
    chats = prepared.held_out_chats if task.gives in ("answers", "outputs") else ()
    return list(islice(_answerable(chats, prepared, task), recipe.evaluate.rows))


def _seen(prepared: Prepared, task: Task, seed: int) -> list[Item]:
    """Some training rows, always the same, whose answers are long enough to be recited."""
    order = np.random.default_rng(seed).permutation(len(prepared.train_chats))[: 8 * learned.ASKED]
    found = _answerable((prepared.train_chats[number] for number in order.tolist()), prepared, task)
    return list(islice((item for item in found if learned.worth_asking(item.reference)), learned.ASKED))


def _answerable(chats: Iterable[Chat], prepared: Prepared, task: Task) -> Iterator[Item]:
    for chat in chats:
        question = task.question(chat, prepared.codec)
        if question is not None:
            yield Item(chat.origin, question.prompt, question.text, question.reference, question.thinking)


def _asked(prepared: Prepared, task: Task, recipe: Recipe) -> list[questions.Asked]:
    codec = prepared.codec
    if not task.retains or not isinstance(codec, ChatTemplate):
        return []
    return questions.ask(codec, recipe.data.system)


def _tell(listener: Listener, base: Base, prepared: Prepared, recipe: Recipe, reasons: dict[str, str]) -> None:
    """What was found and what was chosen, each with its reason."""
    ledger = prepared.ledger
    listener.say(_("Base:   {name} ({source}, sha256 {sha})", name=base.name, source=base.source, sha=base.sha256[:12]))
    listener.say(_("Data:   {name}: {why}", name=prepared.format_name, why=prepared.format_reason))
    listener.say(
        _("        {rows_in} rows in = {kept} kept + {out} left out; {train} to train, {held_out} held out",
          rows_in=ledger["rows_in"], kept=ledger["kept"], out=ledger["rows_in"] - ledger["kept"],
          train=ledger["train"], held_out=ledger["held_out"])
        + (_(", {count} to choose among epochs", count=ledger["watched"]) if ledger.get("watched") else "")
    )  # fmt: skip
    for finding in prepared.findings:
        listener.say(f"        {finding.code} {finding.severity}: {finding.message}")
        if finding.rows:
            listener.say(_("             where: {places}", places=places(finding, short)))
    listener.say(_("Chosen:"))
    for line in choose.told(recipe, reasons):
        listener.say("  " + line)
