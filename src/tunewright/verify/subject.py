"""The run that is proved: its files, its rows, its model and its base, each read once however many proofs ask."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from peft import PeftModel

from tunewright import rundir
from tunewright.data.load import find
from tunewright.errors import BaseModelError, DataError, RunError
from tunewright.example import Rendered
from tunewright.infer.engine import Generation
from tunewright.infer.open import Opened, open_run
from tunewright.model import hashes, source
from tunewright.recipe.load import Loaded
from tunewright.recipe.load import load as load_recipe
from tunewright.rundir import RunDir
from tunewright.tasks import Question, task_of
from tunewright.text import _
from tunewright.train.events import Listener
from tunewright.train.ready import Ready, get_ready
from tunewright.verify.logits import logits

ROWS, LABELLED_ROWS = 16, 64  # rows whose logits are compared; of a labelled one there is one place
PROMPTS = 8  # prompts that are answered
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
# Endings of what no library reads beside the run's own files. Whatever else was put there may shadow one of them:
# another template, other special tokens, other weights, code.
HARMLESS = (".md", ".log", ".png", "LICENSE", "LICENCE", "NOTICE")


class Subject:
    """manifest: what the run was made of.  own: its ``adapter/`` or ``model/``.  folder: what is proved, which is that
    or what an export made of it."""

    def __init__(self, run: RunDir, loaded: Loaded, listener: Listener) -> None:
        self.run, self.loaded, self.recipe, self.listener = run, loaded, loaded.recipe, listener
        self.manifest = run.manifest()
        self.labels: tuple[str, ...] = tuple(self.manifest.get("labels", ()))
        self.task = task_of(self.recipe)
        self.own = self.folder = run.file(rundir.ADAPTER if self.is_adapter else rundir.MODEL)

    @classmethod
    def open(cls, run: RunDir, listener: Listener) -> Subject:
        """Raises RunError for a run that is not finished, or whose recipe lacks what was chosen."""
        if run.status().get("state") != "done":
            raise RunError(
                _("this run is not finished, so there is nothing to prove yet"), where=str(run),
                do=_("let it finish, then verify it"), command=f"tunewright resume {run}",
            )  # fmt: skip
        loaded = load_recipe(run.file(rundir.RECIPE))
        recipe = loaded.recipe
        head = recipe.classify.head if recipe.task == "classify" else None
        if "auto" in (recipe.task, head, recipe.train.precision, recipe.base):
            raise RunError(
                _("the run's recipe lacks what was chosen for it"), where=str(run.file(rundir.RECIPE)),
                do=_("bring back the file that the run wrote"), command="tunewright train --help",
            )  # fmt: skip
        return cls(run, loaded, listener)

    @property
    def is_adapter(self) -> bool:
        return self.recipe.train.method == "lora"

    # -- whether base and data are still those of the run ----------------------------------------------------------

    @cached_property
    def base(self) -> source.Base:
        """Raises BaseModelError."""
        return source.fetch(self.recipe.base)

    @cached_property
    def base_problem(self) -> str | None:
        """What is wrong with the base, in a sentence."""
        then = self.manifest["base"]
        try:
            base = self.base
        except BaseModelError as error:
            return _("the base cannot be read: {why}", why=error.what)
        if base.sha256 == then["sha256"]:
            return None
        names = sorted(n for n in then["files"] | base.files if then["files"].get(n) != base.files.get(n))
        return _("the base {name} is not the one this run was trained on: {files}", name=base.name, files=_few(names))

    @cached_property
    def data_problem(self) -> str | None:
        """What is wrong with the data, in a sentence."""
        try:
            train, validation = find(self.recipe.data)
            current = {file.name: file.sha256() for file in (*train, *validation)}
        except DataError as error:
            return _("the data cannot be read: {why} ({where})", why=error.what, where=error.where)
        then = {file["path"]: file["sha256"] for file in self.manifest["data"]}
        names = [name for name in then | current if then.get(name) != current.get(name)]
        return _("the data has changed since: {files}", files=_few(names)) if names else None

    @property
    def missing(self) -> str | None:
        """Why nothing can be proved on the run's rows, None where it can."""
        return self.base_problem or self.data_problem

    def changed_files(self, owned: Callable[[str], bool]) -> list[str] | None:
        """Which of the files that the run ended with are others now, or were added; None for a run that kept no hashes.
        owned: whether a file's name is the asking proof's business."""
        then: dict[str, str] | None = self.manifest.get("trained")
        if then is None:
            return None
        paths = {name: self.run.file(name) for name in then if owned(Path(name).name)}
        there = sorted(path.name for path in self.own.iterdir()) if self.own.is_dir() else []
        added = [f"{self.own.name}/{name}" for name in there if owned(name) and not _is_harmless(name)]
        changed = [n for n, path in paths.items() if not path.is_file() or hashes.sha256(path) != then[n]]
        return changed + [name for name in added if name not in then]

    # -- rows and models -------------------------------------------------------------------------------------------

    @cached_property
    def ready(self) -> Ready:
        return get_ready(self.loaded, _Bars(self.listener))

    @cached_property
    def rows(self) -> Sequence[Rendered]:
        """Held-out rows, and training rows where these are too few."""
        prepared, most = self.ready.prepared, LABELLED_ROWS if self.task.gives == "labels" else ROWS
        held_out = list(prepared.held_out[:most])
        return held_out + list(prepared.train[: most - len(held_out)])

    @cached_property
    def questions(self) -> list[Question]:
        prepared = self.ready.prepared
        chats = (prepared.held_out_chats or prepared.train_chats)[:PROMPTS]
        asked = (self.ready.task.question(chat, prepared.codec) for chat in chats)
        return [question for question in asked if question is not None]

    @cached_property
    def tuned(self) -> Opened:
        """The run's model as chat and predict open it. Raises RunError for a run with an adapter that holds none."""
        opened = open_run(self.run)
        if self.is_adapter and not isinstance(opened.engine.model, PeftModel):
            raise RunError(
                _("{folder}/ holds a whole model and no adapter", folder=self.own.name), where=str(self.own),
                do=_("bring back the run's own files, or train again"), command="tunewright train --help",
            )  # fmt: skip
        return opened

    @cached_property
    def tuned_logits(self) -> torch.Tensor:
        return self._logits(self.tuned, _("Asking the tuned model"))

    @cached_property
    def base_logits(self) -> torch.Tensor:
        """Of the same places, without what was trained: the adapter off, or the base itself."""
        what = _("Asking the base")
        if self.is_adapter:
            with self.tuned.engine.model.disable_adapter():
                return self._logits(self.tuned, what)
        self.let_go()  # two whole models at once may be too many
        return self._logits(open_run(self.run, tuned=False), what)

    @cached_property
    def answers(self) -> list[Generation]:
        limit = self.recipe.evaluate.max_new_tokens
        assert limit != "auto"
        with self.listener.doing(_("Answering"), len(self.questions)) as progress:
            return list(self.tuned.engine.generate([q.prompt for q in self.questions], limit, progress))

    def let_go(self) -> None:
        """The opened model is not needed any more, or is another one now."""
        self.__dict__.pop("tuned", None)

    def _logits(self, opened: Opened, what: str) -> torch.Tensor:
        with self.listener.doing(what, len(self.rows)) as progress:
            return logits(opened, self.rows, progress)


class _Bars(Listener):
    """What reading the run's data tells again is left out; how far it is, is shown."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    @contextlib.contextmanager
    def doing(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        with self.listener.doing(what, total) as progress:
            yield progress


def is_weights(name: str) -> bool:
    """Whether a file of the run's folder holds trained weights, or says what shape they have."""
    return name.endswith(WEIGHTS) or name in ("adapter_config.json", "config.json")


def _is_harmless(name: str) -> bool:
    """Hidden files are a file manager's or an editor's."""
    return name.startswith((".", "__pycache__")) or name.endswith(HARMLESS)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
