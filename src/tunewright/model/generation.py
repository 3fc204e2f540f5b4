"""Which tokens end an answer: frozen into every run, so that what was trained stops when it is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunewright.errors import BaseModelError
from tunewright.model.source import Base, read_config
from tunewright.text import _

# What an encoder-decoder cannot write without: where its output begins, how it must begin or end, and tokens that its
# output layer never learned to avoid (Marian's padding). Penalties, sampling and least lengths are not among them:
# a base ships those for the task that it was made for.
STRUCTURE = (
    "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens",
    "begin_suppress_tokens",
)  # fmt: skip


def generation_config(base: Base) -> dict[str, Any]:
    """Greedy, with every id that any file of the base names as an end.

    ``eos_token_id`` is a sorted list: the tokenizer's, the config's and the generation config's. A stop id that is
    missing here is the reason why answers elsewhere never end. Raises BaseModelError if the base names none.
    """
    config, stored = read_config(base.folder), _read(base.folder / "generation_config.json")
    ends = _ids(config.get("eos_token_id")) | _ids(stored.get("eos_token_id"))
    tokenizer = _read(base.folder / "tokenizer_config.json")
    end = _token_id(base.folder, tokenizer.get("eos_token"))
    ends |= {end} if end is not None else set()
    if not ends:
        raise BaseModelError(
            _("{name} names no token that ends an answer", name=base.name),
            where=str(base.folder / "tokenizer_config.json"), do=_("take a base whose tokenizer has an eos_token"),
        )  # fmt: skip
    own_pad = _token_id(base.folder, tokenizer.get("pad_token"))
    pad = _first(stored.get("pad_token_id"), config.get("pad_token_id"), own_pad, min(ends))
    start = _first(stored.get("bos_token_id"), config.get("bos_token_id"))
    result: dict[str, Any] = {"eos_token_id": sorted(ends), "pad_token_id": pad, "do_sample": False}
    if start is not None:
        result["bos_token_id"] = start
    if config.get("is_encoder_decoder"):
        given = {name: _first(stored.get(name), config.get(name)) for name in STRUCTURE}
        given["decoder_start_token_id"] = _first(given["decoder_start_token_id"], start, pad)
        result |= {name: value for name, value in given.items() if value is not None}
    return result


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


def _ids(value: Any) -> set[int]:
    if value is None:
        return set()
    return {int(v) for v in value} if isinstance(value, list) else {int(value)}


def _token_id(folder: Path, token: Any) -> int | None:
    """Id of a special token in tokenizer.json; tokens are written as text, or as an object with ``content``."""
    text = token.get("content") if isinstance(token, dict) else token
    if not text:
        return None
    tokenizer = _read(folder / "tokenizer.json")
    for added in tokenizer.get("added_tokens", []):
        if added.get("content") == text:
            return int(added["id"])
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    return int(vocabulary[text]) if isinstance(vocabulary, dict) and text in vocabulary else None


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BaseModelError(_("{file} cannot be read: {why}", file=path.name, why=error), where=str(path)) from None
