"""The page at ``/``: the models, a box to ask base and tuned side by side, and the lines that call them from a program.

It shows nothing that is not public: the models are asked for by the page itself, with the key that a person types.
"""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tunewright import __version__
from tunewright.settings import settings
from tunewright.text import _

FOLDER = Path(__file__).parent / "page"


def page() -> tuple[str, dict[str, str]]:
    """The page and the headers that go with it: nothing is loaded from elsewhere, and no other page may frame it."""
    nonce = secrets.token_urlsafe(16)
    html = (
        _environment()
        .get_template("page.html.jinja")
        .render(language=settings().language, version=__version__, nonce=nonce, words=words())
    )
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return html, {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def words() -> dict[str, object]:
    """What the script says to people."""
    return {
        "asItIs": _("as it is"),
        "base": _("base"),
        "continuations": _("continuations"),
        "gives": {"labels": _("labels"), "vectors": _("vectors"), "outputs": _("outputs"), "answers": _("answers")},
        "sideBySide": _("The base {base} is asked the same beside it.", base="{base}"),
        "tunedFrom": _("tuned from {base}", base="{base}"),
        "unreachable": _("The server does not answer."),
        "wrongKey": _("The server does not know this key."),
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(_=_)
    return environment
