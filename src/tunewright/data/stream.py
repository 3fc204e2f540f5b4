"""Rows of one file, one after the other, without holding the file: for files larger than memory.

What is read is what ``data/read.py`` reads, and tables by its own code. A line that cannot be read is left to it too,
so that there is one wording for each mistake. A JSON array and JSON over several lines are read whole; JSON Lines,
tables and Parquet are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from tunewright.data.files import Source, whole_text
from tunewright.data.read import Row, delimiter_of, read, table
from tunewright.errors import DataError
from tunewright.example import Origin
from tunewright.text import _


def stream(source: Source, column: str = "text") -> Iterator[Row]:
    """The rows of ``source``. Lines of a text file are rows with the one field ``column``; blank lines count, except
    at the end. Raises DataError naming file and line."""
    empty = True
    for row in _rows(source, column):
        empty = False
        yield row
    if empty:
        _tell(source)


def _rows(source: Source, column: str) -> Iterator[Row]:
    suffix = source.path.suffix.lower()
    if source.is_text:
        return _text(source, column)
    if suffix in (".csv", ".tsv"):
        return _table(source)
    if suffix != ".parquet" and _one_a_line(source):
        return _json_lines(source)
    return read([source])


def _tell(source: Source) -> NoReturn:
    """Raises the DataError of the reader of whole files."""
    if source.is_text:
        whole_text(source)
    else:
        for _row in read([source]):
            pass
    raise DataError(_("the file changed while it was read"), where=source.name, do=_("read it once it is finished"))


def _lines(source: Source, newline: str = "\n") -> Iterator[str]:
    """Lines with their ends. Strictly UTF-8; a byte-order mark is tolerated."""
    file: TextIO
    try:
        with open(source.path, encoding="utf-8-sig", newline=newline) as file:
            for line in file:
                if "\0" in line:
                    _tell(source)
                yield line
    except (OSError, UnicodeDecodeError):
        _tell(source)


def _text(source: Source, column: str) -> Iterator[Row]:
    held: list[Row] = []  # blank lines, which are no lines where the file ends
    for number, line in enumerate(_lines(source), start=1):
        text = line.removesuffix("\n").removesuffix("\r")
        held.append(Row({column: text}, Origin(source.name, number, number)))
        if text.strip():
            yield from held
            held = []


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is named twice")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated)


def _one_a_line(source: Source) -> bool:
    """Whether the first line is a whole object."""
    first = next((line for line in _lines(source) if line.strip()), "")
    try:
        return isinstance(_DECODER.decode(first.strip()), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(source: Source) -> Iterator[Row]:
    row = 0
    for number, line in enumerate(_lines(source), start=1):
        if not line.strip():
            continue
        row += 1
        try:
            fields = _DECODER.decode(line.strip(" \t\r\n"))
        except (ValueError, RecursionError):
            _tell(source)
        if not isinstance(fields, dict):
            _tell(source)
        yield Row(fields, Origin(source.name, number, row))


def _table(source: Source) -> Iterator[Row]:
    header = next((line for line in _lines(source) if line.strip("\r\n")), "")
    delimiter = "\t" if source.path.suffix.lower() == ".tsv" else delimiter_of(header)
    return table(source, _lines(source, newline=""), delimiter)
