"""Folders in the cache that are made once from something else: a converted base, a prepared tokenizer.

    bases/NAME/            whole, with ``base.json``: size and hash of each file
    bases/.NAME.partial/   what an unfinished preparation left; the next one goes on from it or clears it away
    bases/.NAME.lock       held while one is being made, also by the converting process itself
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tunewright
from tunewright import rundir
from tunewright.errors import BaseModelError, ResourceError
from tunewright.model import hashes
from tunewright.model.progress import doing, say
from tunewright.settings import settings
from tunewright.text import _

# Raised when the way of making the folder changes, so that folders made the old way are made anew.
VERSION = 1
RECORD = "base.json"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
START = f"import sys; sys.path.insert(0, {str(Path(tunewright.__path__[0]).parent)!r}); "


def root() -> Path:
    return settings().cache / "bases"


def make(name: str, build: Callable[[Path, int], Path], show: bool) -> Path:
    """The folder ``name``, made with ``build`` unless it is there and whole.

    build: called with a staging folder and the number of the lock's file (for child processes that must hold it);
    returns a folder in the staging folder, which becomes ``bases/<name>``.
    """
    final = root() / name
    if not _damage(final):
        return final
    with _writing(final), _locked(name, show) as lock:
        damaged = _damage(final)
        if not damaged:
            return final  # another process made it while this one waited
        if final.exists():
            say(_("{name} is damaged: {files}. Removing it and fetching it again.", name=final, files=damaged))
            shutil.rmtree(final)
        staging = final.with_name(f".{name}.partial")
        staging.mkdir(exist_ok=True)
        try:
            folder = build(staging, lock)
            files = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file() and not p.is_symlink()}
            digests = {n: hashes.remembered(folder / n) for n in sorted(files)}
            rundir.write_json(
                folder / RECORD,
                {"version": VERSION, "files": {n: {"bytes": files[n], "sha256": digests[n]} for n in digests}},
            )
            os.replace(folder, final)
        except (OSError, ResourceError):
            shutil.rmtree(staging, ignore_errors=True)  # a full disk is not left fuller
            raise
        shutil.rmtree(staging, ignore_errors=True)
    return final


def is_made(name: str) -> bool:
    """Whether the folder is there; its bytes are not looked at."""
    return (root() / name / RECORD).exists()


def bytes_below(folder: Path) -> int:
    """Bytes of the files below, some of which come and go while this looks: pip unpacks there, others fetch."""
    total = 0
    for place, _folders, names in os.walk(folder):  # a folder that is gone by now is passed over
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def run(
    arguments: Sequence[str],
    text: str,
    *,
    show: bool,
    lock: int,
    total_bytes: int | None = None,
    done_bytes: Callable[[], int] | None = None,
) -> tuple[int, list[str]]:
    """A Python process with its progress on screen; its exit status and last lines. It never outlives this call."""
    lines: deque[str] = deque(maxlen=60)
    with doing(text, total_bytes, show) as report, subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, errors="replace", pass_fds=(lock,),
    ) as process:  # fmt: skip

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("stage "):
                    report(None, f"{text}: {line[6:].strip()}")
                else:
                    lines.append(line.rstrip())

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                if done_bytes:
                    report(done_bytes(), None)
                time.sleep(0.05)
        except BaseException:
            process.kill()
            raise
        finally:
            reader.join(timeout=10)
    return process.returncode, list(lines)


def convert(kind: str, source: Path, folder: Path, text: str, *, show: bool, lock: int) -> Path:
    """``model/convert.py`` in a process of its own. A folder that an earlier, orphaned one finished is taken as is."""
    if folder.exists():
        return folder
    code = START + "from tunewright.model.convert import main; sys.exit(main(*sys.argv[1:]))"
    status, lines = run(["-c", code, kind, str(source), str(folder)], text, show=show, lock=lock)
    if status == 0:
        return folder
    said = next((line[6:] for line in lines if line.startswith("error ")), None)
    problem = json.loads(said) if said else {"errno": None, "what": (lines or ["it was killed"])[-1]}
    why = str(problem["what"])
    if problem["errno"] in DISK_FULL or any(os.strerror(number) in why for number in DISK_FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if status < 0:
        raise ResourceError(
            _("converting {file} was ended by signal {number}", file=source.name, number=-status), where=str(source),
            do=_("free some memory and start again; what was fetched is kept"),
        )  # fmt: skip
    raise BaseModelError(
        _("{file} cannot be converted: {why}", file=source.name, why=why), where=str(source),
        do=_("take a base of an architecture that transformers can read, in safetensors where there is one"),
    )  # fmt: skip


def _damage(final: Path) -> str | None:
    """What is wrong with the folder, in words; None if it is whole. ``missing`` if it is not there."""
    if not final.exists():
        return "missing"
    try:
        record = json.loads((final / RECORD).read_text(encoding="utf-8"))
        if record["version"] != VERSION:
            return f"{RECORD} (made by another version)"
        wrong = [n for n, known in record["files"].items() if not _is_whole(final / n, known)]
    except (OSError, ValueError, KeyError, TypeError):
        return RECORD
    return ", ".join(wrong) or None


def _is_whole(path: Path, known: dict[str, object]) -> bool:
    try:
        return path.stat().st_size == known["bytes"] and hashes.remembered(path) == known["sha256"]
    except OSError:
        return False


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns the disk's refusals into our own."""
    try:
        yield
    except OSError as error:
        full = error.errno in DISK_FULL
        raise ResourceError(
            _("the disk is full") if full else _("cannot write: {why}", why=error.strerror or str(error)),
            where=str(path),
            do=_("free some space, or put the cache elsewhere with TUNEWRIGHT_CACHE=FOLDER; nothing half-made is kept"),
        ) from error


@contextlib.contextmanager
def _locked(name: str, show: bool) -> Iterator[int]:
    """One process makes a folder at a time. The lock goes with the process, and with its converting child."""
    root().mkdir(parents=True, exist_ok=True)
    with open(root() / f".{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with doing(_("Another process is preparing {name}; waiting for it", name=name), show=show):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
