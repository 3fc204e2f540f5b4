"""``tunewright chat``: talk to a run, to a base, or to both side by side."""

from __future__ import annotations

import click

from tunewright.cli.main import verb
from tunewright.text import _


@verb(next='tunewright chat -m "Who are you?" --compare')
@click.argument("run", required=False)
@click.option("-m", "--message", help="Ask this, print the answer alone, and end.")
@click.option("--compare", is_flag=True, help="Show the base's answer beside the tuned one.")
@click.option("--base", metavar="NAME", help="Talk to a base as it is, instead of a run.")
@click.option("--system", metavar="TEXT", help="System message of the conversation.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Nucleus of the drawing.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest answer.")
def command(
    run: str | None, message: str | None, compare: bool, base: str | None, system: str | None,
    temperature: float, top_p: float, max_new_tokens: int,
) -> None:  # fmt: skip
    """Talk to a run (the last one by default).

    With -m one question is answered: the answer alone goes to standard output. Without it a conversation begins; an
    empty line or Ctrl-D ends it, /new starts over.
    """
    from tunewright.cli.talk import Options, Talk, open_voices

    if base and (run or compare):
        raise click.UsageError(_("--base takes neither a run nor --compare"))
    options = Options(max_new_tokens, temperature, top_p, system)
    talk = Talk(open_voices(run, base, compare), options)
    if message is not None:
        talk.once(message)
    else:
        talk.loop()
