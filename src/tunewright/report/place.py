"""Where a page may be written: what it would replace must be a page itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tunewright import rundir
from tunewright.errors import DataError, ResourceError
from tunewright.rundir import RunDir
from tunewright.text import _

BEGIN = b"<!doctype html"  # of every page of ours
DATA = "tunewright data check --help"
REPORT = "tunewright report --help"


def write(path: Path, text: str) -> None:
    """The page, whole or not at all. Raises DataError for a file that is no page by now, ResourceError for a disk that
    does not take it."""
    require(path)
    try:
        rundir.write_text(path, text)
    except ResourceError as error:  # what it advises is an option that not every verb has
        do = _("give another file for the page, or free some space")
        raise ResourceError(error.what, where=str(path), do=do, command=DATA) from error


def require(path: Path, never: Iterable[Path] = (), folders: Iterable[Path] = (), command: str = DATA) -> None:
    """Raises DataError if a page at ``path`` would replace something else than a page; an empty file holds nothing that
    could be lost. never: files that it is about, or that are written with it, whatever they hold.  folders: that are
    read whole, so that the page would be read as well.  command: whose help is named."""
    whole = path.resolve()
    if any(whole == file.resolve() or _is_same(path, file) for file in never):
        what = _("the page would take the place of a file that it is about, or that is written with it")
    elif any(whole.is_relative_to(folder.resolve()) for folder in folders):
        what = _("the page would lie in a folder that is read as data")
    elif path.exists() and not path.is_file():
        what = _("this is no file that a page could replace")
    elif path.exists() and not _is_page(path):
        what = _("there is a file here that is no page, and it would be lost")
    else:
        return
    raise DataError(what, where=str(path), do=_("give the page another name"), command=command)


def require_of_run(path: Path, run: RunDir) -> None:
    """The same of the page about a run, which may be the ``report.html`` among its files and no other of them."""
    whole, folder = path.resolve(), run.path.resolve()
    inside = whole.relative_to(folder).parts if whole.is_relative_to(folder) else ()
    its_own = inside[:1] != (rundir.REPORT,) and inside[:1] and inside[0] in {*rundir.FILES, rundir.LOCK}
    require(path, [path] if its_own else [], command=REPORT)


def _is_same(path: Path, file: Path) -> bool:
    return path.exists() and file.exists() and path.samefile(file)


def _is_page(path: Path) -> bool:
    with open(path, "rb") as file:
        begin = file.read(256)
    return not begin or begin.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(BEGIN)
