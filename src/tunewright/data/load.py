"""Files to examples with their variables filled: what check, show, stats and training all begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunewright.data.documents import convert_documents
from tunewright.data.files import Source, require_rows, sources
from tunewright.data.formats import Conversion, Reading, Reads, convert
from tunewright.data.labelled import convert_labelled
from tunewright.data.parallel import convert_pairs
from tunewright.data.plain import document_rows, label_rows, side_by_side
from tunewright.data.read import Row, read
from tunewright.data.variables import fill, fill_all
from tunewright.errors import DataError
from tunewright.example import Chat, Origin
from tunewright.recipe.schema import Data
from tunewright.text import _

__all__ = ["Loaded", "Reading", "Reads", "find", "load"]

_FORMATS: dict[Reads, tuple[str, ...]] = {
    "turns": ("messages", "sharegpt", "instruction", "prompt_completion", "reasoning", "columns", "template"),
    "labels": ("labelled", "messages", "sharegpt", "instruction", "prompt_completion", "columns", "template"),
    "pairs": ("parallel", "messages", "sharegpt", "instruction", "prompt_completion", "columns", "template"),
    "documents": ("text",),
}


@dataclass(frozen=True)
class Loaded:
    """chats: of ``data.train``.  validation: of ``data.validation``.  missing: unfilled placeholders and their rows.
    ignored: fields inside messages that mean nothing here.  labels: their names in the order of their numbers, where
    labels are read.  shown: unfilled placeholders that seem to be meant, and their rows."""

    chats: list[Chat]
    validation: list[Chat]
    format_name: str
    format_reason: str
    missing: dict[str, list[Origin]]
    ignored: Counter[str]
    labels: tuple[str, ...] = ()
    shown: Mapping[str, Sequence[Origin]] = field(default_factory=dict)


def find(data: Data) -> tuple[list[Source], list[Source]]:
    """The files of training and validation, those of ``data.target`` beside them. Raises DataError."""
    if not data.train:
        raise DataError(
            _("no training data is given"),
            where="data.train",
            do=_("name a file or a folder"),
            command="tunewright train FILE",
        )
    train, validation = sources(data.train, text=True), sources(data.validation, text=True)
    places = {source.path.resolve() for source in train}
    for source in validation:
        if source.path.resolve() in places:
            raise DataError(
                _("the validation file is a training file"),
                where=source.name,
                do=_("leave data.validation out: rows are then held out from the training file"),
            )
    train = _beside(train, data.target, "data.train", "data.target")
    return train, _beside(validation, data.validation_target, "data.validation", "data.validation_target")


def _beside(files: list[Source], paths: Sequence[str], one: str, other: str) -> list[Source]:
    """Each file with its target beside it."""
    if not paths:
        return files
    targets = sources(paths, text=True)
    for source in (*files, *targets):
        if not source.is_text:
            raise DataError(
                _("{other} is for text files whose lines belong together; this file has columns", other=other),
                where=source.name,
                do=_("leave {other} out and name the columns: data.columns.target=COLUMN", other=other),
            )
    if len(targets) != len(files):
        raise DataError(
            _("{one} names {files} files, {other} names {targets}", one=one, files=len(files), other=other,
              targets=len(targets)),
            where=other, do=_("name as many on both sides, in the same order"),
        )  # fmt: skip
    for source, target in zip(files, targets, strict=True):
        if source.path.resolve() == target.path.resolve():
            raise DataError(
                _("source and target are the same file"), where=target.name, do=_("name the target's own file")
            )
    return [replace(source, beside=target) for source, target in zip(files, targets, strict=True)]


@dataclass(frozen=True)
class Raw:
    """Rows as they stand in their files. seen: why, where text files gave them, which have no columns."""

    rows: list[Row]
    seen: str | None = None


def load(
    data: Data,
    train: Sequence[Source],
    validation: Sequence[Source],
    reading: Reading = Reading(),  # noqa: B008 - frozen
) -> Loaded:
    """Everything read, converted and filled. Raises DataError for the first row that cannot be."""
    return convert_rows(*read_rows(data, train, validation, reading), data, reading)


def read_rows(
    data: Data, train: Sequence[Source], validation: Sequence[Source], reading: Reading
) -> tuple[Raw, Raw | None]:
    """The rows of training and of validation, if there is any. Raises DataError."""
    _require_sense(data, reading)
    if reading.reads != "labels" or not any(source.is_text for source in (*train, *validation)):
        return _side(data, train, data.limit, reading.reads), (
            _side(data, validation, None, reading.reads) if validation else None
        )
    _require_one_kind([*train, *validation])
    _require_no_columns(data)
    rows, seen, folders = label_rows(train, data.limit)
    return Raw(rows, seen), Raw(label_rows(validation, None, folders)[0], seen) if validation else None


def convert_rows(train: Raw, validation: Raw | None, data: Data, reading: Reading) -> Loaded:
    """One example of each row, in the same order, with its variables filled. Raises DataError."""
    if data.system is not None:
        data = data.model_copy(update={"system": fill(data.system, data.variables)})
    done, more, labels = _convert(train, validation, data, reading)
    answers = reading.reads != "labels"  # a label is a name, not a text with placeholders
    filled = fill_all(done.chats, data.variables, answers)
    other = fill_all(more, data.variables, answers)
    missing, shown = _both(filled.missing, other.missing), _both(filled.shown, other.shown)
    return Loaded(filled.chats, other.chats, done.name, done.reason, missing, done.ignored, labels, shown)


def _both(one: Mapping[str, list[Origin]], other: Mapping[str, list[Origin]]) -> dict[str, list[Origin]]:
    return {name: [*one.get(name, []), *other.get(name, [])] for name in [*one, *(n for n in other if n not in one)]}


def _convert(
    train: Raw, validation: Raw | None, data: Data, reading: Reading
) -> tuple[Conversion, list[Chat], tuple[str, ...]]:
    """The conversion of the training rows, the examples of the validation rows, and the labels."""
    if reading.reads == "labels":
        return convert_labelled(train.rows, validation.rows if validation else [], data, reading, train.seen)
    one = _convert_side(train, data, reading.reads)
    if validation is None:
        return one, [], ()
    two = _convert_side(validation, data, reading.reads)
    one.ignored += two.ignored
    return one, two.chats, ()


def _convert_side(raw: Raw, data: Data, reads: Reads) -> Conversion:
    if reads == "pairs":
        return convert_pairs(raw.rows, data, raw.seen)
    if reads == "documents":
        return convert_documents(raw.rows, data, raw.seen)
    return convert(raw.rows, data)


def _side(data: Data, files: Sequence[Source], limit: int | None, reads: Reads) -> Raw:
    if reads == "pairs":
        if any(source.beside for source in files):
            _require_no_columns(data)
            return Raw(side_by_side(files, limit), _seen_files(files))
        if any(source.is_text for source in files):
            raise DataError(
                _("a text file alone has no targets"), where=files[0].name,
                do=_("name the file whose lines belong to its lines: data.target=FILE, data.validation_target=FILE"),
            )  # fmt: skip
    if reads == "documents" and any(source.is_text for source in files):
        _require_one_kind(files)
        _require_no_columns(data)
        return Raw(*document_rows(files, limit))
    require_rows(files)
    return Raw(list(read(files, limit)))


def _seen_files(files: Sequence[Source]) -> str:
    first = files[0]
    assert first.beside is not None
    more = _(" and {count} pairs of files more", count=len(files) - 1) if len(files) > 1 else ""
    target, source = first.beside.name, first.name
    return _("line N of {target} is the target of line N of {source}", target=target, source=source) + more


# -- what cannot be meant --------------------------------------------------------------------------------------------


def _require_sense(data: Data, reading: Reading) -> None:
    """Raises DataError for keys that say nothing about rows read in this way."""
    reads = reading.reads
    if data.format != "auto" and data.format not in _FORMATS[reads]:
        raise DataError(
            _("data.format is {format}, which this task does not read", format=data.format), where="data.format",
            do=_("it reads {names}; or choose another task", names=", ".join(_FORMATS[reads])),
            command="tunewright recipe explain task",
        )  # fmt: skip
    if (data.target or data.validation_target) and reads != "pairs":
        raise DataError(
            _("data.target is for pairs of texts"), where="data.target", do=_("choose task=seq2seq, or leave it out"),
            command="tunewright recipe explain data.target",
        )  # fmt: skip
    if data.validation_target and not data.validation:
        raise DataError(
            _("data.validation_target is given without data.validation"), where="data.validation_target",
            do=_("name the file of its sources: data.validation=FILE"),
        )  # fmt: skip
    if data.validation and data.target and not data.validation_target:
        raise DataError(
            _("data.validation is given without its targets"), where="data.validation",
            do=_("name the file of its targets: data.validation_target=FILE"),
        )  # fmt: skip
    if data.system is not None and reads in ("pairs", "documents"):
        raise DataError(
            _("data.system is for bases that chat"), where="data.system", do=_("leave it out"),
            command="tunewright recipe explain data.system",
        )  # fmt: skip


def _require_one_kind(files: Sequence[Source]) -> None:
    kinds = {source.is_text: source.name for source in files}
    if len(kinds) > 1:
        raise DataError(
            _("text files and files with columns are given together"), where=f"{kinds[True]}, {kinds[False]}",
            do=_("give files of one kind"),
        )  # fmt: skip


def _require_no_columns(data: Data) -> None:
    if data.columns or data.prompt is not None or data.answer is not None:
        raise DataError(
            _("text files have no columns"), where="data.columns, data.prompt, data.answer",
            do=_("leave these keys out"),
        )  # fmt: skip
