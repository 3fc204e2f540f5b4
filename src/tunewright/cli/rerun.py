"""``tunewright rerun``: a finished run once more, and whether it came out the same."""

from __future__ import annotations

from pathlib import Path

import click

from tunewright.cli.main import emit, json_option, set_log, verb
from tunewright.text import _


@verb(next="tunewright compare RUN RUN")
@click.argument("run", required=False)
@click.option("--out", metavar="DIR", help="Folder of the new run; runs/<name>-<number>/ by default.")
@json_option
def command(run: str | None, out: str | None, as_json: bool) -> None:
    """Repeat a finished RUN (the last one by default) from its folder and compare the two.

    Its own recipe, data and base are trained again into a new folder. Steps, weights and answers are compared line by
    line and bit for bit; the exit code is 0 if all are the same and 2 if not. A run whose base, data or recipe has
    changed since is refused. The same machine with the same versions gives the same bits on a CPU.
    """
    from tunewright import rundir
    from tunewright.api import written
    from tunewright.cli.screen import Screen
    from tunewright.cli.story import lasting
    from tunewright.errors import InputError, RunError
    from tunewright.train.ranks import join
    from tunewright.train.rerun import rerun

    screen = Screen(set_log)
    with lasting(screen):
        result = rerun(rundir.find(run), out, screen)
    if not join().first:  # another process tells it
        raise SystemExit(0)
    written(result.again)
    width = max(len(part.name) for part in result.parts)
    lines = [f"  {part.name:<{width}}  {_('same') if part.same else _('differs'):<7}  {part.says}"
             for part in result.parts]  # fmt: skip
    head = _("{again} against {run}", again=result.again, run=Path(result.run))
    first = result.first
    emit(as_json, result.as_dict(), "\n".join([head, "", *lines, *(["", _("The same run.")] if first is None else [])]))
    if first is not None and as_json:
        raise SystemExit(InputError.exit_code)
    if first is not None:
        raise RunError(
            _("the second run is not the first one: {name} differs first", name=first.name), where=first.says,
            do=_("use the machine, versions and number of threads of the first run"),
            command=f"tunewright compare {result.run} {result.again}",
        )  # fmt: skip
