"""The run folder: the names of its files (a public contract) and how they are written.

A file is either absent or whole: everything is written beside its place and renamed into it, except the two
append-only logs (``metrics.jsonl``, ``log.txt``), whose last line a reader must be ready to ignore.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright.errors import ResourceError, RunError
from tunewright.settings import settings
from tunewright.text import _

RECIPE = "recipe.yaml"
MANIFEST = "manifest.json"
LEDGER = "ledger.json"
FINDINGS = "findings.jsonl"
SHOWN = "shown.txt"
PLAN = "plan.json"
STATUS = "status.json"
METRICS = "metrics.jsonl"
LOG = "log.txt"
CHECKPOINTS = "checkpoints"
ADAPTER = "adapter"
MODEL = "model"
EVALUATION = "evaluation.json"
LOSS_CURVE = "loss_curve.png"
CONFUSION = "confusion.png"
REPORT = "report.html"
VERIFY = "verify.json"
EXPORT = "export"

FILES: dict[str, str] = {
    RECIPE: "the complete recipe, each value with its source as a comment; training it again gives the same run",
    MANIFEST: "versions, hashes of data, base, recipe and of the files trained, seed, hardware; "
    "how large an adapter stayed (`settled`)",
    LEDGER: "rows in, rows kept, rows left out by reason with file and line; tokens and learned tokens",
    FINDINGS: "one finding about the data to a line",
    SHOWN: "three examples as the model sees them, learned text in ⟦brackets⟧",
    PLAN: "memory and time foreseen, rehearsed before step 1, and what was then measured",
    STATUS: "state, step, process; written whole, then renamed",
    METRICS: "one line a step: step, epoch, loss, learning_rate, grad_norm, tokens, learned_tokens, tokens_per_second",
    LOG: "everything printed, and tracebacks of our own faults",
    CHECKPOINTS: "one folder a checkpoint; one without its `complete.json` is half-written and skipped",
    ADAPTER: "the trained adapter in PEFT's layout, with tokenizer, template and generation config",
    MODEL: "the trained model in safetensors (methods full and freeze), with tokenizer, template and generation config",
    EVALUATION: "before and after on the held-out rows, with intervals, verdict and every generation",
    LOSS_CURVE: "the loss of each step and of the held-out rows as a picture",
    CONFUSION: "which labels the tuned model takes for which, as a picture (only where labels are chosen)",
    REPORT: "all of it on one self-contained page",
    VERIFY: "what `tunewright verify` proved last: each proof with its outcome and numbers (only after that verb)",
    EXPORT: "one folder a form: what `tunewright export` wrote, with what was compared (only after that verb)",
}


# What the manifest holds, as types, lists of one and records (``str`` stands for any name). Later verbs ask for all of
# the first; the second is lacking in manifests of older versions.
MADE_OF: dict[str, Any] = {
    "tunewright": str, "base": {"name": str, "sha256": str, "files": {str: str}},
    "data": [{"path": str, "sha256": str, "rows": int}], "data_sha256": str, "recipe": dict, "recipe_sha256": str,
    "template_sha256": str, "versions": {str: str},
}  # fmt: skip
MADE_WITH: dict[str, Any] = {"labels": [str], "texts": int, "trained": {str: str}, "hardware": dict, "format": dict}
# What Python says of JSON that is another than the code expects.
MISREAD: tuple[type[Exception], ...] = (
    TypeError, KeyError, AttributeError, ValueError, IndexError, ArithmeticError,
)  # fmt: skip

LOCK = ".lock"
PART = ".part"  # ends the name of a file that is being written


def _disk(error: OSError, path: Path) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            _("the disk is full"),
            where=str(path),
            do=_("free some space, or give another folder with --out"),
            command="tunewright doctor",
        )
    return ResourceError(
        _("cannot write: {why}", why=error.strerror or error),
        where=str(path),
        do=_("choose a folder you may write to with --out"),
        command="tunewright doctor",
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While the block runs, a disk that is full or that may not be written to is a ResourceError."""
    try:
        yield
    except OSError as error:
        raise _disk(error, path) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Whole or not at all: written beside ``path``, flushed to the disk, renamed over it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(PART, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _disk(error, path) from error


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Standard JSON only: a NaN would be a file that other readers refuse."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def damaged(path: Path, why: str) -> RunError:
    """Of a file that the run wrote and that says something else by now. What to do about it depends on whether anything
    can write it again."""
    what = _("{name} is damaged: {why}", name=path.name, why=why)
    return RunError(what, where=str(path), **_mended(path))


def _mended(path: Path) -> dict[str, str]:
    run = next((folder for folder in path.parents[:2] if (folder / RECIPE).is_file()), None)
    if run is None or path.name == RECIPE:
        return {"do": _("bring back the file that the run wrote"), "command": "tunewright train --help"}
    if path.name == EVALUATION:
        return {"do": _("bring it back as the run wrote it, or measure anew"), "command": f"tunewright evaluate {run}"}
    do = _("bring it back as the run wrote it, or train anew from the run's recipe: a run cannot be trusted further "
           "than its own files")  # fmt: skip
    return {"do": do, "command": f"tunewright train {run / RECIPE}"}


@contextlib.contextmanager
def reading(*paths: Path, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """While the block makes something of what was read in a run's own file, what Python says of content that is another
    than the run wrote is a RunError. also: what the block's libraries say of it.

    For such blocks only: a mistake of our own in one reads the same.
    """
    try:
        yield
    except MISREAD + also as error:
        found = damaged(paths[0], _("it is not as a run writes it ({error})", error=f"{type(error).__name__}: {error}"))
        found.where = ", ".join(map(str, paths))
        raise found from error


def _no_number(name: str) -> None:
    raise ValueError(_("{name} is no standard JSON", name=name))


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        what = _("the run has no {name}", name=path.name)
        raise RunError(what, where=str(path.parent), **_mended(path)) from None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, and numbers beyond Python's own limit
        raise damaged(path, str(error)) from None


def read_object(path: Path, *needed: str) -> dict[str, Any]:
    """The same of a file that holds one object. Raises RunError if it is none, or lacks one of these names."""
    stored = read_json(path)
    lacking = _("it is no JSON object") if not isinstance(stored, dict) else ""
    for name in needed if not lacking else ():
        if name not in stored:
            lacking = _("it has no {key}", key=name)
            break
    if lacking:
        raise damaged(path, lacking)
    return dict(stored)


def _misfit(content: Any, shape: Any, place: str = "", whole: bool = True) -> str:
    """What of ``content`` is not as ``shape`` says, in words; empty if nothing. whole: no name may be lacking."""
    if isinstance(shape, dict) and isinstance(content, dict):
        names = dict.fromkeys(content, shape[str]) if str in shape else shape
        for name, inner in names.items():
            there = f"{place}.{name}" if place else name
            lacking = _("it has no {key}", key=there) if whole else ""
            if wrong := _misfit(content[name], inner, there, whole) if name in content else lacking:
                return wrong
        return ""
    if isinstance(shape, list) and isinstance(content, list):
        found = (_misfit(one, shape[0], f"{place}[{number}]", whole) for number, one in enumerate(content))
        return next(filter(None, found), "")
    if isinstance(shape, type) and isinstance(content, shape) and not isinstance(content, bool):
        return ""
    return _("{key} is not what a run writes there", key=place)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSON Lines file; a last line that was cut off by a crash is left out."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


class RunDir:
    """A run folder. Knows where things are, never what they mean."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def file(self, name: str) -> Path:
        return self.path / name

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def read(self, name: str) -> dict[str, Any]:
        """The object in a file; an empty one where there is no such file yet. Of a manifest, which every part of the
        package asks, what is there is of the right kind."""
        path = self.file(name)
        stored = read_object(path) if path.exists() else {}
        if name == MANIFEST and (wrong := _misfit(stored, MADE_OF | MADE_WITH, whole=False)):
            raise damaged(path, wrong)
        return stored

    def reading(self, name: str, *also: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """``reading`` of the file of this name."""
        return reading(self.file(name), also=also)

    def status(self) -> dict[str, Any]:
        return read_object(self.file(STATUS))

    def manifest(self) -> dict[str, Any]:
        """What the run was made of, with all that later verbs ask for."""
        stored = read_object(self.file(MANIFEST))
        if wrong := _misfit(stored, MADE_OF) or _misfit(stored, MADE_WITH, whole=False):
            raise damaged(self.file(MANIFEST), wrong)
        return stored

    def set_status(self, state: str, **more: Any) -> None:
        """state: ``preparing``, ``training``, ``evaluating``, ``done``, ``stopped`` or ``failed``."""
        write_json(self.file(STATUS), {"state": state, **more})

    def append(self, name: str, row: dict[str, Any]) -> None:
        """One line to an append-only file, in one write, so that a crash can only cut the last line."""
        path = self.file(name)
        try:
            with open(path, "ab") as file:
                file.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))
        except OSError as error:
            raise _disk(error, path) from error

    def sweep(self) -> None:
        """Remove what a killed process had not renamed yet. Only under the lock."""
        for path in [*self.path.glob(f".*{PART}"), *self.checkpoints.glob(f"**/.*{PART}")]:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One process trains or resumes a run at a time. The lock goes with the process, however that ends."""
        import fcntl

        with open(self.path / LOCK, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    _("another process is working on this run"),
                    where=str(self.path),
                    do=_("wait for it, or stop it first"),
                    command=f"tunewright report {self.path}",
                ) from None
            yield


def require_free(out: str | os.PathLike[str] | None) -> None:
    """Raises RunError if ``out`` is a file, or a folder with something in it: more than the lock of a process that was
    killed before it had written anything; ResourceError if no folder of that name can be made there."""
    if out is None:
        return
    path = Path(out)
    _require_possible(path)
    if path.exists() and (not path.is_dir() or any(map(_counts, path.iterdir()))):
        raise RunError(
            _("the run folder exists already"),
            where=str(path),
            do=_("give another folder, or go on with the run that is there"),
            command=f"tunewright resume {path}",
        )


def _require_possible(path: Path) -> None:
    """What would keep a folder from being made is told before a base is fetched for it."""
    whole = path.absolute()
    there = next(folder for folder in (whole, *whole.parents) if os.path.exists(folder))
    try:
        for part in whole.relative_to(there).parts:
            with contextlib.suppress(FileNotFoundError):
                os.lstat(there / part)  # a name that no folder can have is another error than one that is not there
        if there != whole and not os.access(there, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _disk(error, path) from error


def _counts(path: Path) -> bool:
    return path.name != LOCK and path.suffix != PART


def create(name: str, out: str | os.PathLike[str] | None) -> RunDir:
    """A new folder for a run: ``out`` if given, else ``runs/<name>-<number>/`` with the next free number."""
    if out is not None:
        require_free(out)
        path = Path(out)
        _make(path, exist_ok=True)
        return RunDir(path)
    clean = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    runs = Path("runs")
    number = 1
    while True:
        path = runs / f"{clean}-{number}"
        try:
            _make(path, exist_ok=False)
            return RunDir(path)
        except FileExistsError:
            number += 1


def _make(path: Path, exist_ok: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise _disk(error, path) from error


def remember(run: RunDir) -> None:
    """Make ``run`` the last run: of this folder (``runs/.last``), and of this person (in the cache folder)."""
    text = str(run.path.resolve()) + "\n"
    for pointer in (Path("runs/.last"), settings().cache / "last_run"):
        with contextlib.suppress(ResourceError):  # a pointer is a convenience; the run itself is written
            write_text(pointer, text)


def find(name: str | None = None) -> RunDir:
    """The run called ``name`` (a path, or a folder below ``runs/``), or the last one."""
    if name is not None:
        for path in (Path(name), Path("runs") / name):
            if (path / STATUS).exists() or (path / RECIPE).exists():
                return RunDir(path)
        what = _("there is no run {name!r}", name=name)
        raise RunError(what, where=str(Path(name)), do=_runs_here(), command="tunewright train --help")
    for pointer in (Path("runs/.last"), settings().cache / "last_run"):
        if pointer.exists():
            path = Path(pointer.read_text(encoding="utf-8").strip())
            if (path / STATUS).exists():
                return RunDir(path)
    raise RunError(
        _("there is no run yet"),
        where=str(Path("runs").resolve()),
        do=_("train one first"),
        command="tunewright train --help",
    )


def _runs_here() -> str:
    names = sorted(p.parent.name for p in Path("runs").glob(f"*/{STATUS}"))
    if not names:
        return _("there are no runs in ./runs; train one first")
    return _("runs here: {names}", names=", ".join(names))
