"""Files to conversations with their variables filled: what check, show, stats and training all begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.data.formats import convert
from tunewright.data.read import Source, read, sources
from tunewright.data.variables import fill, fill_all
from tunewright.errors import DataError
from tunewright.example import Chat, Origin
from tunewright.recipe.schema import Data
from tunewright.text import _


@dataclass(frozen=True)
class Loaded:
    """chats: of ``data.train``.  validation: of ``data.validation``.  missing: unfilled placeholders and their rows.
    ignored: fields inside messages that mean nothing here."""

    chats: list[Chat]
    validation: list[Chat]
    format_name: str
    format_reason: str
    missing: dict[str, list[Origin]]
    ignored: Counter[str]


def find(data: Data) -> tuple[list[Source], list[Source]]:
    """The files of training and validation. Raises DataError."""
    if not data.train:
        raise DataError(
            _("no training data is given"),
            where="data.train",
            do=_("name a file or a folder"),
            command="tunewright train FILE",
        )
    train, validation = sources(data.train), sources(data.validation)
    places = {source.path.resolve() for source in train}
    for source in validation:
        if source.path.resolve() in places:
            raise DataError(
                _("the validation file is a training file"),
                where=source.name,
                do=_("leave data.validation out: rows are then held out from the training file"),
            )
    return train, validation


def load(data: Data, train: Sequence[Source], validation: Sequence[Source]) -> Loaded:
    """Everything read, converted and filled. Raises DataError for the first row that cannot be."""
    if data.system is not None:
        data = data.model_copy(update={"system": fill(data.system, data.variables)})
    done = convert(list(read(train, data.limit)), data)
    filled = fill_all(done.chats, data.variables)
    if not validation:
        return Loaded(filled.chats, [], done.name, done.reason, filled.missing, done.ignored)
    other = convert(list(read(validation)), data)
    more = fill_all(other.chats, data.variables)
    missing = dict(filled.missing)
    for name, rows in more.missing.items():
        missing[name] = [*missing.get(name, []), *rows]
    return Loaded(filled.chats, more.chats, done.name, done.reason, missing, done.ignored + other.ignored)
