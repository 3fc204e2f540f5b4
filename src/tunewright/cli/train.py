"""``tunewright train``: the whole story."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, set_log, verb


@verb(next="tunewright chat")
@click.argument("source")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", metavar="DIR", help="Folder of the run; runs/<name>-<number>/ by default.")
@json_option
def command(source: str, overrides: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Train on a data file or a recipe, and measure before and after.

    SOURCE is a data file, a folder or a recipe; KEY=VALUE sets a key of the recipe, such as train.epochs=2. Everything
    that is not set is chosen, said, and written into the run's recipe.yaml.
    """
    from tunewright.cli.story import told
    from tunewright.recipe.load import load
    from tunewright.train import run as story
    from tunewright.train.ranks import join

    loaded = join().in_turn(lambda: load(source, overrides))
    run = told(lambda screen: story.train(loaded, out, screen), set_log)
    emit(as_json, run.data, run.text)
