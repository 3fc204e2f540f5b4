"""Which chat template is used: the base's own, another of its own, one of ours (``templates/``), or a person's file.

Ours are made fit for the base once, as text, so that the file saved with the model needs nothing but what it says: a
tokenizer that begins every text with a token gets it written there, and an end-of-sequence token that only an id names
gets its text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tunewright.data.basefiles import BaseFiles
from tunewright.data.tokens import Encoder
from tunewright.errors import BaseModelError, RecipeError
from tunewright.text import _

OWN = {"plain": (), "chatml": ("<|im_start|>", "<|im_end|>")}  # names, and the tokens that a base must have for them
FALLBACK = "plain"
SUFFIX = ".jinja"
KEY = "data.chat_template"


@dataclass(frozen=True, slots=True)
class Choice:
    """source: the template's text.  note: what a person should know about where it is from; None if it is the base's
    own."""

    source: str
    note: str | None = None


def read(wanted: str) -> str:
    """``wanted`` itself if it is a name or a template's text; what the file holds, if it is a ``.jinja`` file.

    Raises RecipeError if there is no such file, or no template in it.
    """
    if _is_source(wanted) or not wanted.endswith(SUFFIX):
        return wanted
    path = Path(wanted).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else _("it is not UTF-8")
        raise RecipeError(
            _("the chat template {name} cannot be read: {why}", name=repr(wanted), why=why),
            where=KEY,
            do=_("give a file that can be read, or one of: {names}", names=", ".join(OWN)),
            command=f"tunewright recipe explain {KEY}",
        ) from None
    if not _is_source(text):
        raise RecipeError(
            _("{name} holds no chat template", name=repr(wanted)),
            where=KEY,
            do=_("a chat template is Jinja text that goes through `messages`"),
            command=f"tunewright recipe explain {KEY}",
        )
    return text


def choose(files: BaseFiles, wanted: str | None, encoder: Encoder) -> Choice:
    """wanted: a name, a template's text, or None for the base's own, or ``plain`` where it has none.

    Raises BaseModelError for a name that nobody knows, or a template that the base has not the tokens for.
    """
    named = files.named_templates()
    if wanted is None:
        if "default" in named:
            return Choice(named["default"])
        note = _("the base has no chat template, so `{name}` is used and saved with the model", name=FALLBACK)
        if named:
            note += _(" (it has some with names for {key}: {names})", key=KEY, names=", ".join(sorted(named)))
        return Choice(_fitted(FALLBACK, files, encoder), note)
    if _is_source(wanted):
        return Choice(wanted, _("another chat template is used in place of the base's own, and saved with the model"))
    note = _("the chat template `{name}` is used, as {key} says, and saved with the model", name=wanted, key=KEY)
    if wanted in named:
        return Choice(named[wanted], note)
    if wanted in OWN:
        return Choice(_fitted(wanted, files, encoder), note)
    raise BaseModelError(
        _("there is no chat template called {wanted!r}", wanted=wanted),
        where=files.where,
        do=_("use one of: {names}; or a .jinja file", names=", ".join(dict.fromkeys((*sorted(named), *OWN)))),
        command=f"tunewright recipe explain {KEY}",
    )


def _is_source(text: str) -> bool:
    return "{%" in text or "{{" in text


def _fitted(name: str, files: BaseFiles, encoder: Encoder) -> str:
    """Our template ``name`` for this base. Raises BaseModelError if the base lacks its tokens, or an end."""
    missing = [token for token in OWN[name] if encoder.find(token) is None]
    if missing:
        raise BaseModelError(
            _("the base has no token {token}, which the template `{name}` is made of", token=missing[0], name=name),
            where=files.where,
            do=_("use `{fallback}`, which needs no token of its own", fallback=FALLBACK),
            command=f"tunewright train DATA {KEY}={FALLBACK}",
        )
    source = (Path(__file__).parent / "templates" / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    names, opening = files.named_tokens(), "".join(map(encoder.text_of, encoder.opening))
    if "eos_token" not in names and name == FALLBACK:
        ends = [text for text in map(encoder.text_of, files.stop_ids()) if text]
        if not ends:
            raise BaseModelError(
                _("the base names no token that ends a text"),
                where=files.where,
                do=_("take a base whose tokenizer has an eos_token"),
            )
        source = "{%- set eos_token = " + json.dumps(ends[0], ensure_ascii=False) + " -%}\n" + source
    if opening:
        source = "{{- " + json.dumps(opening, ensure_ascii=False) + " }}\n" + source
    return source
