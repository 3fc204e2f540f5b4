"""Which label is taken for which: the confusion matrix as PNG, and as shapes for the page.

A row of the matrix is what is wanted, a column what was chosen. Cells are shaded by their share of the row, so that a
rare label is seen as well as a common one.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from tunewright import rundir
from tunewright.report.curves import ACCENT
from tunewright.rundir import RunDir
from tunewright.text import _

Counts = Sequence[Sequence[int]]  # [wanted][chosen]

BAD = "#b3362b"
_INK = "#24292f"
_COUNTED = 25  # with more labels than this there is no room for numbers in the cells
_LONGEST = 24  # half-widths of a label's name beside the matrix
_MISTAKES = 5
# Side of a cell in pixels for up to this many labels.
_CELLS = ((3, 84), (6, 60), (12, 42), (25, 30), (50, 18))
_SMALLEST_CELL = 11
_FAINTEST, _FAINTEST_SMALL = 0.08, 0.3  # a cell with rows is seen, however few; a small one needs more colour
# Fonts that hold what matplotlib's own does not, where this machine has them.
_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """A square of the matrix that holds rows. strength: 0..1, its share of the wanted label's rows."""

    x: float
    y: float
    count: int
    strength: float
    right: bool
    title: str


@dataclass(frozen=True, slots=True)
class Name:
    """A label beside the matrix. short: cut to fit.  at: middle of its row or column."""

    short: str
    full: str
    at: float


@dataclass(frozen=True, slots=True)
class Matrix:
    """A drawing of width x height pixels; the matrix begins at (left, top) and its cells have the side ``cell``."""

    width: float
    height: float
    left: float
    top: float
    cell: float
    font: float
    turned: bool
    counted: bool
    cells: tuple[Cell, ...]
    rows: tuple[Name, ...]
    columns: tuple[Name, ...]
    summary: str


def matrix(counts: Counts, labels: Sequence[str]) -> Matrix:
    """The matrix of L labels as shapes; cells without rows are left out."""
    size = len(labels)
    cell = next((side for most, side in _CELLS if size <= most), _SMALLEST_CELL)
    font = min(13.0, 0.86 * cell)
    names = [_short(label) for label in labels]
    longest = max((_half_widths(name) for name in names), default=0) * 0.56 * font
    turned = longest > cell - 4
    left, top = longest + 12, (0.72 * longest + 16 if turned else font + 14)
    # The last turned name leans over the right edge.
    over = 0.72 * longest if turned else 4
    middles = [(index + 0.5) * cell for index in range(size)]
    return Matrix(
        width=round(left + size * cell + over, 1),
        height=round(top + size * cell + 2, 1),
        left=round(left, 1), top=round(top, 1), cell=cell, font=round(font, 1), turned=turned,
        counted=size <= _COUNTED,
        cells=tuple(_cells(counts, labels, left, top, cell)),
        rows=tuple(Name(n, full, round(top + at, 1)) for n, full, at in zip(names, labels, middles, strict=True)),
        columns=tuple(Name(n, full, round(left + at, 1)) for n, full, at in zip(names, labels, middles, strict=True)),
        summary=_summary(counts, labels),
    )  # fmt: skip


def _cells(counts: Counts, labels: Sequence[str], left: float, top: float, side: float) -> list[Cell]:
    found = []
    least = _FAINTEST if len(labels) <= _COUNTED else _FAINTEST_SMALL
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            if count:
                title = _(
                    "{wanted} → {chosen}: {count} of {all}",
                    wanted=labels[row], chosen=labels[column], count=count, all=sum(line),
                )
                x, y = round(left + column * side, 1), round(top + row * side, 1)
                found.append(Cell(x, y, count, round(max(least, count / sum(line)), 3), row == column, title))
    return found


