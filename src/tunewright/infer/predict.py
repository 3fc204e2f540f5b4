"""What a finished run says of rows that nobody has answered yet: labels, outputs or answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.data.asked import is_blank
from tunewright.data.formats import Reading
from tunewright.data.read import Row
from tunewright.errors import DataError, RunError
from tunewright.example import Chat, Origin, Rendered
from tunewright.infer.engine import Generation, Progress
from tunewright.infer.open import Opened
from tunewright.model.forward import causal_model
from tunewright.recipe.schema import Recipe
from tunewright.tasks import Task
from tunewright.text import _

TooLong = Literal["stop", "skip", "truncate"]
Empty = Literal["stop", "skip"]
AS_TRAINED: dict[str, TooLong] = {"stop": "stop", "drop": "skip", "truncate": "truncate"}
CHUNK = {"labels": 1024, "outputs": 128, "answers": 32}  # rows between two writings; of like length go together
NEW_TOKENS = 256  # an answer may become as long as this, or longer if the run's own were


@dataclass(frozen=True)
class Options:
    """too_long: what happens to a row that the model cannot hold; None is what the run's recipe says.  empty: to a row
    without text.  max_new_tokens: longest output or answer; None is what the run was measured with, at least 256."""

    too_long: TooLong | None = None
    empty: Empty = "stop"
    max_new_tokens: int | None = None


@dataclass
class Counts:
    rows: int = 0
    skipped: int = 0
    truncated: int = 0
    unfinished: int = 0  # outputs and answers that did not end within the limit

    def add(self, result: Mapping[str, Any]) -> None:
        self.rows += 1
        self.skipped += "skipped" in result
        self.truncated += "truncated" in result
        self.unfinished += result.get("stopped") is False


def reading_of(task: Task, recipe: Recipe, labels: tuple[str, ...], texts: int = 0) -> Reading:
    """How the rows of a run are read. texts: how many each has, as the run's manifest says. Raises RunError for a task
    that answers nothing."""
    if task.gives == "likelihood":
        raise RunError(
            _("this run learned to go on with texts; it has no labels, outputs or answers to predict"),
            where="task: pretrain", do=_("measure it on other texts, or let it go on with one"),
            command="tunewright evaluate RUN FILE",
        )  # fmt: skip
    return Reading(task.reads, labels, {}, recipe.classify.multi_label, texts)


class Predictor:
    """Rows and their examples in, one result to each out. Results are the same whatever rows come together."""

    def __init__(self, opened: Opened, options: Options) -> None:
        self.task, self.codec, self.engine, self.labels = opened.task, opened.codec, opened.engine, opened.labels
        self.multi_label = opened.recipe.classify.multi_label
        self.too_long = options.too_long or AS_TRAINED[opened.recipe.data.too_long]
        self.empty = options.empty
        self.most, self.new = _limits(opened, options)

    def __call__(self, rows: Sequence[Row], chats: Sequence[Chat], progress: Progress | None = None) -> list[dict]:
        """One result to each row, in order: where the row stands, what was found, and the row's own fields.

        Raises DataError naming the row that is empty or too long, unless it should be skipped or cut.
        """
        found: list[dict[str, Any]] = [{} for _row in rows]
        asked: list[int] = []
        for index, chat in enumerate(chats):
            if is_blank(chat):
                found[index] = _skipped(_("it has no text"), chat.origin, self.empty == "stop", "--empty skip")
            else:
                asked.append(index)
        given = self._given([chats[index] for index in asked])
        fitting: dict[int, Any] = {}
        for index, one in zip(asked, given, strict=True):
            fits = one if self._size(one) <= self.most else self._shortened(chats[index], one, found[index])
            if fits is not None:
                fitting[index] = fits
        if progress:
            progress(len(rows) - len(fitting))
        for index, result in zip(fitting, self._answers(list(fitting.values()), progress), strict=True):
            found[index] = result | found[index]
        return [_placed(row, result) for row, result in zip(rows, found, strict=True)]

    # -- what the model reads ----------------------------------------------------------------------------------------

    def _given(self, chats: Sequence[Chat]) -> list[Any]:
        """Each example as the engine takes it: a row, or the ids of a prompt."""
        if self.task.gives == "labels":
            return [rows[-1] for rows in self.codec.render_many(chats)]
        questions = [self.task.question(chat, self.codec) for chat in chats]
        return [question.prompt for question in questions if question is not None]

    def _size(self, given: Any) -> int:
        return self.codec.size(given) if isinstance(given, Rendered) else len(given)

    def _shortened(self, chat: Chat, given: Any, said: dict[str, Any]) -> Any:
        """The same within the limit; None if the row was left out, which is then written into ``said``."""
        detail = _("{size} tokens, {most} fit", size=self._size(given), most=self.most)
        if self.too_long != "truncate":
            why = _("it is too long: {detail}", detail=detail)
            said |= _skipped(why, chat.origin, self.too_long == "stop", "--too-long skip|truncate")
            return None
        cut = self.codec.cut(chat, self.codec.render_many([chat])[0], self.most)
        if not cut.rows:
            said |= _skipped(_("it cannot be cut to fit: {detail}", detail=detail), chat.origin, False, "")
            return None
        row = cut.rows[-1]
        said["truncated"] = cut.lost
        return row if self.task.gives == "labels" else row.ids[: int(row.learn.argmax())].tolist()

    # -- what the model says -----------------------------------------------------------------------------------------

    def _answers(self, asked: list[Any], progress: Progress | None) -> list[dict[str, Any]]:
        if not asked:
            return []
        if self.task.gives == "labels":
            return [self._label(chances) for chances in self.engine.probabilities(asked, progress).tolist()]
        done: list[Generation] = self.engine.generate(asked, self.new, progress)
        if self.task.gives == "outputs":
            return [{"output": one.text, "stopped": one.stopped} for one in done]
        return [{"answer": one.text, "thinking": one.thinking, "stopped": one.stopped} for one in done]

    def _label(self, chances: Sequence[float]) -> dict[str, Any]:
        each = {label: round(chance, 6) for label, chance in zip(self.labels, chances, strict=True)}
        if self.multi_label:
            chosen = [label for label, chance in zip(self.labels, chances, strict=True) if chance >= 0.5]
            return {"labels": chosen, "probabilities": each}
        best = max(range(len(chances)), key=chances.__getitem__)
        return {"label": self.labels[best], "probability": each[self.labels[best]], "probabilities": each}


def _limits(opened: Opened, options: Options) -> tuple[int, int]:
    """Tokens that a row (or a prompt) may have, and that may be generated."""
    recipe = opened.recipe
    most, usual = recipe.data.max_length, recipe.evaluate.max_new_tokens
    assert most != "auto"
    if opened.task.gives == "labels":
        return most, 0
    assert usual != "auto"
    new = options.max_new_tokens or max(NEW_TOKENS, usual)
    config = causal_model(opened.engine.model).config.get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    if opened.task.gives == "outputs":
        return most, new if context is None else min(new, context - 1)
    room = max(most, context or most)  # of prompt and answer together
    new = min(new, room // 2)
    return room - new, new


def _skipped(why: str, origin: Origin, stop: bool, option: str) -> dict[str, Any]:
    if stop:
        raise DataError(
            _("the row cannot be predicted: {why}", why=why), where=str(origin),
            do=_("correct it, or add {option}; what is written already is kept", option=option),
            command="tunewright predict --help",
        )  # fmt: skip
    return {"skipped": why}


def _placed(row: Row, result: Mapping[str, Any]) -> dict[str, Any]:
    return {**row.origin.place, **result, "input": {str(name): plain(value) for name, value in row.fields.items()}}


def plain(value: Any) -> Any:
    """A field as standard JSON can hold it: dates and bytes of tables as text, NaN as null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value)
