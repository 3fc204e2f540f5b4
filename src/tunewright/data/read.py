"""Files to rows, each with its origin. Reading is strict: a row is read whole or the reader says where it stopped."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.data.files import Source, opened, whole_text
from tunewright.data.messages import kind_of
from tunewright.errors import DataError
from tunewright.example import Origin
from tunewright.text import _

_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in its file."""

    fields: dict[str, Any]
    origin: Origin


def read(files: Sequence[Source], limit: int | None = None) -> Iterator[Row]:
    """Rows of all files, one after the other; at most ``limit`` of them. Raises DataError naming file and line."""
    return itertools.islice(itertools.chain.from_iterable(_read_one(file) for file in files), limit)


def _read_one(source: Source) -> Iterator[Row]:
    reader = _READERS[source.path.suffix.lower()]
    empty = True
    for row in reader(source):
        empty = False
        yield row
    if empty:
        raise DataError(_("the file holds no row"), where=source.name, do=_("check that the right file was given"))


# -- JSON ------------------------------------------------------------------------------------------------------------


class _Repeated(ValueError):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _value in pairs]
        raise _Repeated(next(name for name in names if names.count(name) > 1))
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_no_repeats)


def _json(source: Source) -> Iterator[Row]:
    """A JSON array of objects, JSON Lines, or objects one after the other; each row is decoded alone to have a line."""
    text = whole_text(source)
    start = _skip(text, 0)
    if text.startswith("[", start):
        return _array(source, text, start + 1)
    first = text[start:].partition("\n")[0].rstrip()
    if source.path.suffix.lower() == ".json" or first == "{":
        try:
            _DECODER.decode(first)
        except (ValueError, RecursionError):
            return _objects(source, text, start)
    return _lines(source, text)


def _row(source: Source, value: Any, line: int, number: int) -> Row:
    origin = Origin(source.name, line, number)
    if not isinstance(value, dict):
        raise DataError(
            _("the row is {kind}, not an object with named fields", kind=kind_of(value)),
            where=str(origin),
            do=_("write each row as {example}", example='{"instruction": "…", "output": "…"}'),
        )
    return Row(value, origin)


def _broken(source: Source, text: str, position: int, why: str) -> DataError:
    begin = text.rfind("\n", 0, position) + 1
    line = text.count("\n", 0, position) + 1
    return DataError(
        _("broken JSON at line {line}, column {column}: {why}", line=line, column=position - begin + 1, why=why),
        where=f"{source.name}:{line}",
        do=_("repair the line that begins {line}", line=repr(text[begin : begin + 60].split("\n")[0])),
    )


def _decode(source: Source, text: str, place: int, line: int, until: int | None = None) -> tuple[Any, int]:
    """The value at ``place`` and where it ends; with ``until`` it must be all that stands before there."""
    try:
        if until is None:
            return _DECODER.raw_decode(text, place)
        return _DECODER.decode(text[place:until]), until
    except json.JSONDecodeError as error:
        raise _broken(source, text, error.pos + (0 if until is None else place), error.msg) from None
    except _Repeated as error:
        raise DataError(
            _("the row names the field {name} twice", name=repr(str(error))),
            where=f"{source.name}:{line}",
            do=_("keep one of the two"),
        ) from None
    except RecursionError:
        raise _broken(source, text, place, _("nested too deeply")) from None
    except ValueError as error:
        raise _broken(source, text, place, str(error)) from None


def _lines(source: Source, text: str) -> Iterator[Row]:
    place = line = number = 0
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line += 1
        if not text[place:end].isspace() and end > place:
            number += 1
            yield _row(source, _decode(source, text, place, line, end)[0], line, number)
        place = end + 1


def _objects(source: Source, text: str, place: int) -> Iterator[Row]:
    line, counted, number = 1, 0, 0
    while place < len(text):
        line, counted = line + text.count("\n", counted, place), place
        value, end = _decode(source, text, place, line)
        number += 1
        yield _row(source, value, line, number)
        place = _skip(text, end)