def mistakes(counts: Counts, labels: Sequence[str]) -> list[tuple[str, str, int]]:
    """(wanted, chosen, how often), the most frequent first."""
    found = [
        (labels[row], labels[column], count)
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        if count and row != column
    ]
    return sorted(found, key=lambda mistake: -mistake[2])[:_MISTAKES]


def _summary(counts: Counts, labels: Sequence[str]) -> str:
    """The drawing in words, for who cannot see it."""
    total, hits = sum(map(sum, counts)), sum(line[index] for index, line in enumerate(counts))
    text = _("{hits} of {total} rows got the right label.", hits=hits, total=total)
    most = mistakes(counts, labels)[:1]
    if not most:
        return text
    wanted, chosen, count = most[0]
    return text + " " + _(
        "Most often {wanted} was taken for {chosen} ({count} rows).", wanted=wanted, chosen=chosen, count=count
    )


def _half_widths(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _short(label: str) -> str:
    text = " ".join(label.split())
    if _half_widths(text) <= _LONGEST:
        return text
    while _half_widths(text) > _LONGEST - 1:
        text = text[:-1]
    return text + "…"


# --- PNG ------------------------------------------------------------------------------------------------------------


def png(counts: Counts, labels: Sequence[str]) -> bytes:
    """A picture on white. A label in a script that no font of this machine holds is shown as its number, from 1."""
    size = len(labels)
    names, fonts = _drawable([_short(label) for label in labels])
    side = min(14.0, 2.2 + (0.62 if size <= 12 else 0.36 if size <= _COUNTED else 0.16) * size)
    figure = Figure(figsize=(side + 1.2, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(_colours(counts), interpolation="nearest")
    letters = {"fontsize": 10 if size <= 12 else 8 if size <= _COUNTED else 5, "family": fonts, "parse_math": False}
    turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if size > 3 else {}
    axes.set_xticks(range(size), names, color=_INK, **letters, **turn)
    axes.set_yticks(range(size), names, color=_INK, **letters)
    axes.tick_params(length=0)
    axes.set_xlabel(_("label that was chosen"), color=_INK)
    axes.set_ylabel(_("label that is right"), color=_INK)
    axes.spines[:].set_color("#c9cdd2")
    if size <= _COUNTED:
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                if count:
                    colour = "white" if count > 0.55 * sum(line) else _INK
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _colours(counts: Counts) -> Any:
    """(L, L, 3): the accent on the diagonal and a warning beside it, mixed with white by the share of the row."""
    table = np.asarray(counts, dtype=np.float64).reshape(len(counts), len(counts))
    share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    least = _FAINTEST if len(counts) <= _COUNTED else _FAINTEST_SMALL
    share = np.where(table > 0, np.maximum(share, least), 0.0)[..., None]
    right, wrong = (np.array([int(code[at : at + 2], 16) / 255 for at in (1, 3, 5)]) for code in (ACCENT, BAD))
    full = np.where(np.eye(len(counts), dtype=bool)[..., None], right, wrong)
    return 1 - share * (1 - full)


def _drawable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names with those replaced that would come out as empty boxes, and the fonts that draw the rest."""
    installed = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    fonts = [name for name in ("DejaVu Sans", *_FONTS) if name in installed]
    glyphs = [set(FT2Font(installed[name]).get_charmap()) for name in fonts]

    def whole(name: str) -> bool:
        return all(any(ord(char) in known for known in glyphs) for char in name)

    return [name if whole(name) else str(number) for number, name in enumerate(names, 1)], fonts


def write(run: RunDir) -> Path | None:
    """(Re)write ``confusion.png``; None where no labels are chosen, or several to a row."""
    labels = run.read(rundir.EVALUATION).get("labels") or {}
    with run.reading(rundir.EVALUATION):
        counts = (labels.get("after") or {}).get("confusion")
        if not counts:
            return None
        drawn = png(counts, labels["names"])
    path = run.file(rundir.CONFUSION)
    rundir.write_bytes(path, drawn)
    return path
