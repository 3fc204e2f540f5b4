"""``tunewright plan``: memory, time and disk before anything is loaded."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, verb


@verb(next="tunewright train SOURCE")
@click.argument("source")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@json_option
def command(source: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Foresee memory, time and disk of a training, before any weight is loaded.

    Reads the data and the base's file headers, tries one matrix product, and counts.
    """
    from tunewright.cli.screen import Screen, plan_table
    from tunewright.recipe.load import load
    from tunewright.train.ready import get_ready

    ready = get_ready(load(source, overrides), Screen())
    plan = ready.plan.as_dict()
    data = plan | {"chosen": {k: v for k, v in ready.sources.items() if v.startswith("chosen")}}
    emit(as_json, data, plan_table(plan))
