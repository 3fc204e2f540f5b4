"""What a run can be exported as, and what it cannot, said before anything is loaded."""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path
from typing import Any, cast

from tunewright.errors import RunError
from tunewright.export import gguf_model
from tunewright.model import hashes
from tunewright.model.adapter import write_whole
from tunewright.model.source import Base
from tunewright.recipe.schema import Recipe
from tunewright.tasks import Task
from tunewright.text import _
from tunewright.verify.subject import is_weights

FORMS: dict[str, str] = {
    "adapter": "a PEFT folder, to be loaded on the base",
    "merged": "the whole model as safetensors, for transformers and whatever reads its layout",
    "gguf": "one file for llama.cpp",
    "ollama": "the same file with a Modelfile",
    "card": "the model card alone",
}
DEFAULT_TYPE: gguf_model.Type = "q8_0"


def require(form: str, kind: str | None, recipe: Recipe, task: Task) -> gguf_model.Type | None:
    """The type to write for ``form``, None where it has none. Raises RunError for what does not fit the run."""
    fitting = fit(recipe, task)
    problem = where = None
    do = _("this run exports as: {forms}", forms=", ".join(fitting))
    if form not in FORMS:
        problem, where = _("there is no form {name!r}", name=form), "--to"
    elif kind is not None and form not in ("gguf", "ollama"):
        problem, where = _("the form {form} has no types", form=form), "--type"
        do = _("leave --type out")
    elif kind is not None and kind not in gguf_model.PACKINGS:
        problem, where = _("there is no type {name!r}", name=kind), "--type"
        do = _("choose of: {names}", names=", ".join(gguf_model.PACKINGS))
    elif form == "adapter" and form not in fitting:
        problem = _("method {method} trains the weights themselves; there is no adapter", method=recipe.train.method)
    elif form not in fitting:
        problem = _("{form} holds models that write text from left to right, and this run's task is {task}",
                    form=form, task=task.name)  # fmt: skip
    if problem:
        raise RunError(problem, where=where, do=do, command="tunewright export --help")
    return cast(gguf_model.Type, kind or DEFAULT_TYPE) if form in ("gguf", "ollama") else None


def fit(recipe: Recipe, task: Task) -> list[str]:
    """The forms of a run. Ollama answers conversations alone."""
    fitting = ["adapter"] if recipe.train.method == "lora" else []
    fitting.append("merged")
    if task.gives in ("answers", "likelihood"):
        fitting.append("gguf")
    if task.gives == "answers":
        fitting.append("ollama")
    return [*fitting, "card"]


def needed(form: str, kind: gguf_model.Type | None, base: Base, trained: Path, precision: str) -> int:
    """Bytes that the export will take, as far as files tell beforehand."""
    own = sum(path.stat().st_size for path in trained.iterdir() if path.is_file() and not is_weights(path.name))
    if form == "card":
        return 1 << 20
    if form == "adapter":
        return sum(path.stat().st_size for path in trained.iterdir() if path.is_file())
    weights = [hashes.safetensors_header(path) for path in base.folder.glob("*.safetensors")
               if hashes.is_base_file(path.name)]  # fmt: skip
    parameters = sum(prod(tensor["shape"]) for header in weights for tensor in header.values())
    if kind is not None:
        return own + gguf_model.parameter_bytes(parameters, kind)
    return own + parameters * (2 if precision == "bf16" else 4)


def copy_files(trained: Path, folder: Path) -> None:
    """Tokenizer, template, generation config and whatever else the run saved beside its weights, byte for byte."""
    for path in sorted(trained.iterdir()):
        if path.is_file() and not is_weights(path.name):
            shutil.copyfile(path, folder / path.name)


def write_merged(model: Any, trained: Path, folder: Path) -> None:
    """The whole model in transformers' layout."""
    model.config._name_or_path = ""
    write_whole(model, folder)
    copy_files(trained, folder)  # in place of what transformers wrote about generating
