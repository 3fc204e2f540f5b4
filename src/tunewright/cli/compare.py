"""``tunewright compare``: several runs on the same held-out rows in one table."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, verb
from tunewright.text import _


@verb(next="tunewright report RUN")
@click.argument("runs", nargs=-1, metavar="RUN RUN …")
@json_option
def command(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare runs that were measured on the same held-out rows.

    \b
    tunewright compare runs/reviews-1 runs/reviews-2
    tunewright compare linear-1 label-token-1 --json

    One line to a run, its difference to the first one below each number. Runs that choose labels stand beside TF-IDF
    and the most common label. Runs that were measured on other rows are refused, and what differs is named.
    """
    from rich.console import Console

    from tunewright import rundir
    from tunewright.errors import RunError
    from tunewright.evaluate.across import across
    from tunewright.evaluate.across_table import WIDTH, table

    if len(runs) < 2:
        raise RunError(
            _("comparing needs at least two runs"), do=_("name their folders"),
            command="tunewright compare RUN RUN",
        )  # fmt: skip
    found = [rundir.find(name) for name in runs]
    places = [run.path.resolve() for run in found]
    for run, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise RunError(
                _("{run} is named twice", run=run), do=_("name each run once"), command="tunewright compare RUN RUN"
            )
    result = across(found)
    if not as_json:
        Console(width=WIDTH).print(table(result))
    emit(as_json, result, result["verdict"])
