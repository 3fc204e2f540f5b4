"""``tunewright predict``: labels, outputs or answers of a run for the rows of a file."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunewright.cli.main import emit, json_option, verb
from tunewright.text import _

if TYPE_CHECKING:
    from tunewright.infer.predictions import Summary

_COLUMN = "data.columns."
_JSON = re.compile(rb"\{|\[\s*\{")  # how rows of JSON begin, one a line or as a list, in whatever layout


@verb(next="tunewright predict reviews.csv -o labels.jsonl")
@click.argument("words", nargs=-1, metavar="[RUN] FILE [data.columns.PART=NAME]...")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write here; it can be continued.")
@click.option("--too-long", type=click.Choice(["stop", "skip", "truncate"]), help="As the run's recipe, by default.")
@click.option("--empty", type=click.Choice(["stop", "skip"]), default="stop", help="Rows without text (default: stop).")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest output or answer.")
@click.option("--overwrite", is_flag=True, help="Replace what is in the file of -o.")
@json_option
def command(
    words: tuple[str, ...], out: Path | None, too_long: Any, empty: Any, max_new_tokens: int | None, overwrite: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Predict the rows of FILE with RUN (default: the last run).

    FILE holds rows as they were trained on, with or without what is predicted: JSON Lines, CSV, TSV, Parquet, JSON, or
    a text file with one text a line. `-` is standard input: JSON Lines, or one text a line. One line of JSON comes
    out for each row, in their order: where it stands, the label with all probabilities, the output, or the answer
    with its thinking apart, and the row itself.

    \b
    tunewright predict reviews.csv -o labels.jsonl
    tunewright predict runs/translate-1 book.txt -o book.jsonl
    echo "A warm film." | tunewright predict sentiment-1 -

    With -o the same command goes on where an interrupted one stopped.
    """
    from tunewright import rundir
    from tunewright.cli.screen import Screen
    from tunewright.infer.predict import Options
    from tunewright.infer.predictions import predict_file

    run, file, columns = _understood(words)
    if as_json and out is None:
        raise click.UsageError(_("--json prints a summary, so that the predictions need a file: add -o FILE"))
    folder, screen = rundir.find(run), Screen()
    options = Options(too_long, empty, max_new_tokens)
    with _as_file(file) as path, _told_how_to_go_on(out, overwrite):
        summary = predict_file(folder, path, file, out, options, screen, columns, overwrite)
    text = _text(summary)
    if out is None:
        screen.say(text)
    else:
        emit(as_json, summary.as_dict(), text)


def _understood(words: Sequence[str]) -> tuple[str | None, str, dict[str, str]]:
    """Run, file, and columns by part."""
    columns = dict(word.removeprefix(_COLUMN).split("=", 1) for word in words if _is_column(word))
    names = [word for word in words if not _is_column(word)]
    if not names or len(names) > 2:
        given = _("no file is given") if not names else _("more than a run and a file is given")
        raise click.UsageError(given + ": " + _("write tunewright predict [RUN] FILE"))
    return (names[0] if len(names) == 2 else None), names[-1], columns


def _is_column(word: str) -> bool:
    return word.startswith(_COLUMN) and "=" in word


@contextlib.contextmanager
def _as_file(name: str) -> Iterator[Path]:
    """A file to be read twice; standard input is copied into one."""
    if name != "-":
        yield Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="tunewright-") as folder:
        path = Path(folder) / "stdin"
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with open(path, "rb") as file:
            start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        yield path.rename(path.with_suffix(".jsonl" if _JSON.match(start) else ".txt"))


@contextlib.contextmanager
def _told_how_to_go_on(out: Path | None, overwrite: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if out is None or not out.exists():
            raise
        told = _("Stopped. The same command goes on after the rows in {out}.", out=out)
        if overwrite:
            told = _("Stopped. Without --overwrite the same command goes on after the rows in {out}.", out=out)
        click.echo("\n" + told, err=True)
        raise SystemExit(130) from None


def _text(summary: Summary) -> str:
    counts = summary.counts
    done = counts.rows - summary.done_before
    lines = [
        _("{rows:,} rows", rows=counts.rows)
        + (_(", {before:,} of them from before", before=summary.done_before) if summary.done_before else "")
        + (_("; {done:,} in {seconds:.1f} s, {speed:.1f} rows/s", done=done, seconds=summary.seconds,
             speed=summary.rows_per_second) if done else _("; nothing was left to do"))
    ]  # fmt: skip
    for count, text in (
        (counts.skipped, _("skipped; each says why")),
        (counts.truncated, _("cut to what the model holds")),
        (counts.unfinished, _("reached the limit of --max-new-tokens before they ended")),
    ):
        if count:
            lines.append(f"  {count:,} {text}")
    if summary.out is not None:
        lines.append(_("wrote {out}", out=summary.out))
    return "\n".join(lines)
