"""A finished run or a base, ready to answer, exactly as it was trained: its own codec, stop ids and base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.data.codec import Codec
from tunewright.errors import BaseModelError, RunError
from tunewright.infer.engines import engine_for, frozen_generation, labels_of
from tunewright.infer.transformers import TransformersEngine
from tunewright.model import adapter, source
from tunewright.model.load import fast_bf16, load
from tunewright.model.source import Base
from tunewright.recipe.load import load as load_recipe
from tunewright.recipe.schema import Recipe
from tunewright.rundir import RunDir
from tunewright.tasks import TASKS, Task, task_of
from tunewright.text import _


@dataclass(frozen=True)
class Opened:
    """engine: what ``infer.engines`` gave for the task.  labels: their names, where the task has any.  texts: of a
    labelled row, 0 where the run does not say."""

    engine: Any
    codec: Codec
    task: Task
    recipe: Recipe
    labels: tuple[str, ...]
    texts: int = 0

    def require_chat(self, run: RunDir) -> None:
        """Raises RunError if this model answers no conversation."""
        if self.task.gives != "answers":
            raise RunError(
                _("this run does not chat: its task is {task}", task=self.recipe.task), where=str(run),
                do=_("give it a file to answer"), command=f"tunewright predict {run} FILE",
            )  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a run's folder says of its model, before any weight is read. folder: its ``adapter/`` or ``model/``."""

    recipe: Recipe
    task: Task
    base: Base
    folder: Path
    labels: tuple[str, ...]
    texts: int = 0

    @property
    def is_adapter(self) -> bool:
        return self.recipe.train.method == "lora"


def read_run(run: RunDir) -> Told:
    """Raises RunError for a run without trained weights, BaseModelError if its base is another one by now."""
    recipe = load_recipe(run.file(rundir.RECIPE)).recipe
    manifest = run.manifest()
    folder = run.file(rundir.ADAPTER if recipe.train.method == "lora" else rundir.MODEL)
    if not folder.exists():
        raise RunError(
            _("this run has no trained weights yet"), where=str(folder), do=_("let it finish"),
            command=f"tunewright resume {run}",
        )  # fmt: skip
    base = source.fetch(recipe.base)
    if base.sha256 != manifest["base"]["sha256"]:
        raise BaseModelError(
            _("the base {name} is not the one this run was trained on", name=base.name), where=str(base.folder),
            do=_("bring back the base with sha256 {sha}", sha=manifest["base"]["sha256"][:12]),
        )  # fmt: skip
    labels, texts = tuple(manifest.get("labels", ())), manifest.get("texts", 0)
    return Told(recipe, task_of(recipe), base, folder, labels, texts)


def open_run(run: RunDir, tuned: bool = True) -> Opened:
    """The run's model; ``tuned=False`` gives its base, asked in the same way. Raises RunError, BaseModelError."""
    return open_told(read_run(run), tuned)


def open_told(told: Told, tuned: bool = True) -> Opened:
    """The same, of a folder that was read already."""
    recipe, task, labels = told.recipe, told.task, told.labels
    assert recipe.train.precision != "auto"
    model: Any = load(told.base, recipe.train.precision, head=task.head, labels=labels_of(recipe, labels))
    if tuned:
        model = adapter.load_run(model, told.folder)
    codec = saved_codec(told.folder, recipe, labels)
    engine = engine_for(task, model, codec, saved_generation(told.folder, task), recipe)
    return Opened(engine, codec, task, recipe, labels, told.texts)


def saved_codec(folder: Path, recipe: Recipe, labels: tuple[str, ...]) -> Codec:
    """What a run's own folder writes ids with, whoever asks: chat, predict or ``verify``."""
    return task_of(recipe).codec(folder, own_template(recipe), labels)


def saved_generation(folder: Path, task: Task) -> dict[str, Any]:
    """The generation config of a run's own folder; empty where nothing is generated. Raises RunError if there is none,
    or one that says nothing about where answers end."""
    if task.gives == "labels":
        return {}
    path = folder / "generation_config.json"
    stored = rundir.read_json(path)
    ends = stored.get("eos_token_id") if isinstance(stored, dict) else None
    if not (isinstance(ends, list) and all(isinstance(token, int) for token in ends)):
        raise RunError(
            _("{name} does not say which tokens end an answer", name=path.name), where=str(path),
            do=_("bring back the file that the run wrote, or train again"), command="tunewright verify --only stop",
        )  # fmt: skip
    return dict(stored)


def own_template(recipe: Recipe) -> Recipe:
    """The recipe for a run's own folder, where the template that it names is already the folder's own."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"chat_template": None})})


def open_base(name: str) -> TransformersEngine:
    """A base as it is, ready to chat."""
    base = source.fetch(name)
    task, recipe = TASKS["chat"], Recipe()
    task.require(base.folder, base.name)
    codec = task.codec(base.folder, recipe)
    model = load(base, "bf16" if fast_bf16()[0] else "fp32")
    opened: TransformersEngine = engine_for(task, model, codec, frozen_generation(task, base, codec), recipe)
    return opened
