"""``tunewright models``: the bases that have a name."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunewright.cli.main import json_option, verb
from tunewright.model.catalog import Entry, catalog
from tunewright.model.source import is_here
from tunewright.text import _


@verb(next="tunewright train data.jsonl base=smollm2-135m-instruct")
@json_option
def command(as_json: bool) -> None:
    """The bases on offer, and which of them are on this machine.

    Any hub id (owner/name), modelscope:ID, folder or .gguf file works as a base as well.
    """
    here = {name: is_here(name, entry) for name, entry in catalog().items()}
    if as_json:
        rows = [
            {"name": name, **entry.model_dump(mode="json", exclude_none=True), "here": here[name]}
            for name, entry in catalog().items()
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    console = Console(width=min(80, Console().width), highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(_("name"), no_wrap=True)
    table.add_column(_("size"), justify="right", no_wrap=True)
    table.add_column(_("licence"), no_wrap=True, overflow="ellipsis", max_width=19)
    table.add_column(_("languages"), overflow="fold", max_width=18)
    table.add_column(_("here"), no_wrap=True)
    tasks: tuple[str, ...] = ()
    for name, entry in catalog().items():
        if entry.tasks != tasks:
            tasks = entry.tasks
            table.add_row()
            table.add_row(Text(", ".join(tasks), style="bold"))
        table.add_row(name, size(entry), entry.licence, ", ".join(entry.languages), _("yes") if here[name] else "-")
    console.print(table)
    console.print()
    console.print(_("Any hub id (owner/name), modelscope:ID, folder or .gguf file works as well."), markup=False)
    first = next((n for n in here if here[n]), next(iter(here)))
    console.print(_("Next: tunewright train data.jsonl base={name}", name=first), markup=False)


def size(entry: Entry) -> str:
    millions = entry.parameters / 1e6
    return f"{millions:.0f} M" if millions < 1000 else f"{millions / 1000:.1f} B"
