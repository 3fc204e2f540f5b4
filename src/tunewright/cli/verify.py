"""``tunewright verify``: proofs that a run is what it says, with numbers."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, verb
from tunewright.text import _


@verb(next="tunewright chat")
@click.argument("run", required=False)
@click.option(
    "--only", multiple=True, metavar="NAME",
    help=_("Only this proof (may be repeated): template, stop, merge, effect, resume, identity."),
)  # fmt: skip
@json_option
def command(run: str | None, only: tuple[str, ...], as_json: bool) -> None:
    """Prove on RUN's own rows (the last run by default) that it is what it says.

    \b
    template   the ids learned are those that its saved tokenizer and template write
    stop       answers learned end in a stop token, which is saved; live answers stop
    merge      base + adapter and the merged model say the same
    effect     what was trained changes what the model says
    resume     steps, kill -9 and steps again end with the same bits
    identity   base, data, recipe and weights are those of the manifest

    Exit code 0 if every proof that applies holds, 2 if one fails. Nothing of the run is changed; the result is kept in
    its verify.json.
    """
    from rich.console import Console

    from tunewright import rundir
    from tunewright.cli.screen import Screen
    from tunewright.verify.run import verify
    from tunewright.verify.table import WIDTH, table

    found = verify(rundir.find(run), only, Screen())
    if as_json:
        emit(True, found.as_dict(), "")
        raise SystemExit(2 if found.failed else 0)
    Console(width=WIDTH).print(table(found))
    found.require()
    held, every = sum(proof.outcome == "pass" for proof in found.proofs), len(found.proofs)
    rest = "" if held == every else _("; the others do not apply")
    click.echo(_("{n} of {all} proofs hold{rest}.", n=held, all=every, rest=rest))
