"""Where an export goes: whole under its final name, or not there at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tunewright import rundir
from tunewright.errors import ResourceError, RunError
from tunewright.model.adapter import DISK_FULL
from tunewright.model.source import Base
from tunewright.report import values
from tunewright.rundir import RunDir
from tunewright.signals import hearing
from tunewright.text import _

RECORD = "export.json"  # by which an export of ours is known
SHORT = re.compile(r"\d+ requested and \d+ written")  # numpy's words for a disk that took less; it gives no number
ENDING = (signal.SIGTERM, signal.SIGHUP)
SPARE = 1.02  # of what is written: indexes, README and the blocks of a file system


def own(run: RunDir, form: str) -> Path:
    """Where an export lies that no other place was chosen for."""
    return run.file(rundir.EXPORT) / form


def chosen(run: RunDir, base: Base, form: str, out: str | os.PathLike[str] | None, force: bool) -> Path:
    """The folder, looked at before anything is loaded. Raises RunError for one that holds something else,
    ResourceError for one that cannot be looked at."""
    folder = Path(out) if out is not None else own(run, form)
    try:
        what = _never(folder, run, base) or (None if force else _foreign(folder))
    except (OSError, ValueError, RuntimeError) as error:  # too long, no name at all, links in a circle
        raise _not_written(error, folder) from error
    if what:
        raise RunError(
            what, where=str(folder),
            do=_("give another folder with --out, or none: it is then export/{form} of the run", form=form),
            command=f"tunewright export {run} --help",
        )  # fmt: skip
    return folder


def _never(folder: Path, run: RunDir, base: Base) -> str | None:
    """Why an export may not take this place, whether it is forced or not."""
    there, here = folder.resolve(), run.path.resolve()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return _("{folder} is no folder", folder=folder)
    if folder.exists() and any(inner.is_relative_to(there) for inner in (here, Path.cwd(), Path.home())):
        return _("{folder} holds more than an export", folder=folder)
    around = next((outer for outer in (there, *there.parents) if outer == here or _is_run(outer)), None)
    if around is not None and around / rundir.EXPORT not in there.parents:
        return _("{folder} belongs to the run {run}", folder=folder, run=around.name)
    if base.source in ("folder", "gguf") and _touches(there, Path(base.name).expanduser().resolve(), around):
        return _("{folder} holds the base of this run, or is a part of it", folder=folder)
    return None


def _foreign(folder: Path) -> str | None:
    """Why an export may take this place only if it is forced."""
    if not folder.exists() or not any(folder.iterdir()) or is_ours(folder):
        return None
    return _("{folder} exists and is no export of ours", folder=folder)


def _touches(there: Path, base: Path, around: Path | None) -> bool:
    """around: the run that ``there`` is an export of. One may lie in its base's folder, which was then the folder that
    it was trained in."""
    inside = there.is_relative_to(base) and not (around is not None and around.is_relative_to(base))
    return inside or base.is_relative_to(there)


def _is_run(folder: Path) -> bool:
    return (folder / rundir.STATUS).is_file() and (folder / rundir.RECIPE).is_file()


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

    Raises RunError where another process fills it, ResourceError for a disk that is full or not to be written to,
    KeyboardInterrupt where a signal would end the process: it is heard like Ctrl-C.
    """
    made = [path for path in folder.absolute().parents if not path.exists()]
    ending = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]  # not one that nohup ignores
    with hearing(dict.fromkeys(ending, signal.default_int_handler)):
        try:
            with _alone(folder) as unfinished:
                yield unfinished
                _settle(unfinished, folder)
        except BaseException as error:
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()
            if isinstance(error, OSError | SafetensorError):
                raise _not_written(error, folder) from error
            raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The empty folder to write into, gone if the block fails. The lock is on the folder itself, whatever its name, and
    goes with the process, however that ends."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    handle = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(handle, unfinished, folder)
        try:
            _empty(unfinished)
            yield unfinished
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _lock(handle: int, unfinished: Path, folder: Path) -> None:
    """Raises RunError if another has it, or had it until now and gave the folder its name."""
    free = True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    except OSError:  # some disks of a network know no locks
        pass
    if not free or not unfinished.exists() or not os.path.samestat(os.fstat(handle), unfinished.stat()):
        raise RunError(
            _("another export to this folder is going on"), where=str(folder),
            do=_("wait for it, or give another folder with --out"), command="tunewright export --help",
        )  # fmt: skip


def _empty(folder: Path) -> None:
    """What a killed export left in it is cleared away."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


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
    try:
        if folder.exists():
            os.replace(folder, old)
        os.replace(unfinished, folder)
    except BaseException:  # an interruption too
        if old.exists() and not folder.exists():
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
