"""Which task a file is for, told from its first rows. What could be two tasks is asked, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal

from tunewright.data.columns import found_names
from tunewright.data.documents import text_columns
from tunewright.data.files import Source
from tunewright.data.formats import Reading, Reads, flat_formats
from tunewright.data.labelled import Columns, labelled_columns
from tunewright.data.load import find
from tunewright.data.parallel import is_language, parallel_columns
from tunewright.data.plain import PLAIN, file_label
from tunewright.data.read import Row, read
from tunewright.errors import DataError
from tunewright.recipe.schema import Data, Recipe
from tunewright.text import _

TaskName = Literal["chat", "classify", "seq2seq", "pretrain"]
READS: dict[str, Reads] = {"chat": "turns", "classify": "labels", "seq2seq": "pairs", "pretrain": "documents"}
_ROWS = 200  # as many are looked at
_LONGEST_LABEL = 60  # characters; what is longer is a text
_BY_PART: dict[str, TaskName] = {
    "label": "classify", "pair": "classify", "source": "seq2seq", "target": "seq2seq", "question": "chat",
    "answer": "chat", "text": "pretrain",
}  # fmt: skip
_BY_FORMAT: dict[str, TaskName] = {"labelled": "classify", "parallel": "seq2seq", "text": "pretrain"}


def guess_task(data: Data) -> tuple[TaskName, str]:
    """The task and one sentence why. Raises DataError where it cannot be told, saying how to choose."""
    if data.target:
        return "seq2seq", _("data.target names the targets")
    if data.format != "auto":
        return _BY_FORMAT.get(data.format, "chat"), _("data.format is {format}", format=data.format)
    if data.prompt is not None or data.answer is not None:
        return "chat", _("data.prompt and data.answer write a question and its answer")
    for part, task in _BY_PART.items():
        if part in data.columns:
            return task, _("data.columns names {part}", part=part)
    train, _validation = find(data)
    if any(source.is_text for source in train):
        return _of_files(train)
    limit = min(_ROWS, data.limit or _ROWS)
    return _of_rows(list(islice(read(train), limit)))


def reading_of(recipe: Recipe) -> Reading:
    """How the rows of a recipe are read, whatever its base; ``task: auto`` is guessed first. Raises DataError."""
    task = guess_task(recipe.data)[0] if recipe.task == "auto" else recipe.task
    if task != "classify":
        return Reading(READS[task])
    labels = recipe.classify
    return Reading("labels", tuple(labels.labels), dict(labels.names), labels.multi_label)


def _of_files(files: Sequence[Source]) -> tuple[TaskName, str]:
    """By the endings of text files."""
    first = files[0]
    suffixes = {source.path.suffix.lower() for source in files}
    named = suffixes - set(PLAIN)
    if not named:
        folders = {source.path.parent for source in files if source.folder is not None}
        if len(folders) == 1 or (len(files) == 1 and not folders):
            return "pretrain", _("running text without columns")
        raise _undecided(
            first, _("text files may be documents, or hold one label each"), ("pretrain", "classify")
        )
    if len(files) > 1 and len({file_label(source) for source in files}) > 1:
        if all(is_language(suffix[1:]) for suffix in named):
            raise DataError(
                _("the endings {names} look like languages", names=", ".join(sorted(named))), where=first.name,
                do=_("for a translation, name sources and targets apart: data.train=SOURCES data.target=TARGETS"),
                command=f"tunewright train {first.name} data.target={files[1].name}",
            )  # fmt: skip
        return "classify", _("one text file for each label: {names}", names=", ".join(map(file_label, files[:6])))
    raise _undecided(first, _("a text file alone may be documents or sources"), ("pretrain", "seq2seq"))


def _of_rows(rows: Sequence[Row]) -> tuple[TaskName, str]:
    """By the columns, and what stands in a column that may hold labels."""
    names = found_names(dict.fromkeys(str(name) for row in rows for name in row.fields))
    turns, pairs, labelled = flat_formats(rows), parallel_columns(rows), labelled_columns(rows)
    readings: list[tuple[TaskName, str]] = []
    if turns:
        readings.append(("chat", _("the columns are those of conversations: {names}", names=names)))
    if pairs:
        readings.append(("seq2seq", _("two columns hold a text and what is written from it: {one}", one=pairs[0])))
    if labelled and any(_holds_labels(rows, columns) for columns in labelled):
        readings.append(("classify", _("a text and its label: {one}", one=labelled[0])))
    if len(readings) == 1:
        return readings[0]
    if len(readings) > 1:
        raise DataError(
            _("the rows could be for several tasks:\n    {readings}",
              readings="\n    ".join(f"{task}: {why}" for task, why in readings)),
            where=str(rows[0].origin), do=_("choose one: {words}", words=_words([task for task, _why in readings])),
            command=f"tunewright data check {rows[0].origin.file} task={readings[0][0]}",
        )  # fmt: skip
    if labelled:
        column = labelled[0].label
        raise DataError(
            _("the column {column!r} may hold labels, but has nearly as many values as there are rows", column=column),
            where=str(rows[0].origin), do=_("choose one: {words}", words=_words(["classify", "seq2seq", "pretrain"])),
            command=f"tunewright data check {rows[0].origin.file} task=classify",
        )  # fmt: skip
    if text_columns(rows):
        return "pretrain", _("texts without a label or an answer: {names}", names=names)
    return "chat", _("nothing else fits the columns: {names}", names=names)


def _holds_labels(rows: Sequence[Row], columns: Columns) -> bool:
    """Few short values for many rows."""
    values = [row.fields.get(columns.label) for row in rows]
    known = [value for value in values if value is not None and value == value and value != ""]
    flat = [one for value in known for one in (value if isinstance(value, list) else [value])]
    if not flat or not all(isinstance(one, str | int | float) and len(str(one)) <= _LONGEST_LABEL for one in flat):
        return False
    return 2 * len({str(one) for one in flat}) <= max(4, len(flat))


def _words(tasks: Sequence[str]) -> str:
    return _(" or ").join(f"task={task}" for task in tasks)


def _undecided(source: Source, what: str, tasks: Sequence[str]) -> DataError:
    return DataError(
        what, where=source.name, do=_("choose one: {words}", words=_words(tasks)),
        command=f"tunewright train {source.name} task={tasks[0]}",
    )  # fmt: skip
