"""``tunewright recipe``: what a key does, and whether a recipe is sound."""

from __future__ import annotations

import click

from tunewright.cli.main import after, emit, json_option, verb_group
from tunewright.text import _


@verb_group(next="tunewright recipe explain train.epochs")
def command() -> None:
    """Explain what a key of a recipe does, or check a recipe."""


@command.command(**after("tunewright train --help"))
@click.argument("key", required=False)
@json_option
def explain(key: str | None, as_json: bool) -> None:
    """Explain KEY: what it means, what it allows, its default. Without KEY, list all keys."""
    from tunewright.recipe.explain import facts, overview
    from tunewright.recipe.load import explain as explained

    if key is None:
        emit(as_json, facts(), overview())
    else:
        text = explained(key)
        emit(as_json, [fact for fact in facts() if fact["key"] == key or fact["section"] == key], text)


@command.command(**after("tunewright plan --help"))
@click.argument("file")
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@json_option
def check(file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check the recipe FILE and print it complete, each value with its source."""
    from tunewright.recipe.dump import text
    from tunewright.recipe.load import load

    loaded = load(file, overrides)
    values = loaded.recipe.model_dump(mode="json")
    emit(as_json, {"recipe": values, "sources": loaded.sources}, text(loaded.recipe, loaded.sources).rstrip())
    click.echo(_("{file} is a sound recipe", file=file), err=True)
