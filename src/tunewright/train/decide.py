"""What has to be known before data and base can meet: the task, the base, and which head sits on it.

The other ``auto`` keys need rows and lengths; they are chosen afterwards (``choose.py``).
"""

from __future__ import annotations

from pathlib import Path

from tunewright.data.basefiles import BaseFiles
from tunewright.data.guess import guess_task
from tunewright.errors import RecipeError
from tunewright.model.source import read_config
from tunewright.recipe.load import Loaded, changed, require_used
from tunewright.recipe.schema import Recipe
from tunewright.text import _

CHAT_BASE, ENCODER = "smollm2-135m-instruct", "minilm-l6"
Reasons = dict[str, str]


def decide(loaded: Loaded) -> tuple[Recipe, Reasons]:
    """Task and base. Raises RecipeError for keys that the task does not read, DataError where it cannot be told."""
    recipe, reasons = loaded.recipe, {}
    if recipe.task == "auto":
        task, reasons["task"] = guess_task(recipe.data)
        recipe = changed(recipe, {"task": task})
        require_used(loaded, recipe)
    if recipe.base == "auto":
        base, reasons["base"] = _base(recipe)
        recipe = changed(recipe, {"base": base})
    return recipe, reasons


def decide_head(recipe: Recipe, folder: Path) -> tuple[Recipe, Reasons]:
    """``classify.head`` for the base in ``folder``."""
    if recipe.task != "classify" or recipe.classify.head != "auto":
        return recipe, {}
    if writes(folder) and BaseFiles.read(folder).named_templates() and not recipe.classify.multi_label:
        return changed(recipe, {"classify.head": "label_token"}), {
            "classify.head": _("the base chats, so that it can answer with a label's word")
        }
    why = _("the base only reads texts") if not writes(folder) else _("a new layer on top of the base")
    return changed(recipe, {"classify.head": "linear"}), {"classify.head": why}


def writes(folder: Path) -> bool:
    """Whether the base writes text from left to right."""
    config = read_config(folder)
    names = [str(name) for name in config.get("architectures") or []]
    return not config.get("is_encoder_decoder") and any("CausalLM" in n or "LMHead" in n for n in names)


def _base(recipe: Recipe) -> tuple[str, str]:
    if recipe.task == "classify":
        if recipe.classify.head == "label_token":
            return CHAT_BASE, _("the embedded base that chats")
        return ENCODER, _("an embedded encoder, small and quick at reading texts")
    if recipe.task == "seq2seq":
        raise RecipeError(
            _("no base is named, and none is embedded for `task: seq2seq`"), where="base",
            do=_("name one, such as Helsinki-NLP/opus-mt-en-fr or google/flan-t5-small"), command="tunewright models",
        )  # fmt: skip
    return CHAT_BASE, _("the embedded base")
