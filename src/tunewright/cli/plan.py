"""``tunewright plan``: memory, time and disk before anything is loaded."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, verb


@verb(next="tunewright train SOURCE")
@click.argument("source")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--probe", is_flag=True, help="Learn 32 rows by heart as well, to see whether the data can be learned.")
@json_option
def command(source: str, overrides: tuple[str, ...], probe: bool, as_json: bool) -> None:
    """Foresee memory, time and disk of a training, before any weight is loaded.

    Reads the data and the base's file headers, tries one matrix product, and counts. With --probe the base is loaded
    and learns 32 of the training rows by heart, which takes about a minute and leaves nothing behind: rows that
    contradict each other, answers that belong to other prompts and labels that are not in the text show here.
    """
    from tunewright.cli.screen import Screen, plan_table
    from tunewright.recipe.load import load
    from tunewright.train.ready import get_fitting, get_ready

    screen = Screen()
    loaded = load(source, overrides)
    ready = get_fitting(loaded, screen) if loaded.recipe.train.fit == "auto" else get_ready(loaded, screen)
    plan = ready.plan.as_dict()
    data = plan | {"fits": ready.shortage is None, "chosen": ready.chosen}
    text = plan_table(plan)
    if ready.shortage is not None:
        text += f"\n{ready.shortage.what}\n  do:    {ready.shortage.do}"
    if probe:
        from tunewright.train import probe as probing

        found = probing.probe(ready, screen)
        data |= {"probe": found.as_dict()}
        text += "\n" + "\n".join(probing.told(found))
    emit(as_json, data, text)
