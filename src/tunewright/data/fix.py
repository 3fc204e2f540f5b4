"""A cleaned copy of the training rows: what is mechanically certain, and nothing else. The input is never touched.

Every row that was removed or changed stands in a ledger beside the copy, with file, line and reason. What a person has
to decide (near duplicates, contradictions, secrets, cut answers) stays as it is and is said.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.data.check import nothing_to_learn
from tunewright.data.check_texts import CONTROL, DIRECTION, RIGHT_TO_LEFT
from tunewright.data.digest import exact
from tunewright.data.files import Source
from tunewright.data.inspect import inspect
from tunewright.data.labelled import columns_of
from tunewright.data.load import Raw, Reading, convert_rows, find, read_rows
from tunewright.data.messages import kind_of
from tunewright.data.mojibake import mended, shows_it, windows
from tunewright.data.read import Row
from tunewright.errors import DataError, ResourceError
from tunewright.example import Finding, Origin
from tunewright.recipe.schema import Data
from tunewright.text import _

# Why a row is removed or changed; nothing else happens to one.
REMOVED = {
    "duplicate": "it says the same as an earlier row, but for spaces at the end of a text",
    "nothing_to_learn": "its text or its answer is empty, or it has no answer that is learned",
}
CHANGED = {
    "mojibake": "characters that were decoded wrongly are read again as UTF-8, where the way back is exact",
    "control_characters": "control characters and those without a width are removed; line separators are line breaks",
    "no_number": "NaN becomes null and an infinite number a text, because JSON has no such numbers",
    "label_spaces": "spaces around a label are removed",
    "label_case": "a label is spelt as most rows spell it, where only case is different",
}
LEDGER = ".ledger.json"  # behind the name of the copy
_FORMATS = {
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
}


@dataclass(frozen=True)
class Fixed:
    """ledger: as it was written.  left: findings about the copy, at the places of the rows in the input."""

    path: Path
    format_name: str
    ledger: dict[str, Any]
    left: list[Finding]


def fix(data: Data, reading: Reading, out: Path, overwrite: bool = False) -> Fixed:
    """Write the cleaned rows of ``data.train`` to ``out``, and the ledger beside it: both or neither.

    Raises DataError if ``out`` is an input, exists (unless ``overwrite``), or has an ending that the rows cannot have.
    """
    data = data.model_copy(update={"limit": None})  # a copy without the last rows would lose them silently
    files, validation = find(data)
    _require_free(out, [*files, *validation], overwrite)
    train, other = read_rows(data, files, validation, reading)
    rows, changed = _cleaned(train, data, reading)
    kept, removed = _without_needless(Raw(rows, train.seen), other, data, reading)
    if not kept:
        raise DataError(_("no row would be left"), where=str(out), do=_("every row is empty; check the right file"))
    text = _written(kept, out)
    ledger = _ledger(files, train.rows, kept, removed, changed)
    left = inspect(convert_rows(Raw(kept, train.seen), other, data, reading), data, reading)
    _write(out, text, ledger | {"left": {found.code: found.count for found in left if found.severity != "info"}})
    return Fixed(out, _FORMATS[out.suffix.lower()], ledger, left)


def _require_free(out: Path, files: Sequence[Source], overwrite: bool) -> None:
    written = (out, ledger_path(out))
    for source in files:
        for one in (source, source.beside):
            for path in written:
                if one is not None and one.path.resolve() == path.resolve():
                    raise DataError(_("the copy would replace its input"), where=str(path), do=_("give another file"))
        if source.folder is not None and out.resolve().is_relative_to(source.folder.resolve()):
            raise DataError(
                _("the copy would lie in the folder that is read"), where=str(out), do=_("give a file outside of it")
            )
    if out.suffix.lower() not in _FORMATS:
        raise DataError(
            _("{suffix!r} is no kind of file that a copy is written to", suffix=out.suffix or out.name),
            where=str(out), do=_("give it one of the endings {known}", known=", ".join(_FORMATS)),
        )  # fmt: skip
    for path in written:
        if path.is_dir():
            raise DataError(_("it is a folder"), where=str(path), do=_("give another file"))
        if path.exists() and not overwrite:
            raise DataError(
                _("the file exists already"), where=str(path), do=_("give another file, or add --overwrite")
            )


# -- cleaning --------------------------------------------------------------------------------------------------------


def _cleaned(raw: Raw, data: Data, reading: Reading) -> tuple[list[Row], list[tuple[Origin, tuple[str, ...]]]]:
    """The rows with clean texts and labels, and why which of them changed."""
    rows = raw.rows
    whys: list[dict[str, None]] = [{} for _row in rows]
    fields = [_cleaned_fields(row, why) for row, why in zip(rows, whys, strict=True)]
    columns = columns_of(rows, data, reading) if reading.reads == "labels" and raw.seen is None else None
    if columns is not None and not columns.flags:  # flags are no text that could be trimmed
        _clean_labels(fields, columns.label, whys, reading)
    changed = [(row.origin, tuple(why)) for row, why in zip(rows, whys, strict=True) if why]
    return [replace(row, fields=content) for row, content in zip(rows, fields, strict=True)], changed


def _walked(value: Any, why: dict[str, None], clean: Callable[[str, dict[str, None]], str]) -> Any:
    """``value`` with ``clean`` applied to each text in it, however deep, and as JSON can write it."""
    if isinstance(value, str):
        return clean(value, why)
    if isinstance(value, list):
        return [_walked(one, why, clean) for one in value]
    if isinstance(value, Mapping):
        return {name: _walked(one, why, clean) for name, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        why["no_number"] = None
        return None if math.isnan(value) else json.dumps(value)  # what each is read as where a text is wanted
    return value


def _cleaned_fields(row: Row, why: dict[str, None]) -> Any:
    quotes = any(map(shows_it, _texts(row.fields)))
    return _walked(row.fields, why, _clean if not quotes else _without_control)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _clean(text: str, why: dict[str, None]) -> str:
    if not text.isascii() and (better := mended(text)) != text:
        why["mojibake"] = None
        text = better
    return _without_control(text, why)


def _without_control(text: str, why: dict[str, None]) -> str:
    if CONTROL.search(text):
        keeps_direction = RIGHT_TO_LEFT.search(text) is not None  # there such marks decide what is read first
        better = CONTROL.sub(
            lambda match: match[0] if keeps_direction and DIRECTION.match(match[0]) else windows(match[0]), text
        )
        if better != text:
            why["control_characters"] = None
            text = better
    return text


def _clean_labels(
    fields: Sequence[dict[str, Any]], column: str, whys: Sequence[dict[str, None]], reading: Reading
) -> None:
    """Labels without spaces around them, and in the case that most rows write. What the recipe names stays."""
    named = {*reading.labels, *reading.names}
    for content, why in zip(fields, whys, strict=True):
        content[column] = _walked(content.get(column), why, lambda text, why: _stripped(text, why, named))
    if reading.multi_label and any(isinstance(content[column], str) for content in fields):
        return  # several names in one cell
    counts: Counter[str] = Counter()
    for content in fields:
        value = content[column]
        counts.update(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str))
    better = _usual_case(counts, named)
    for content, why in zip(fields, whys, strict=True):
        content[column] = _walked(content[column], why, lambda text, why: _respelt(text, why, better))


def _stripped(text: str, why: dict[str, None], named: set[str]) -> str:
    if text == text.strip() or text in named:
        return text
    why["label_spaces"] = None
    return text.strip()


def _respelt(text: str, why: dict[str, None], better: Mapping[str, str]) -> str:
    if text not in better:
        return text
    why["label_case"] = None
    return better[text]


def _usual_case(counts: Counter[str], named: set[str]) -> dict[str, str]:
    """From a label to its usual spelling, where more than half of the rows of a name have one and case alone differs.

    Two classes that differ by nothing but case are not what anybody means; which of two equally frequent spellings is
    meant, nobody can tell.
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(name.casefold(), []).append(name)
    better: dict[str, str] = {}
    for names in groups.values():
        most = max(names, key=lambda name: counts[name])
        if len(names) > 1 and 2 * counts[most] > sum(counts[name] for name in names) and named.isdisjoint(names):
            better |= {name: most for name in names if name != most}
    return better


