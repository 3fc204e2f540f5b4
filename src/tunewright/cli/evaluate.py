"""``tunewright evaluate``: the numbers again, or on other data."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, verb


@verb(next="tunewright report")
@click.argument("run", required=False)
@click.argument("file", required=False, type=click.Path())
@json_option
def command(run: str | None, file: str | None, as_json: bool) -> None:
    """Measure base and tuned model again: on the run's held-out rows, or on FILE.

    The same code, template and checks as in the run. Numbers on its own rows replace evaluation.json; numbers on FILE
    are only shown.
    """
    from rich.console import Console

    from tunewright import rundir
    from tunewright.api import written
    from tunewright.cli.screen import Screen
    from tunewright.evaluate import table
    from tunewright.train.again import evaluate

    folder = rundir.find(run)
    evaluation = evaluate(folder, file, Screen())
    if file is None:
        rundir.write_json(folder.file(rundir.EVALUATION), evaluation)
        written(folder)
    if not as_json:
        Console(stderr=True).print(table.table(evaluation))
    emit(as_json, evaluation, evaluation["verdict"])
