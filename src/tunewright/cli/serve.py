"""``tunewright serve``: runs and bases behind an endpoint that speaks as OpenAI's does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunewright.cli.main import json_option, verb
from tunewright.settings import before_llama_cpp
from tunewright.text import _

if TYPE_CHECKING:
    from tunewright.infer.live import Card
    from tunewright.serve.keys import Keys

ENGINES = ("transformers", "llama.cpp", "vllm")


@verb(next="tunewright chat --url http://127.0.0.1:8000/v1")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--base", "bases", multiple=True, metavar="NAME", help="Serve a base as it is, too.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Any other address needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="Keys that clients have to show.")
@click.option("--new-key", metavar="NAME", help="Make a key, add its hash to --key-file, print it, and end.")
@click.option("--engine", type=click.Choice(ENGINES), default=ENGINES[0], show_default=True, help="What answers.")
@click.option("--adapters", type=click.IntRange(1), default=8, show_default=True, help="Kept in memory at a time.")
@click.option("--context", type=click.IntRange(16), help="Tokens of prompt and answer (default: as the base can).")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest answer (default: what the context leaves).")
@click.option("--max-running", type=click.IntRange(1), default=32, show_default=True, help="Answers at a time.")
@click.option("--max-waiting", type=click.IntRange(0), default=128, show_default=True, help="More are told to wait.")
@click.option("--max-body", type=click.IntRange(1), default=8, show_default=True, help="MiB of a request.")
@json_option
def command(
    runs: tuple[str, ...], bases: tuple[str, ...], host: str, port: int, key_file: Path | None, new_key: str | None,
    engine: str, adapters: int, context: int | None, max_new_tokens: int | None, max_running: int, max_waiting: int,
    max_body: int, as_json: bool,
) -> None:  # fmt: skip
    """Serve runs (the last one by default) to clients of OpenAI's API.

    Each run is a model by the name of its folder; the bases under them are models too. Chat, completions,
    embeddings, labels: docs/serve.md says what is understood. Ctrl-C finishes what is being answered, then ends.
    """
    if engine == "llama.cpp":
        before_llama_cpp()
    from tunewright.serve import server

    server.require_packages()  # before anything is imported that needs them
    from tunewright.serve import keys

    if new_key is not None:
        if key_file is None:
            raise click.UsageError(_("--new-key needs a file for its hash: add --key-file FILE"))
        click.echo(keys.create(key_file, new_key))
        return
    known = _keys(key_file)
    server.require_key(host, bool(known))
    bound = server.listen(host, port)
    with bound:
        from tunewright.serve.app import application
        from tunewright.serve.limits import Limits
        from tunewright.serve.service import Service

        limits = Limits(max_body * 2**20, max_running, max_waiting, new_tokens=max_new_tokens)
        fleet = _fleet(runs, bases, engine, adapters, context)
        url = server.url_of(bound)
        server.run(
            fleet,
            lambda: application(Service(fleet, limits, known), server.hosts_of(host, bool(known))),
            bound,
            lambda: _say(url, fleet.cards(), bool(known), as_json),
        )


def _keys(file: Path | None) -> Keys:
    from tunewright.serve.keys import Keys
    from tunewright.settings import settings

    given = settings().serve_key
    return Keys(file, (given,) if given else ())


def _fleet(
    runs: tuple[str, ...], bases: tuple[str, ...], engine: str, adapters: int, context: int | None
) -> Any:  # fmt: skip
    from tunewright import rundir
    from tunewright.cli.screen import Screen
    from tunewright.export.lying import gguf_of
    from tunewright.infer import llama_cpp, vllm
    from tunewright.infer.serving import LlamaCpp, Options, Transformers, Vllm, open_fleet

    if engine != ENGINES[0]:  # before a run is exported for it
        (vllm if engine == "vllm" else llama_cpp).require_package()
    options = Options(adapters, context)
    found = [rundir.find(name) for name in runs] or ([] if bases else [rundir.find()])
    screen = Screen()
    if engine == "llama.cpp":  # a model is a file, so that the bases under the runs would be more files
        files = {str(run): gguf_of(run, screen) for run in found}
        files |= {name: Path(name) for name in bases if name.endswith(".gguf")}
        return open_fleet(found, bases, options, with_bases=False, engines=LlamaCpp(options, files))
    with screen.doing(_("Opening"), 0):
        return open_fleet(found, bases, options, engines=Vllm(options) if engine == "vllm" else Transformers(options))


def _say(url: str, cards: list[Card], has_key: bool, as_json: bool) -> None:
    """What is served, where, and a line that asks it."""
    if as_json:
        models = [{"id": card.name, "base": card.base, "gives": card.gives, "chats": card.chats} for card in cards]
        click.echo(json.dumps({"url": f"{url}/v1", "models": models}, ensure_ascii=False))
        return
    from tunewright.serve import snippets

    width = max(len(card.name) for card in cards)
    lines = [_("Serving at {url}", url=f"{url}/v1")]
    for card in cards:
        gives = snippets.gives_of(card)
        gives = _("continuations") if gives == "likelihood" else gives
        what = gives if card.run is None else _("{gives}, tuned from {base}", gives=gives, base=card.base)
        lines.append(f"  {card.name.ljust(width)}  {what}")
    example = snippets.curl(cards[0].name, snippets.gives_of(cards[0]), url=f"{url}/v1", key=has_key)
    click.echo("\n".join([*lines, "", example, "", _("Ctrl-C ends it.")]))

