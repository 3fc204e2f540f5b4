"""The files that data lies in: which they are, and their text. Text is strictly UTF-8, or the encoding is named."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import DataError
from tunewright.text import _

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_KNOWN = "JSON, JSON Lines, CSV, TSV or Parquet (" + ", ".join(SUFFIXES) + ")"


@dataclass(frozen=True, slots=True)
class Source:
    """One file to be read. name: as the person gave it.  folder: the folder in which it was found, if a folder was
    given.  beside: the file whose line N belongs to line N of this one."""

    path: Path
    name: str
    folder: Path | None = None
    beside: Source | None = None

    def sha256(self) -> str:
        """Over the bytes; of a file with another one beside it, over the hashes of both."""
        with opened(self) as file:
            own = hashlib.file_digest(file, "sha256").hexdigest()
        if self.beside is None:
            return own
        return hashlib.sha256(f"{own} {self.beside.sha256()}".encode()).hexdigest()

    @property
    def is_text(self) -> bool:
        """Running text, not rows with named fields."""
        return self.path.suffix.lower() not in SUFFIXES


def sources(paths: Sequence[str], text: bool = False) -> list[Source]:
    """The files behind ``paths`` (files, folders or patterns), in the order given; a folder's files are sorted.

    ``text``: files of any other kind are text files. Raises DataError for a missing file (with the nearest name), an
    empty folder, and files that cannot be read.
    """
    found: list[Source] = []
    for given in paths:
        path = Path(given)
        if "\0" in given:
            raise DataError(_("a file name cannot hold a NUL character"), where=repr(given))
        if path.is_dir():
            found += _in_folder(path)
        elif path.is_file():
            found.append(Source(path, given))
        elif any(sign in given for sign in "*?[") and (matches := _matching(path)):
            found += [Source(match, str(match)) for match in matches]
        else:
            raise _missing(path)
    if not text:
        require_rows(found)
    seen: set[Path] = set()
    for source in found:
        place = source.path.resolve()
        if place in seen:
            raise DataError(_("the file is given twice"), where=source.name, do=_("name each file once"))
        seen.add(place)
    return found


def require_rows(files: Sequence[Source]) -> None:
    """Raises DataError if one of them is of a kind that has no rows with named fields."""
    unknown = [source for source in files if source.is_text]
    if not unknown:
        return
    first = unknown[0]
    if first.folder is not None:
        inside = [source.path for source in unknown[:5] if source.folder == first.folder]
        names = ", ".join(str(path.relative_to(first.folder)) for path in inside)
        raise DataError(
            _("the folder holds files that are not data: {names}", names=names + (" …" if len(unknown) > 5 else "")),
            where=str(first.folder),
            do=_("move them away, or name the data files one by one; data files are {known}", known=_KNOWN),
        )
    raise DataError(
        _("{suffix!r} is no kind of file that rows are read from", suffix=first.path.suffix or first.path.name),
        where=first.name,
        do=_("give the rows as {known}", known=_KNOWN),
    )


# -- finding files ---------------------------------------------------------------------------------------------------


def _in_folder(folder: Path) -> list[Source]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(
            _("the folder holds no data file"), where=str(folder), do=_("data files are {known}", known=_KNOWN)
        )
    return [Source(path, str(path), folder) for path in files]


def _matching(path: Path) -> list[Path]:
    folder = path.parent
    try:
        return sorted(found for found in folder.glob(path.name) if found.is_file())
    except (ValueError, OSError, NotImplementedError):
        return []


def _missing(path: Path) -> DataError:
    folder = path.parent
    try:
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if near:
        advice = _("did you mean {name}?", name=str(folder / near[0]))
    elif not folder.is_dir():
        advice = _("there is no folder {folder} either", folder=str(folder))
    else:
        advice = _("check the path; it is looked up from {here}", here=str(Path.cwd()))
    command = f"tunewright data check {folder / near[0]}" if near else None
    return DataError(_("there is no such file"), where=str(path), do=advice, command=command)


# -- text ------------------------------------------------------------------------------------------------------------


def opened(source: Source) -> Any:
    try:
        return open(source.path, "rb")
    except OSError as error:
        raise DataError(
            _("the file cannot be opened: {why}", why=error.strerror or str(error)), where=source.name
        ) from None


def whole_text(source: Source) -> str:
    """The whole file as text. Strictly UTF-8; a byte-order mark is tolerated. Raises DataError naming the encoding."""
    with opened(source) as file:
        content: bytes = file.read()
    if not content.strip():
        raise DataError(_("the file is empty"), where=source.name, do=_("check that the right file was given"))
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _wrong_encoding(source, 1, "UTF-32" if content[2:4] == b"\0\0" else "UTF-16")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if (count := _broken_lines(content)) is not None:
            raise DataError(
                _("the file mixes encodings: {count} lines are not UTF-8, while others are", count=count),
                where=f"{source.name}:{line}",
                do=_("write these lines again as UTF-8; to convert the whole file would break the others"),
            ) from None
        raise _wrong_encoding(source, line, _guess(content)) from None
    zero = text.find("\0")
    if zero >= 0:
        if text.count("\0") > len(text) // 4:
            raise _wrong_encoding(source, 1, _guess(content))
        raise DataError(
            _("the file holds a NUL byte, so it is damaged or no text file"),
            where=f"{source.name}:{text.count(chr(10), 0, zero) + 1}",
            do=_("write the file again, or remove the byte"),
        )
    return text


# Encodings that accept each other's bytes, told apart by the characters that their readers would write most.
_EAST_ASIAN = (
    ("shift_jis", re.compile("[\u3040-\u30ff]"), 0.3),
    ("euc_kr", re.compile("[\uac00-\ud7a3]"), 0.8),
    ("gb18030", re.compile("[\u3000-\u303f\u4e00-\u9fa5\uff00-\uffef\u2010-\u2026]"), 0.9),
    ("big5", re.compile("[\u3000-\u303f\u4e00-\u9fa5\uff00-\uffef\u2010-\u2026]"), 0.9),
)


def _broken_lines(content: bytes) -> int | None:
    """How many lines are not UTF-8, where enough others are, with more than ASCII in them; else None."""
    good = bad = 0
    for line in content.split(b"\n"):
        if not line.isascii():
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError:
                bad += 1
    return bad if good > 0.1 * bad else None


def _guess(content: bytes) -> str:
    """The likeliest encoding of bytes that are not UTF-8."""
    sample = content[:200_000]
    if sample.count(0) > len(sample) // 50:  # no other text holds a zero
        return "UTF-16LE" if sample[1::2].count(0) > sample[::2].count(0) else "UTF-16BE"
    for encoding, usual, least in _EAST_ASIAN:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        other = [char for char in text[:100_000] if ord(char) > 127]
        if len(other) >= 4 and sum(bool(usual.match(char)) for char in other) >= least * len(other):
            return encoding.upper()
    return "WINDOWS-1252"


def _wrong_encoding(source: Source, line: int, encoding: str) -> DataError:
    return DataError(
        _("the file is not UTF-8; it looks like {encoding}", encoding=encoding),
        where=f"{source.name}:{line}",
        do=_("convert it to UTF-8"),
        command=f"iconv -f {encoding} -t UTF-8 {source.path} > utf8-{source.path.name}",
    )
