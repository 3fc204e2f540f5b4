"""Before and after, in the way of the task, and the small measurement that chooses among epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewright.evaluate import classes
from tunewright.evaluate.compare import Measurement, compare, measure, work
from tunewright.evaluate.labels import LabelMeasurement, compare_labels, measure_labels
from tunewright.evaluate.yardstick import Given, Yardstick, yardsticks
from tunewright.example import Chat, Rendered
from tunewright.infer.engine import Score
from tunewright.tasks import LabelTask
from tunewright.text import _
from tunewright.train.best import Standing
from tunewright.train.events import Listener
from tunewright.train.ready import Ready

WATCHED = 64  # held-out rows whose loss is taken at the end of each epoch, where nothing is chosen by it
Measured = Measurement | LabelMeasurement


def measured_as(engine: Any, ready: Ready, what: str, listener: Listener) -> Measured:
    """What one model does on the held-out rows."""
    prepared, recipe, rows = ready.prepared, ready.recipe, ready.prepared.held_out
    if isinstance(ready.task, LabelTask):
        texts = _texts(ready.task, prepared.held_out_chats)
        with listener.doing(what, len(rows)) as progress:
            return measure_labels(engine, rows, texts, prepared.labels, recipe.classify.multi_label, progress)
    limit = recipe.evaluate.max_new_tokens
    assert limit != "auto"
    with listener.doing(what, work(rows, ready.items, ready.asked)) as progress:
        return measure(engine, rows, ready.items, recipe.checks, limit, ready.asked, progress)


def compared(before: Measured, after: Measured, ready: Ready, listener: Listener) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    if isinstance(before, LabelMeasurement) and isinstance(after, LabelMeasurement):
        return compare_labels(before, after, _yardsticks(ready, listener), ready.recipe.seed)
    assert isinstance(before, Measurement) and isinstance(after, Measurement)
    return compare(before, after, ready.recipe.seed, ready.task.gives)


def _yardsticks(ready: Ready, listener: Listener) -> list[Yardstick]:
    """What a method without a language model reaches with the same rows."""
    task, prepared, recipe = ready.task, ready.prepared, ready.recipe
    assert isinstance(task, LabelTask)
    with listener.doing(_("Measuring TF-IDF on the same rows"), 1) as progress:
        trained = prepared.train_chats
        wanted = [task.wanted(chat, prepared.labels) for chat in trained]
        texts = _texts(task, prepared.held_out_chats)
        multi = recipe.classify.multi_label
        found = yardsticks(_texts(task, trained), wanted, texts, prepared.labels, multi, recipe.seed)
        progress(1)
    return found


def _texts(task: LabelTask, chats: Sequence[Chat]) -> list[Given]:
    """The text of each example, or the two of a pair."""
    return [task.given(chat) for chat in chats]


def standing(engine: Any, ready: Ready) -> Standing:
    """How an epoch did, on rows held out for choosing (or, where nothing is chosen, on some held-out rows)."""
    rows: Sequence[Rendered] = ready.prepared.watched or ready.prepared.held_out[:WATCHED]
    if isinstance(ready.task, LabelTask):
        labels, multi = ready.prepared.labels, ready.recipe.classify.multi_label
        measured = measure_labels(engine, rows, [""] * len(rows), labels, multi, None)
        losses = classes.log_loss(measured.probabilities, measured.wanted, multi)
        right = float(classes.right(measured.wanted, measured.chosen).mean())
        return Standing(float(losses.mean()), right, len(rows))
    return Standing(_loss(engine.score(rows)))


def _loss(scores: Sequence[Score]) -> float:
    return sum(score.loss for score in scores) / max(1, sum(score.tokens for score in scores))
