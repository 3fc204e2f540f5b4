"""Before and after, in the way of the task, and the small measurement that chooses among epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tunewright.evaluate import classes, learned, retention
from tunewright.evaluate.compare import Measurement, compare, measure, work
from tunewright.evaluate.kept import Retained
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


def measured_as(
    engine: Any, ready: Ready, what: str, listener: Listener, before: Measured | None = None
) -> Measured:
    """What one model does on the held-out rows. before: what its base did, for the tuned model."""
    prepared, recipe, rows = ready.prepared, ready.recipe, ready.prepared.held_out
    if isinstance(ready.task, LabelTask):
        texts = _texts(ready.task, prepared.held_out_chats)
        with listener.doing(what, len(rows)) as progress:
            return measure_labels(engine, rows, texts, prepared.labels, recipe.classify.multi_label, progress)
    limit = recipe.evaluate.max_new_tokens
    assert limit != "auto"
    with listener.doing(what, work(rows, ready.items) + len(ready.seen)) as progress:
        measured = measure(engine, rows, ready.items, recipe.checks, limit, progress)
        prompts = [item.prompt for item in ready.seen]
        recited = tuple(engine.generate(prompts, learned.TOKENS, progress)) if prompts else ()
    return replace(measured, recited=recited, retained=_retained(engine, ready, retained_of(before), listener))


def retained_of(measured: Measured | None) -> Retained | None:
    """What a measurement says of what the base can do, if that was asked."""
    return measured.retained if isinstance(measured, Measurement) else None


def _retained(engine: Any, ready: Ready, before: Retained | None, listener: Listener) -> Retained | None:
    """General questions and prompts: first to the base, then, with what that gave, to the tuned model."""
    recipe, asked = ready.recipe, ready.asked
    if not asked:
        return None
    what = _("Asking the base general questions") if before is None else _("Asking the tuned model the same")
    with listener.doing(what, retention.work(asked, before is not None)) as progress:
        if before is not None:
            return retention.of_tuned(engine, before, progress)
        changes_head = recipe.train.method != "lora"
        return retention.of_base(engine, asked, ready.base.sha256, recipe.data.system, changes_head, progress)


def compared(before: Measured, after: Measured, ready: Ready, listener: Listener) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    if isinstance(before, LabelMeasurement) and isinstance(after, LabelMeasurement):
        return compare_labels(before, after, yardsticks_of(ready, listener), ready.recipe.seed)
    assert isinstance(before, Measurement) and isinstance(after, Measurement)
    found = compare(before, after, ready.recipe.seed, ready.task.gives)
    if not after.recited:
        return found
    return learned.completed(found, recited=learned.recitation(ready.seen, before.recited, after.recited))


def with_epochs(
    evaluation: dict[str, Any], lines: Iterable[dict[str, Any]], after: Measured, ready: Ready
) -> dict[str, Any]:
    """``evaluation`` with how the run did epoch by epoch. lines: of ``metrics.jsonl``."""
    seen = learned.epochs(lines, _end(after, ready))
    return learned.completed(evaluation, learning=learned.learning(seen, ready.recipe.train.keep == "best"))


def _end(after: Measured, ready: Ready) -> float | None:
    """The held-out loss at the end on the rows that epochs were measured on: those of ``standing``."""
    if ready.prepared.watched:
        return None
    if isinstance(after, Measurement):
        return mean_loss(after.scores[:WATCHED]) if after.scores else None
    losses = classes.log_loss(after.probabilities[:WATCHED], after.wanted[:WATCHED], after.multi_label)
    return float(losses.mean()) if len(losses) else None


def yardsticks_of(ready: Ready, listener: Listener) -> list[Yardstick]:
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


def standing(
    engine: Any, ready: Ready, rows: Sequence[Rendered] | None = None, base: Retained | None = None
) -> Standing:
    """How an epoch did, on ``rows``, by default those held out for choosing (or, where nothing is chosen, some of the
    held-out rows). base: with it, how far the model has moved from its base."""
    if rows is None:
        rows = ready.prepared.watched or ready.prepared.held_out[:WATCHED]
    if isinstance(ready.task, LabelTask):
        labels, multi = ready.prepared.labels, ready.recipe.classify.multi_label
        measured = measure_labels(engine, rows, [""] * len(rows), labels, multi, None)
        losses = classes.log_loss(measured.probabilities, measured.wanted, multi)
        right = float(classes.right(measured.wanted, measured.chosen).mean())
        return Standing(float(losses.mean()), right, len(rows))
    return Standing(mean_loss(engine.score(rows)), divergence=retention.moved(engine, base) if base else None)


def mean_loss(scores: Sequence[Score]) -> float:
    """In nats per learned token of all rows together."""
    return sum(score.loss for score in scores) / max(1, sum(score.tokens for score in scores))
