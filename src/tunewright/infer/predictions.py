"""A file of predictions: written as they come, continued after an interruption, the same either way.

Rows are predicted in pieces that begin at fixed rows, whatever happened before, and a continued file is first cut back
to the end of its last whole piece. So what is computed together does not depend on interruptions, and neither does a
digit of the result. Beside ``out.jsonl`` lies ``.out.jsonl.state``, which says what run and what rows it belongs to.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from tunewright import rundir
from tunewright.data.asked import Asking, asking, is_blank, line_column
from tunewright.data.files import Source, sources
from tunewright.data.read import Row
from tunewright.data.stream import stream
from tunewright.errors import DataError, RunError
from tunewright.infer.open import open_run
from tunewright.infer.predict import AS_TRAINED, CHUNK, Counts, Options, Predictor, reading_of
from tunewright.model import hashes
from tunewright.recipe.load import changed
from tunewright.recipe.load import load as load_recipe
from tunewright.rundir import RunDir
from tunewright.tasks import task_of
from tunewright.text import _


class Audience(Protocol):
    """Whoever waits for the predictions."""

    def say(self, text: str) -> None: ...

    def doing(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]: ...


@dataclass
class Summary:
    """done_before: rows that an earlier call had written.  seconds: spent on predicting, reading and loading apart."""

    run: str
    file: str
    out: str | None
    counts: Counts = field(default_factory=Counts)
    done_before: int = 0
    seconds: float = 0.0

    @property
    def rows_per_second(self) -> float:
        return (self.counts.rows - self.done_before) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run, "file": self.file, "out": self.out, **asdict(self.counts), "done_before": self.done_before,
            "seconds": round(self.seconds, 2), "rows_per_second": round(self.rows_per_second, 2),
        }  # fmt: skip


@dataclass(frozen=True)
class _Job:
    """One file to be predicted. total: its rows."""

    run: RunDir
    source: Source
    column: str  # what a line of a text file stands for
    asking: Asking
    total: int
    piece: int  # rows that are predicted together

    def pieces(self, start: int = 0) -> Iterator[list[Row]]:
        rows = islice(stream(self.source, self.column), start, None)
        while piece := list(islice(rows, self.piece)):
            yield piece


def predict_file(
    run: RunDir, path: Path, name: str, out: Path | None, options: Options, audience: Audience,
    columns: Mapping[str, str] | None = None, overwrite: bool = False,
) -> Summary:  # fmt: skip
    """Predict the rows of the file ``path`` (called ``name`` in messages) into ``out``, or to standard output.

    columns: named like ``data.columns`` of a recipe, instead of the run's own. Raises DataError for rows that cannot be
    read or predicted, and RunError where ``out`` holds something else; what was written before stays, and what
    ``overwrite`` is to replace stays until the first new rows are there.
    """
    job = _read_through(run, path, name, options, audience, columns or {})
    summary = Summary(str(run), name, None if out is None else str(out))
    if out is None:
        _predict(job, lambda lines: _write(sys.stdout.buffer, lines), options, audience, summary)
        return summary

    with _opened(out, run, job.source) as file:
        output = _continued(file, out, job, options, overwrite, summary)
        if summary.counts.rows < job.total:
            _predict(job, output.write, options, audience, summary)
        else:
            output.begin()
    return summary


def _write(file: IO[bytes], lines: bytes) -> None:
    file.write(lines)
    file.flush()


# -- before anything is predicted ------------------------------------------------------------------------------------


def _read_through(
    run: RunDir, path: Path, name: str, options: Options, audience: Audience, columns: Mapping[str, str]
) -> _Job:
    """Reads the whole file once, before any model is loaded: a broken row is found now, not after an hour."""
    recipe = load_recipe(run.file(rundir.RECIPE)).recipe
    manifest = run.manifest()
    labels = tuple(manifest.get("labels", ()))
    task = task_of(recipe)
    reading = reading_of(task, recipe, labels, manifest.get("texts", 0))
    data = recipe.data
    if columns:
        data = changed(recipe, {"data.columns": dict(columns), "data.prompt": None, "data.answer": None}).data
    source = Source(sources([str(path)], text=True)[0].path, name)
    column = line_column(data) if source.is_text else ""
    piece = CHUNK[task.gives]
    how = asking(list(islice(stream(source, column), piece)), data, reading)
    audience.say(_("Rows:   {name}: {seen}", name=name, seen=how.seen))
    if how.unused:
        audience.say(_("        not used, because it is what is predicted: {names}", names=", ".join(how.unused)))
    total = 0
    with audience.doing(_("Reading"), 0) as progress:
        for rows in _Job(run, source, column, how, 0, 1024).pieces():
            for chat in how.chats(rows):
                if options.empty == "stop" and is_blank(chat):
                    raise DataError(
                        _("the row has no text"), where=str(chat.origin),
                        do=_("fill it in, or leave it out of the predictions with --empty skip"),
                        command="tunewright predict --help",
                    )  # fmt: skip
            total += len(rows)
            progress(len(rows))
    return _Job(run, source, column, how, total, piece)


# -- the file --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(out: Path, run: RunDir, source: Source) -> Iterator[IO[bytes]]:
    """``out`` for appending, to one process alone. Raises RunError for a file that is not to be lost."""
    taken = None
    if out.exists() and out.samefile(source.path):
        taken = _("the predictions would be written over the rows")
    elif out.resolve().is_relative_to(run.path.resolve()):
        taken = _("the predictions would be written among the run's own files")
    if taken is not None:
        raise RunError(
            taken, where=str(out), do=_("give another file with -o"), command="tunewright predict --help"
        )
    with rundir.writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        file = open(out, "ab+")  # noqa: SIM115 - closed below; errors of whoever writes are not errors of opening
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                _("another process is writing this file"), where=str(out), do=_("wait for it, or stop it first"),
                command="tunewright predict --help",
            ) from None  # fmt: skip
        yield file


@dataclass
class _Output:
    """``out``, which stays as it was until there is something to write. end: of what is kept of it.  state: what then
    lies beside it."""

    file: IO[bytes]
    out: Path
    end: int
    state: dict[str, Any]
    begun: bool = False

    def begin(self) -> None:
        self.begun = True
        self.file.truncate(self.end)
        self.file.seek(self.end)
        rundir.write_json(state_of(self.out), self.state)

    def write(self, lines: bytes) -> None:
        with rundir.writing(self.out):
            if not self.begun:
                self.begin()
            _write(self.file, lines)


def _continued(
    file: IO[bytes], out: Path, job: _Job, options: Options, overwrite: bool, summary: Summary
) -> _Output:
    """Counts what ``out`` holds already into ``summary``; what is written goes to where the next piece begins."""
    state, end = _state(job, options), 0
    if out.stat().st_size and not overwrite:
        _require_same(state_of(out), out, state)
        end, summary.counts = _whole_pieces(file, job)
    summary.done_before = summary.counts.rows
    return _Output(file, out, end, state)


def state_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.state")


def _state(job: _Job, options: Options) -> dict[str, Any]:
    """What decides the content of the file."""
    recipe = load_recipe(job.run.file(rundir.RECIPE)).recipe
    folder = job.run.file(rundir.ADAPTER if recipe.train.method == "lora" else rundir.MODEL)
    weights = sorted(folder.glob("*.safetensors"))
    base = job.run.manifest()["base"]["sha256"]
    return {
        "run": str(job.run.path.resolve()),
        "weights": hashlib.sha256(" ".join([base, *map(hashes.remembered, weights)]).encode()).hexdigest(),
        "file": job.source.name,
        "file_sha256": job.source.sha256(),
        "columns": job.asking.data.columns,
        "piece": job.piece,
        "max_new_tokens": options.max_new_tokens,
        "too_long": options.too_long or AS_TRAINED[recipe.data.too_long],
        "empty": options.empty,
    }


def _require_same(place: Path, out: Path, state: Mapping[str, Any]) -> None:
    """Raises RunError unless what is there is the beginning of what would be written now."""
    before = _before(place)
    if before is None:
        differs = [_("nothing beside it says which run and which rows it belongs to")]
    else:
        names = {
            "weights": _("it was predicted with another model"), "file_sha256": _("it belongs to other rows"),
            "columns": _("other columns were read"), "max_new_tokens": _("--max-new-tokens was another"),
            "too_long": _("--too-long was another"), "empty": _("--empty was another"),
            "piece": _("another version wrote it"),
        }  # fmt: skip
        may = ("too_long", "empty")  # where a row would have stopped the work, none was met so far
        differs = [
            what for key, what in names.items()
            if before.get(key) != state[key] and not (key in may and before.get(key) == "stop")
        ]  # fmt: skip
    if differs:
        raise RunError(
            _("the file holds other predictions: {why}", why="; ".join(differs)), where=str(out),
            do=_("write to another file, or replace it with --overwrite"), command="tunewright predict --help",
        )  # fmt: skip


def _before(place: Path) -> dict[str, Any] | None:
    """What was said beside the file; None where nothing was, or nothing that can be read."""
    try:
        return rundir.read_object(place) if place.exists() else None
    except RunError:
        return None


def _whole_pieces(file: IO[bytes], job: _Job) -> tuple[int, Counts]:
    """Where the last whole piece of the file ends, and what stands before. Every line must belong to its row."""
    file.seek(0)
    place, end, counts, upto = 0, 0, Counts(), Counts()
    rows = stream(job.source, job.column)
    for line in file:
        row = next(rows, None)
        try:
            result = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            result = None
        if row is None or not isinstance(result, dict) or result.get("row") != row.origin.row:
            break
        upto.add(result)
        place += len(line)
        if upto.rows % job.piece == 0 or upto.rows == job.total:
            end, counts = place, replace(upto)
    return end, counts


def _predict(
    job: _Job, write: Callable[[bytes], None], options: Options, audience: Audience, summary: Summary
) -> None:
    predictor = Predictor(open_run(job.run), options)
    counts = summary.counts
    with audience.doing(_("Predicting"), job.total) as progress:
        progress(counts.rows)
        began = time.monotonic()
        for rows in job.pieces(counts.rows):
            results = predictor(rows, job.asking.chats(rows), progress)
            write(b"".join(map(as_line, results)))
            for result in results:
                counts.add(result)
            summary.seconds = time.monotonic() - began


def as_line(result: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a field that nobody read holds half a character
        return (json.dumps(result, allow_nan=False) + "\n").encode("ascii")
