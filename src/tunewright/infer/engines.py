"""Which engine a task's model answers through, and what is frozen into a run about generating."""

from __future__ import annotations

from typing import Any

from tunewright.data.codec import Codec
from tunewright.data.template import ChatTemplate
from tunewright.infer import seq2seq
from tunewright.infer.labels import LabelEngine
from tunewright.infer.seq2seq import Seq2SeqEngine
from tunewright.infer.transformers import TransformersEngine
from tunewright.model.generation import generation_config
from tunewright.model.load import Labels
from tunewright.model.source import Base
from tunewright.recipe.schema import Recipe
from tunewright.tasks import LabelTask, Task


def frozen_generation(task: Task, base: Base, codec: Codec) -> dict[str, Any]:
    """The generation config that a run keeps: every id that ends an answer, whether the base's files name it or its
    template writes it. Empty where nothing is generated."""
    if task.gives == "labels":
        return {}
    if task.gives == "outputs":
        return seq2seq.frozen_generation(base, codec)
    config = generation_config(base)
    stops = codec.stop_ids if isinstance(codec, ChatTemplate) else ()
    return config | {"eos_token_id": sorted({*config["eos_token_id"], *stops})}


def engine_for(task: Task, model: Any, codec: Codec, generation: dict[str, Any], recipe: Recipe) -> Any:
    """The engine for ``task.gives``."""
    if isinstance(task, LabelTask):
        return LabelEngine(model, codec, task.logits(model, codec), recipe.classify.multi_label)
    if task.gives == "outputs":
        return Seq2SeqEngine(model, codec, generation, recipe.seq2seq.beams)
    return TransformersEngine(model, codec, generation)  # type: ignore[arg-type]  # documents are scored, never answered


def labels_of(recipe: Recipe, names: tuple[str, ...]) -> Labels | None:
    """What a classifier's head is made for."""
    return Labels(names, recipe.classify.multi_label, recipe.seed) if names else None
