"""``tunewright resume``: go on with a run that was interrupted."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, set_log, verb


@verb(next="tunewright chat")
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> None:
    """Go on with an interrupted run (the last one by default) from its last whole checkpoint.

    The result is what an unbroken run would have given, to the bit on a CPU. A run whose base, data or recipe has
    changed meanwhile is refused.
    """
    from tunewright import rundir
    from tunewright.cli.story import told
    from tunewright.train import run as story
    from tunewright.train.ranks import join

    folder = join().in_turn(lambda: rundir.find(run))
    result = told(lambda screen: story.resume(folder, screen), set_log)
    emit(as_json, result.data, result.text)
