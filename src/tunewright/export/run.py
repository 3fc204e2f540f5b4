"""The story of an export: look -> write beside the place -> read back and compare -> card -> take the name.

Nothing has the final name before every comparison held.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from tunewright import __version__, rundir
from tunewright.errors import BaseModelError, RunError
from tunewright.export import card, compare, forms, gguf_file, ollama, place, readers
from tunewright.export.asking import compare_opened, reference
from tunewright.export.usage import Use
from tunewright.export.work import Work
from tunewright.infer.open import saved_generation
from tunewright.model import hashes, source
from tunewright.model.load import public_name, quiet
from tunewright.model.merge import merged
from tunewright.model.source import Base
from tunewright.rundir import RunDir
from tunewright.text import _
from tunewright.train.events import Listener
from tunewright.train.manifest import now, versions
from tunewright.verify import template
from tunewright.verify.subject import Subject


@dataclass(frozen=True)
class Exported:
    """folder: where it lies.  record: the content of its ``export.json``."""

    folder: Path
    record: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """The comparisons, for people."""
        return [compare.line(numbers) for numbers in self.record["comparisons"]] + list(self.record["notes"])


def export(
    run: RunDir, form: str, out: str | os.PathLike[str] | None = None, kind: str | None = None, force: bool = False,
    listener: Listener | None = None,
) -> Exported:  # fmt: skip
    """Export a finished run. form: a key of ``FORMS``.  out: the folder, by default ``export/FORM`` of the run.
    kind: of a GGUF file, a key of ``gguf_model.PACKINGS``.  force: replace a folder that is no export of ours.

    Raises RunError (unfinished, changed since, a form that does not fit, a comparison that does not hold),
    BaseModelError (the base is gone or another), ResourceError (no room, not to be written).
    """
    listener = listener or Listener()
    subject = _opened(run, listener)
    chosen = forms.require(form, kind, subject.recipe, subject.task)
    base = _base(subject)
    folder = place.chosen(run, base, form, out, force)
    _require_unchanged(subject, needs_data=form != "card")
    precision = str(subject.recipe.train.precision)
    place.require_room(folder, forms.needed(form, chosen, base, subject.folder, precision))
    replaced = _replaced(folder)
    with place.filling(folder) as unfinished:
        use, record = _use(subject, base, form, chosen), _record(subject, form, chosen)
        work = Work(subject, base, form, chosen, unfinished, use, record)
        WRITERS[form](work)
        (unfinished / card.FILE).write_text(card.write(run, work.use), encoding="utf-8")
        work.record["files"] = {path.name: hashes.sha256(path) for path in sorted(unfinished.iterdir())}
        rundir.write_json(unfinished / place.RECORD, work.record)
    work.record["notes"] += replaced
    return Exported(folder, work.record)


# -- before ------------------------------------------------------------------------------------------------------------


def _opened(run: RunDir, listener: Listener) -> Subject:
    if run.status().get("state") != "done":
        raise RunError(
            _("this run is not finished, so there is nothing to export yet"), where=str(run), do=_("let it finish"),
            command=f"tunewright resume {run}",
        )  # fmt: skip
    subject = Subject.open(run, listener)
    if not subject.folder.is_dir():
        raise RunError(_("the run has lost its {folder}", folder=subject.folder.name), where=str(subject.folder),
                       do=_("bring it back, or train again"), command="tunewright train --help")  # fmt: skip
    return subject


def _base(subject: Subject) -> Base:
    if subject.base_problem is not None:
        raise BaseModelError(
            subject.base_problem, where="base",
            do=_("bring back the base with sha256 {sha}", sha=subject.manifest["base"]["sha256"][:12]),
        )  # fmt: skip
    return source.fetch(subject.recipe.base)


def _require_unchanged(subject: Subject, needs_data: bool) -> None:
    """The files that the run ended with, and the rows that the export is compared on."""
    changed = subject.changed_files(lambda _name: True)
    if changed:
        raise RunError(
            _("{file} is not what the run wrote, so an export of it would not be the run", file=changed[0]),
            where=str(subject.run.file(changed[0])), do=_("bring it back as the run wrote it, or train again"),
            command=f"tunewright verify {subject.run}",
        )  # fmt: skip
    if needs_data and subject.data_problem is not None:
        raise RunError(
            _("{problem}; an export is compared with the run on the run's own rows", problem=subject.data_problem),
            where=str(subject.run), do=_("bring the data back"), command=f"tunewright verify {subject.run}",
        )  # fmt: skip


def _replaced(folder: Path) -> list[str]:
    """What is said of what stands there, when it is gone."""
    if not folder.exists() or not any(folder.iterdir()):
        return []
    if place.is_ours(folder):
        return [_("an earlier export in {folder} was replaced", folder=folder)]
    return [_("what stood in {folder} was replaced", folder=folder)]


def _use(subject: Subject, base: Base, form: str, kind: str | None) -> Use:
    name = subject.run.path.resolve().name
    public = public_name(base)
    is_public = base.source == "hub"  # transformers asks no other
    shown = public if is_public else Path(public.removeprefix(source.MODELSCOPE)).name
    return Use(
        form, name, shown, is_public,
        subject.task.gives, len(subject.labels), subject.task.head == "classifier",
        subject.recipe.classify.multi_label, subject.manifest.get("texts", 1), subject.recipe.seq2seq.prefix or "",
        f"{name}-{kind}.gguf" if kind else None, subject.recipe.data.system,
    )  # fmt: skip


def _record(subject: Subject, form: str, kind: str | None) -> dict[str, Any]:
    then = subject.manifest
    return {
        "tunewright": __version__, "form": form, "type": kind, "exported": now(),
        "run": subject.run.path.resolve().name,
        "base": {"name": Path(then["base"]["name"]).name, "sha256": then["base"]["sha256"]},
        "data_sha256": then["data_sha256"], "recipe_sha256": then["recipe_sha256"], "trained": then.get("trained"),
        "versions": versions() | {"gguf": metadata.version("gguf")}, "ids": None, "comparisons": [], "notes": [],
    }  # fmt: skip


# -- forms -------------------------------------------------------------------------------------------------------------


def _write_adapter(work: Work) -> None:
    subject = work.subject
    then = reference(subject)
    subject.let_go()
    for path in sorted(subject.folder.iterdir()):
        shutil.copyfile(path, work.folder / path.name)
    _require_same_ids(work)
    compare_opened(work, "PEFT", then, readers.adapter(subject, work.base, work.folder))


def _write_merged(work: Work) -> None:
    subject = work.subject
    then = reference(subject)
    model = _whole(subject)
    with quiet(), subject.listener.doing(_("Writing the model"), 1) as progress:
        if generation := saved_generation(subject.folder, subject.task):
            model.generation_config = GenerationConfig(**generation)
        forms.write_merged(model, subject.folder, work.folder)
        progress(1)
    del model
    _require_same_ids(work)
    compare_opened(work, "transformers", then, readers.merged(subject, work.folder))


def _write_gguf(work: Work) -> None:
    config = AutoConfig.from_pretrained(str(work.base.folder), local_files_only=True)
    held = gguf_file.read_vocabulary(work, config)  # what no file can hold is known before anything is asked
    made = gguf_file.modelfile_of(work, held) if work.form == "ollama" else None
    then = reference(work.subject)
    gguf_file.write_and_compare(work, then, _whole(work.subject), held)
    if made is not None:
        (work.folder / ollama.FILE).write_text(made, encoding="utf-8")


def _write_card(_work: Work) -> None:
    """Which every form has as well."""


WRITERS: dict[str, Callable[[Work], None]] = {
    "adapter": _write_adapter, "merged": _write_merged, "gguf": _write_gguf, "ollama": _write_gguf,
    "card": _write_card,
}  # fmt: skip


def _whole(subject: Subject) -> Any:
    """The run's model without PEFT's coat, in the dtype that it is served in; the subject keeps none of it."""
    model = subject.tuned.engine.model
    subject.let_go()
    return merged(model) if subject.is_adapter else model


def _require_same_ids(work: Work) -> None:
    """Training rows written with the exported files, as the proof ``template`` asks of the run's own."""
    there = copy.copy(work.subject)
    there.folder = work.folder
    proof = template.prove(there)
    if proof.outcome == "fail":
        raise RunError(str(proof.what), where=proof.where, do=proof.do, command=f"tunewright verify {work.subject.run}")
    work.record["ids"] = proof.values
    work.record["notes"] += list(proof.notes)
