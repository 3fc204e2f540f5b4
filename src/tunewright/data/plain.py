"""Text files as rows: one label a file, line N beside line N of another file, or documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from tunewright.data.files import Source, whole_text
from tunewright.data.read import Row
from tunewright.errors import DataError
from tunewright.example import Origin
from tunewright.text import _

PLAIN = ("", ".txt", ".text", ".md", ".markdown")  # endings that say nothing about what is in a file
_PART = 4000  # characters of a part, where a long text is cut so that rows can be held out
_WIKI = re.compile(r"^ = (?!=).* = $", re.MULTILINE)
_MARKDOWN = re.compile(r"^# \S.*$", re.MULTILINE)
_BLANK = re.compile(r"\n[ \t\r]*\n")
_MANY_FILES = 10


def lines_of(source: Source) -> list[str]:
    """Lines without their ends; blank lines at the end of the file are no lines."""
    lines = [line.removesuffix("\r") for line in whole_text(source).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


# -- one label a file ------------------------------------------------------------------------------------------------


def label_rows(
    files: Sequence[Source], limit: int | None = None, folders: bool | None = None
) -> tuple[list[Row], str, bool]:
    """Rows with the fields text and label, why, and whether folders are the labels.

    Two or more folders below the one given: a folder is a label and a file is one text. Else a file is a label, by its
    ending (``rt-polarity.pos``) or, where that says nothing, by its name (``pos.txt``), and a line is one text. Labels
    take turns, so that ``limit`` takes as many rows of each. Raises DataError for files that give fewer than two.
    """
    training = folders is None
    if folders is None:
        inside = [source.path.parent for source in files if source.folder is not None]
        folders = len(inside) == len(files) and len(set(inside)) > 1
    of = {source.name: source.path.parent.name if folders else file_label(source) for source in files}
    labels = sorted(set(of.values()))
    if training and len(labels) < 2:
        raise DataError(
            _("these text files give one label, {label!r}", label=labels[0]), where=files[0].name,
            do=_("give one file for each label, such as reviews.pos and reviews.neg, or a table with a label column"),
        )  # fmt: skip
    turns = [_rows_of([s for s in files if of[s.name] == label], label, folders) for label in labels]
    rows = list(islice(_in_turn(turns), limit))
    kind = _("one folder a label, one file a text") if folders else _("one file a label, one line a text")
    names = ", ".join(labels[:6]) + (" …" if len(labels) > 6 else "")
    return rows, _("{kind}, labels in turn: {names}", kind=kind, names=names), folders


def file_label(source: Source) -> str:
    suffix = source.path.suffix
    return source.path.stem if suffix.lower() in PLAIN else suffix[1:]


def _rows_of(files: Sequence[Source], label: str, whole: bool) -> Iterator[Row]:
    for source in files:
        if whole:
            yield Row({"text": whole_text(source).strip(), "label": label}, Origin(source.name, 1, 1))
            continue
        for number, line in enumerate(lines_of(source), start=1):
            yield Row({"text": line, "label": label}, Origin(source.name, number, number))


def _in_turn(streams: Sequence[Iterator[Row]]) -> Iterator[Row]:
    left = list(streams)
    while left:
        still = []
        for stream in left:
            row = next(stream, None)
            if row is not None:
                yield row
                still.append(stream)
        left = still


# -- two files side by side ------------------------------------------------------------------------------------------


def side_by_side(files: Sequence[Source], limit: int | None = None) -> list[Row]:
    """Rows with the fields source and target, from each file and the one beside it.

    Raises DataError if the two have different numbers of lines.
    """
    rows: list[Row] = []
    for file in files:
        assert file.beside is not None
        sources, targets = lines_of(file), lines_of(file.beside)
        if len(sources) != len(targets):
            raise _different_lengths(file, file.beside, sources, targets)
        for number, (one, other) in enumerate(zip(sources, targets, strict=True), start=1):
            rows.append(Row({"source": one, "target": other}, Origin(file.name, number, number)))
    return rows[:limit]


def _different_lengths(file: Source, beside: Source, sources: list[str], targets: list[str]) -> DataError:
    place = shifted(sources, targets)
    advice = _("line N of one file must belong to line N of the other")
    if place is not None:
        advice = _("the lines seem to stop matching near {file}:{line}; ", file=file.name, line=place) + advice
    return DataError(
        _("the two files have different numbers of lines: {one} and {other}", one=len(sources), other=len(targets)),
        where=f"{file.name}, {beside.name}", do=advice,
        command=f"paste -d '\\n' {file.path} {beside.path} | less",
    )  # fmt: skip


def shifted(sources: Sequence[str], targets: Sequence[str]) -> int | None:
    """The line from which the shorter file's lines fit the longer one's later lines best, None if that is unclear.

    Judged by lengths alone: a line and its translation are usually about as long as the other lines and theirs.
    """
    short, long = sorted((_sizes(sources), _sizes(targets)), key=len)
    gap = len(long) - len(short)
    if not 0 < gap <= 20 or len(short) < 20:
        return None
    usual = float(np.median(short) - np.median(long))
    here = np.abs(short - long[: len(short)] - usual)
    later = np.abs(short - long[gap:] - usual)
    cost = np.concatenate([[0.0], np.cumsum(here)]) + np.concatenate([np.cumsum(later[::-1])[::-1], [0.0]])
    best = int(np.argmin(cost))
    clear = cost[best] < 0.8 * cost[-1] or best >= len(short) - 5
    return best + 1 if clear else None


def _sizes(lines: Sequence[str]) -> NDArray[np.float64]:
    return np.log(np.array([len(line) for line in lines], dtype=np.float64) + 5)


# -- documents -------------------------------------------------------------------------------------------------------


def document_rows(files: Sequence[Source], limit: int | None = None) -> tuple[list[Row], str]:
    """Rows with the field text, and why a document is what it is. Nothing but blank lines is lost.

    A file with headings of the first level is cut before each. Else, of ten files or more each is a document, and of
    fewer each is cut at blank lines (or at line ends, if there is none) into parts of about 4,000 characters.
    """
    rows: list[Row] = []
    reasons: dict[str, None] = {}
    for source in files:
        cut, why = _cuts(whole_text(source), len(files) >= _MANY_FILES)
        reasons[why] = None
        for number, (line, text) in enumerate(cut, start=1):
            rows.append(Row({"text": text}, Origin(source.name, line, number)))
    return rows[:limit], "; ".join(reasons)


def _cuts(text: str, many: bool) -> tuple[list[tuple[int, str]], str]:
    for heading in (_WIKI, _MARKDOWN):
        starts = [match.start() for match in heading.finditer(text)]
        if len(starts) > 1:
            return _pieces(text, starts), _("a document begins at each heading of the first level")
    if many:
        return _pieces(text, []), _("each file is a document")
    ends = [match.end() for match in _BLANK.finditer(text)]
    where = _("at blank lines")
    if not ends:
        ends, where = [match.end() for match in re.finditer("\n", text)], _("at line ends")
    starts, begin = [], 0
    for end in ends:
        if end - begin >= _PART and len(text) - end >= _PART // 2:
            starts.append(end)
            begin = end
    if not starts:
        return _pieces(text, []), _("each file is a document")
    return _pieces(text, starts), _(
        "no headings, so the text is cut {where} into documents of about {size} characters", where=where, size=_PART
    )


def _pieces(text: str, starts: Sequence[int]) -> list[tuple[int, str]]:
    """Line number and text of each piece that says anything; before the first start stands one, too."""
    borders = sorted({0, *starts, len(text)})
    pieces: list[tuple[int, str]] = []
    line, counted = 1, 0
    for begin, end in pairwise(borders):
        piece = text[begin:end]
        if piece.strip():
            lead = len(piece) - len(piece.lstrip("\r\n"))
            line, counted = line + text.count("\n", counted, begin + lead), begin + lead
            pieces.append((line, piece.strip("\r\n")))
    return pieces
