"""Where a page may be written: what it would replace must be a page itself."""

from __future__ import annotations

from pathlib import Path

from tunewright import rundir
from tunewright.errors import RunError
from tunewright.rundir import RunDir
from tunewright.text import _

BEGIN = b"<!doctype html"  # of every page of ours


def require_page(path: Path, command: str, run: RunDir | None = None) -> None:
    """Raises RunError if a page written to ``path`` would replace something else than a page: data, a recipe, a file of
    ``run``. command: whose help is named.  An empty file holds nothing that could be lost."""
    what = None
    if run is not None and _is_of(run, path):
        what = _("the page would take the place of a file of the run")
    elif path.exists() and not path.is_file():
        what = _("this is no file that a page could replace")
    elif path.exists() and not _is_page(path):
        what = _("there is a file here that is no page, and it would be lost")
    if what is not None:
        do = _("give another file")
        raise RunError(what, where=str(path), do=do, command=command)


def _is_of(run: RunDir, path: Path) -> bool:
    """Whether the run keeps, or will keep, something else under this name."""
    whole, folder = path.resolve(), run.path.resolve()
    if not whole.is_relative_to(folder) or whole == run.file(rundir.REPORT).resolve():
        return False
    inside = whole.relative_to(folder).parts
    return not inside or inside[0] in {*rundir.FILES, rundir.LOCK}


def _is_page(path: Path) -> bool:
    with open(path, "rb") as file:
        begin = file.read(256)
    return not begin or begin.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(BEGIN)
