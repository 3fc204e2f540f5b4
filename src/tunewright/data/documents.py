"""Documents to go on with: each row is one text, learned as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewright.data.columns import check_names, found_names, kept_beside, only_one, require_columns
from tunewright.data.formats import Conversion
from tunewright.data.messages import text_of
from tunewright.data.read import Row
from tunewright.errors import DataError
from tunewright.example import Chat, Message
from tunewright.recipe.schema import Data
from tunewright.text import _

TEXTS = ("text", "content", "document", "article", "body", "story")


def convert_documents(rows: Sequence[Row], data: Data, seen: str | None = None) -> Conversion:
    """Every row becomes one learned turn. ``seen``: why, where text files were read. Raises DataError."""
    column = "text" if seen is not None else _column(rows, data)
    chats: list[Chat] = []
    extra: dict[str, None] = {}
    for row in rows:
        require_columns([column], row.fields, row.origin)
        text = text_of(row.fields[column], column, row.origin)
        rest = {str(name): value for name, value in row.fields.items() if name != column}
        extra |= dict.fromkeys(rest)
        chats.append(Chat((Message("assistant", text, learn=True),), replace(row.origin, extra=rest)))
    reason = seen if seen is not None else _("column {column} with documents", column=column)
    return Conversion(chats, "text", reason + kept_beside(extra))


def text_columns(rows: Sequence[Row]) -> list[str]:
    """Columns whose name says that they hold a document."""
    names = dict.fromkeys(str(name) for row in rows for name in row.fields)
    return [name for name in names if name.strip().casefold() in TEXTS]


def _column(rows: Sequence[Row], data: Data) -> str:
    if others := [part for part in data.columns if part != "text"]:
        raise DataError(
            _("data.columns.{part} has no meaning in a document", part=others[0]), where="data.columns",
            do=_("name text alone"),
        )  # fmt: skip
    if "text" in data.columns:
        check_names(data.columns, rows)
        return data.columns["text"]
    found = text_columns(rows)
    names = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    if not found and len(names) == 1:
        return names[0]
    if not found:
        raise DataError(
            _("no column is known to hold a document; found are {names}", names=found_names(names)),
            where=str(rows[0].origin), do=_("name it: data.columns.text=COLUMN"),
            command=f"tunewright data check {rows[0].origin.file} task=pretrain data.columns.text=COLUMN",
        )  # fmt: skip
    return only_one(found, lambda name: f"data.columns.text={name}", rows[0].origin, "task=pretrain")