def _without_needless(
    train: Raw, validation: Raw | None, data: Data, reading: Reading
) -> tuple[list[Row], list[tuple[Origin, str, str]]]:
    """The rows that stay, and of each other one the place, the reason and what is known more."""
    chats = convert_rows(train, validation, data, reading).chats
    kept: list[Row] = []
    removed: list[tuple[Origin, str, str]] = []
    seen: dict[bytes, Origin] = {}
    for row, chat in zip(train.rows, chats, strict=True):
        why, digest = nothing_to_learn(chat, reading.reads), exact(chat)
        if why is not None:
            removed.append((row.origin, "nothing_to_learn", why))
        elif digest in seen:
            removed.append((row.origin, "duplicate", _("like {row}", row=seen[digest])))
        else:
            seen[digest] = row.origin
            kept.append(row)
    return kept, removed


# -- writing ---------------------------------------------------------------------------------------------------------


def _written(rows: Sequence[Row], out: Path) -> str:
    suffix = out.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _table(rows, out, "\t" if suffix == ".tsv" else ",")
    lines = [_json(row) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n" if suffix == ".json" else "".join(line + "\n" for line in lines)


def _json(row: Row) -> str:
    def refuse(value: Any) -> None:
        raise DataError(
            _("the row holds {kind}, which JSON cannot write", kind=kind_of(value)), where=str(row.origin),
            do=_("convert the column to text first"),
        )  # fmt: skip

    text = json.dumps(row.fields, ensure_ascii=False, default=refuse)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a character in a column that is not read
        return json.dumps(row.fields, default=refuse)
    return text


def _table(rows: Sequence[Row], out: Path, delimiter: str) -> str:
    names = list(rows[0].fields)
    for row in rows:
        if list(row.fields) != names or not all(map(_fits_a_cell, [*names, *row.fields.values()])):
            raise DataError(
                _("the row has more than texts in columns, which no table can hold as it is"), where=str(row.origin),
                do=_("write JSON Lines: {name}", name=out.with_suffix(".jsonl").name),
            )  # fmt: skip
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(list(row.fields.values()) for row in rows)
    return file.getvalue()


def _fits_a_cell(value: Any) -> bool:
    """Whether it is text, without half a character such as no file can hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _ledger(
    files: Sequence[Source],
    rows: Sequence[Row],
    kept: Sequence[Row],
    removed: Sequence[tuple[Origin, str, str]],
    changed: Sequence[tuple[Origin, tuple[str, ...]]],
) -> dict[str, Any]:
    """Rows in = rows kept + rows removed, by construction. A row that is removed counts as changed no more."""
    gone = {(origin.file, origin.row) for origin, _why, _detail in removed}
    stays = [(origin, whys) for origin, whys in changed if (origin.file, origin.row) not in gone]
    entries = [{**origin.place, "removed": why, "detail": detail} for origin, why, detail in removed]
    entries += [{**origin.place, "changed": list(whys)} for origin, whys in stays]
    if len(rows) != len(kept) + len(removed):
        raise AssertionError(f"the ledger does not add up: {len(rows)} in, {len(kept)} kept, {len(removed)} removed")
    return {
        "files": [{"path": source.name, "sha256": source.sha256()} for source in files],
        "rows_in": len(rows),
        "kept": len(kept),
        "removed": dict(Counter(why for _origin, why, _detail in removed)),
        "changed_rows": len(stays),
        "changed": dict(Counter(why for _origin, whys in stays for why in whys)),
        "rows": entries,
    }


def ledger_path(out: Path) -> Path:
    """Where the ledger of the copy ``out`` is written."""
    return out.parent / (out.name + LEDGER)


def _write(out: Path, text: str, ledger: dict[str, Any]) -> None:
    """Both files or neither: they are whole before the first one gets its name. What had these names stays until then.
    Raises ResourceError."""
    ledger_file = ledger_path(out)
    try:
        with rundir.writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(rundir.PART, ".", out.parent) as folder:
                new, new_ledger, older = Path(folder, out.name), Path(folder, ledger_file.name), Path(folder, "older")
                rundir.write_text(new, text)
                rundir.write_json(new_ledger, ledger)
                if ledger_file.exists():
                    shutil.copy2(ledger_file, older)
                os.replace(new_ledger, ledger_file)
                try:
                    os.replace(new, out)
                except BaseException:
                    _put_back(older, ledger_file)
                    raise
    except ResourceError as error:  # what it advises is an option that this verb has not
        do = _("give another file for the copy, or free some space")
        raise ResourceError(error.what, where=str(out), do=do) from error


def _put_back(older: Path, place: Path) -> None:
    if older.exists():
        os.replace(older, place)
    else:
        place.unlink()
