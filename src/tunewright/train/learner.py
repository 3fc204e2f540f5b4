"""The model of a run: opened once as its base, then made ready to be trained, and asked the same way all along."""

from __future__ import annotations

from typing import Any

from tunewright.infer.engines import engine_for, frozen_generation, labels_of
from tunewright.model import adapter
from tunewright.model.load import load
from tunewright.train.ready import Ready


class Learner:
    """model: the base with the head that the task needs, and after ``adapt`` what is trained of it.  generation: the
    generation config that the run keeps."""

    def __init__(self, ready: Ready) -> None:
        recipe, task = ready.recipe, ready.task
        assert recipe.train.precision != "auto"
        self.ready = ready
        self.generation = frozen_generation(task, ready.base, ready.prepared.codec)
        labels = labels_of(recipe, ready.prepared.labels)
        self.model: Any = load(ready.base, recipe.train.precision, head=task.head, labels=labels)

    def adapt(self) -> None:
        """Make the weights of the recipe's method trainable; see :func:`tunewright.model.adapter.prepare`."""
        self.model = adapter.prepare(self.model, self.ready.recipe)

    def engine(self) -> Any:
        """A new engine over the model as it is now."""
        ready = self.ready
        return engine_for(ready.task, self.model, ready.prepared.codec, self.generation, ready.recipe)
