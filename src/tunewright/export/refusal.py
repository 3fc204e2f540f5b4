"""Tokenizers that a GGUF file cannot hold: how that is said, and what is true of every kind of them."""

from __future__ import annotations

from typing import Any

from tunewright.errors import RunError
from tunewright.text import _


def refused(what: str, where: str) -> RunError:
    return RunError(
        what, where=where, do=_("export the run as merged; transformers reads its tokenizer as it is"),
        command="tunewright export --to merged",
    )  # fmt: skip


def require_plain_tokens(tokenizer: dict[str, Any], where: str) -> None:
    """Raises RunError for an added token that is more than its own text."""
    for token in tokenizer.get("added_tokens") or []:
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise refused(_("the token {text!r} takes spaces beside it, which llama.cpp does not do",
                            text=token["content"]), where)  # fmt: skip
