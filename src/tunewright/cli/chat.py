"""``tunewright chat``: talk to a run, to a base, to both side by side, or to an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tunewright.cli.main import verb
from tunewright.text import _

if TYPE_CHECKING:
    from tunewright.cli.remote import RemoteTalk
    from tunewright.cli.talk import Talk


@verb(next='tunewright chat -m "Who are you?" --compare')
@click.argument("run", required=False)
@click.option("-m", "--message", help="Ask this, print the answer alone, and end.")
@click.option("--compare", is_flag=True, help="Show the base's answer beside the tuned one.")
@click.option("--base", metavar="NAME", help="Talk to a base as it is, instead of a run.")
@click.option("--url", metavar="URL", help="Talk to an endpoint instead, such as http://127.0.0.1:8000/v1.")
@click.option("--model", metavar="NAME", help="Of the endpoint's models (default: the first).")
@click.option("--key-env", metavar="NAME", help="Where in the environment the endpoint's key is.")
@click.option("--system", metavar="TEXT", help="System message of the conversation.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Nucleus of the drawing.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest answer.")
def command(
    run: str | None, message: str | None, compare: bool, base: str | None, url: str | None, model: str | None,
    key_env: str | None, system: str | None, temperature: float, top_p: float, max_new_tokens: int,
) -> None:  # fmt: skip
    """Talk to a run (the last one by default).

    With -m one question is answered: the answer alone goes to standard output. Without it a conversation begins; an
    empty line or Ctrl-D ends it, /new starts over.
    """
    if base and (run or compare):
        raise click.UsageError(_("--base takes neither a run nor --compare"))
    if url and (run or base or compare):
        raise click.UsageError(_("--url takes neither a run nor --base nor --compare"))
    if not url and (model or key_env):
        raise click.UsageError(_("--model and --key-env are for --url"))
    talk: Talk | RemoteTalk
    if url:
        from tunewright.cli.remote import RemoteTalk, connected

        talk = RemoteTalk(connected(url, model, key_env), system, temperature, top_p, max_new_tokens)
    else:
        from tunewright.cli.talk import Options, Talk, open_voices

        talk = Talk(open_voices(run, base, compare), Options(max_new_tokens, temperature, top_p, system))
    if message is not None:
        talk.once(message)
    else:
        talk.loop()