def _array(source: Source, text: str, place: int) -> Iterator[Row]:
    line, counted, number = 1, 0, 0
    many_lines = "\n" in text.strip()  # one line that holds all rows says nothing about any of them
    place = _skip(text, place)
    while place < len(text) and text[place] != "]":
        line, counted = line + text.count("\n", counted, place), place
        value, end = _decode(source, text, place, line)
        number += 1
        yield _row(source, value, line if many_lines else 0, number)
        place = _skip(text, end)
        if place < len(text) and text[place] != "]":
            if text[place] != ",":
                raise _broken(source, text, place, _("a comma or the closing bracket is missing"))
            place = _skip(text, place + 1)
            if text.startswith("]", place):
                raise _broken(source, text, place, _("a comma stands before the closing bracket"))
    if place >= len(text):
        raise _broken(source, text, len(text), _("the file ends before the closing bracket; it may have been cut off"))
    rest = _skip(text, place + 1)
    if rest < len(text):
        raise _broken(source, text, rest, _("there is something after the closing bracket"))


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


# -- tables ----------------------------------------------------------------------------------------------------------


def _csv(source: Source) -> Iterator[Row]:
    text = whole_text(source)
    header = text.lstrip("\r\n").partition("\n")[0]
    return table(source, io.StringIO(text, newline=""), delimiter_of(header))


def delimiter_of(header: str) -> str:
    """What stands between the cells of a CSV file with this first line."""
    return next((one for one in ",;\t|" if one in header), ",")


def _tsv(source: Source) -> Iterator[Row]:
    return table(source, io.StringIO(whole_text(source), newline=""), "\t")


def table(source: Source, lines: Iterable[str], delimiter: str) -> Iterator[Row]:
    """The rows of ``lines``, which have their own ends. Raises DataError naming the line."""
    csv.field_size_limit(2**31 - 1)  # the standard library's limit would refuse a long answer
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    number = before = 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not cells:
                continue
            if names is None:
                names = _header(source, cells, line)
                continue
            number += 1
            if len(cells) != len(names):
                raise DataError(
                    _("the row has {found} cells, the header has {wanted}", found=len(cells), wanted=len(names)),
                    where=f"{source.name}:{line}",
                    do=_("a cell that holds the separator or a quote must stand in double quotes"),
                )
            yield Row(dict(zip(names, cells, strict=True)), Origin(source.name, line, number))
    except csv.Error as error:
        raise DataError(
            _("the table is broken: {why}", why=str(error)),
            where=f"{source.name}:{before + 1}",
            do=_("a cell that holds a quote must stand in double quotes, and the quote be doubled"),
        ) from None


def _header(source: Source, cells: list[str], line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise DataError(
            _("the header names a column twice: {names}", names=", ".join(twice)),
            where=f"{source.name}:{line}",
            do=_("give each column its own name"),
        )
    if "" in names:
        raise DataError(
            _("column {number} has no name", number=names.index("") + 1),
            where=f"{source.name}:{line}",
            do=_("give each column a name in the first line"),
        )
    return names


def _parquet(source: Source) -> Iterator[Row]:
    import pyarrow as pa  # only a person with Parquet files pays for it
    import pyarrow.parquet as pq

    number = 0
    try:
        with opened(source) as file:
            if not file.read(1):
                raise DataError(_("the file is empty"), where=source.name, do=_("check that the right file was given"))
            file.seek(0)
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            if len(set(names)) != len(names):
                raise DataError(_("the file names a column twice"), where=source.name)
            classes = _class_names(table.schema_arrow.metadata or {})
            for batch in table.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(_with_names(fields, classes), Origin(source.name, 0, number))
    except (pa.ArrowException, OSError, ValueError, KeyError, NotImplementedError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            _("the Parquet file is damaged or of a kind that cannot be read: {why}", why=why),
            where=f"{source.name} row {number + 1}" if number else source.name,
            do=_("write it again, or give the rows as JSON Lines"),
        ) from None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Columns whose numbers the file itself gives names to, as the `datasets` library writes its ClassLabel."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        found = {name: one["names"] for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):  # written by something else
        return {}
    return {name: names for name, names in found.items() if isinstance(names, list) and all(map(_is_text, names))}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _with_names(fields: dict[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """-1 is how that library says that a row has no label."""
    for name, names in classes.items():
        value = fields.get(name)
        if isinstance(value, int) and -1 <= value < len(names):
            fields[name] = names[value] if value >= 0 else None
    return fields


_READERS: dict[str, Callable[[Source], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _json,
    ".ndjson": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
