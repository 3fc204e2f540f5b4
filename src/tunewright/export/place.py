"""Where an export goes: whole under its final name, or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tunewright import rundir
from tunewright.errors import ResourceError, RunError
from tunewright.model.adapter import DISK_FULL
from tunewright.report import values
from tunewright.rundir import RunDir
from tunewright.text import _

RECORD = "export.json"  # by which an export of ours is known
SHORT = re.compile(r"\d+ requested and \d+ written")  # numpy's words for a disk that took less; it gives no number
SPARE = 1.02  # of what is written: indexes, README and the blocks of a file system


def chosen(run: RunDir, form: str, out: str | os.PathLike[str] | None, force: bool) -> Path:
    """The folder, looked at before anything is loaded. Raises RunError for one that holds something else."""
    folder = Path(out) if out is not None else run.file(rundir.EXPORT) / form
    if not folder.exists() and not folder.is_symlink():
        return folder
    what = None
    if not folder.is_dir() or folder.is_symlink():
        what, force = _("{folder} is no folder", folder=folder), False
    elif any(inner.is_relative_to(folder.resolve()) for inner in (run.path.resolve(), Path.cwd(), Path.home())):
        what, force = _("{folder} holds more than an export", folder=folder), False
    elif any(folder.iterdir()) and not is_ours(folder):
        what = _("{folder} exists and is no export of ours", folder=folder)
    if what and not force:
        raise RunError(
            what, where=str(folder), do=_("give another folder with --out"), command=f"tunewright export {run} --help"
        )
    return folder


def is_ours(folder: Path) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "tunewright" in record and "form" in record


def require_room(folder: Path, needed: int) -> None:
    """Raises ResourceError if the disk that ``folder`` will lie on has less than ``needed`` bytes."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed * SPARE:
        raise ResourceError(
            _("there is no room for this export: it takes {needed}, and {free} are free",
              needed=values.size(needed), free=values.size(free)),
            where=str(folder), do=_("free some space, give another folder with --out, or take a smaller --type"),
            command="tunewright export --help",
        )  # fmt: skip


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to write into, which takes its name when the block ends well; else nothing is left.

    Raises ResourceError for a disk that is full or not to be written to.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    made = [path for path in folder.absolute().parents if not path.exists()]
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        _settle(unfinished, folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError | SafetensorError):
            raise _not_written(error, folder) from error
        raise


def _settle(unfinished: Path, folder: Path) -> None:
    """Everything on the disk, then the new in place of the old, which is gone only when the new is there."""
    for path in unfinished.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    unfinished.chmod(0o755)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(unfinished, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _not_written(error: Exception, folder: Path) -> ResourceError:
    number = getattr(error, "errno", None)
    short = number is None and SHORT.search(str(error)) is not None
    full = short or number in DISK_FULL or any(os.strerror(one) in str(error) for one in DISK_FULL)
    why: Any = getattr(error, "strerror", None) or error
    return ResourceError(
        _("the disk is full") if full else _("cannot write: {why}", why=why), where=str(folder),
        do=_("free some space, or give another folder with --out") if full
        else _("choose a folder you may write to with --out"), command="tunewright export --help",
    )  # fmt: skip
