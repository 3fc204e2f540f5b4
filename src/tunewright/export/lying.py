"""The GGUF file of a run, for an engine that reads nothing else: the export that lies there, or a new one."""

from __future__ import annotations

from pathlib import Path

from tunewright import rundir
from tunewright.export import place
from tunewright.export.run import export
from tunewright.model import hashes
from tunewright.rundir import RunDir
from tunewright.train.events import Listener

FORM = "gguf"


def gguf_of(run: RunDir, listener: Listener | None = None) -> Path:
    """Of whatever type was exported last; q8_0 where there is none, or where it is of other weights or damaged.

    Raises what ``export`` raises.
    """
    folder = place.own(run, FORM)
    found = _whole(run, folder) if place.is_ours(folder) else None
    if found is None:
        folder = export(run, FORM, listener=listener).folder
        [found] = folder.glob("*.gguf")
    return found


def _whole(run: RunDir, folder: Path) -> Path | None:
    """The file, if the record beside it speaks of these weights and of these bytes."""
    record = rundir.read_json(folder / place.RECORD)
    trained = run.manifest().get("trained")
    files = [path for path in folder.glob("*.gguf") if record["files"].get(path.name) == hashes.sha256(path)]
    return files[0] if len(files) == 1 and trained is not None and record.get("trained") == trained else None
