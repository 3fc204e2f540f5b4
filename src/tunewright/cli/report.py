"""``tunewright report``: the page and the loss curve of a run, written anew from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from tunewright import rundir
from tunewright.cli.main import emit, json_option, verb
from tunewright.evaluate import table
from tunewright.text import _


@verb(next="tunewright chat")
@click.argument("run", required=False)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the page to this file instead.")
@json_option
def command(run: str | None, out: Path | None, as_json: bool) -> None:
    """Write the report of RUN (default: the last run): one page to read, print and send on.

    \b
    tunewright report                     the last run
    tunewright report runs/identity-1     this one
    tunewright report --out page.html     the page somewhere else
    """
    from tunewright.report import confusion, curves, page

    found = rundir.find(run)
    written = page.write(found, out)
    curve, matrix = curves.write(found), confusion.write(found)
    evaluation = found.read(rundir.EVALUATION)
    if as_json:
        with found.reading(rundir.EVALUATION):
            emit(True, _facts(found, written, curve, matrix, evaluation), "")
        return
    console = Console(width=table.WIDTH)
    if evaluation:
        with found.reading(rundir.EVALUATION):
            measured, verdict = table.table(evaluation), Text("\n" + evaluation["verdict"])
        console.print(measured)
        console.print(Text(table.legend(), style="dim"))
        console.print(verdict)
    else:
        console.print(_("This run has no evaluation yet; the page shows what there is."))
    console.print()
    for name, path in ((_("page"), written), (_("loss curve"), curve), (_("confusion"), matrix)):
        if path is not None:
            console.print(Text(f"{name + ':':<12}{path}"), soft_wrap=True)
    answers = evaluation.get("gives", "answers") == "answers"
    then = f"tunewright chat {found}" if answers else f"tunewright predict {found} FILE"
    after = _("Next: open the page, or type: {command}", command=then)
    console.print(Text(after), soft_wrap=True)


def _facts(
    run: rundir.RunDir, page: Path, curve: Path | None, matrix: Path | None, evaluation: dict[str, Any]
) -> dict[str, Any]:
    parts = {key: evaluation.get(key) for key in ("verdict", "before", "after", "difference", "counts")}
    pictures = {"loss_curve": str(curve) if curve else None, "confusion": str(matrix) if matrix else None}
    return {"run": str(run), "report": str(page), **pictures, **parts}
