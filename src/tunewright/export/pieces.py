"""Tokenizers in SentencePiece's manner (Llama 2, TinyLlama, Mistral) as a GGUF file holds them.

Such a tokenizer writes spaces as ``▁``, knows nothing of words, and spells what it has no token for in bytes. A run's
``tokenizer.json`` lists which pairs become one token, and in which order. llama.cpp has a score for each token instead:
of all neighbours whose texts together are a token, it joins those of the highest score. The two agree where every such
pair stands in the list and the pairs of one token stand together; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gguf

from tunewright.export.refusal import refused, require_plain_tokens
from tunewright.text import _

SPACE = "▁"
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_PREPEND = {"type": "Prepend", "prepend": SPACE}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


@dataclass(frozen=True)
class Pieces:
    """scores: of each token, by its text.  spaced: a space is put before every text, and behind every special token."""

    scores: dict[str, float]
    spaced: bool

    def write(self, writer: gguf.GGUFWriter, tokens: Iterable[str]) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([self.scores.get(token, 0.0) for token in tokens])
        writer.add_add_space_prefix(self.spaced)


def is_one(tokenizer: dict[str, Any]) -> bool:
    """Whether the content of a tokenizer.json is of this manner."""
    model = tokenizer.get("model") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def read(tokenizer: dict[str, Any], where: str) -> Pieces:
    """Raises RunError for one that llama.cpp would read otherwise."""
    model = tokenizer["model"]
    require_plain_tokens(tokenizer, where)
    if missing := BYTES - model["vocab"].keys():
        raise refused(_("the run's tokenizer has no token for {n} of the 256 bytes", n=len(missing)), where)
    pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
    added = {str(token["content"]) for token in tokenizer.get("added_tokens") or []}
    texts = model["vocab"].keys() - BYTES - added
    spaced = _spaced(tokenizer, texts, where)
    if model.get("ignore_merges") or model.get("dropout") or not _is_by_token(pairs, texts):
        raise refused(_("the run's tokenizer joins tokens in an order that llama.cpp's scores cannot say"), where)
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(pairs):
        scores.setdefault(left + right, -float(rank))
    return Pieces(scores, spaced)


def _spaced(tokenizer: dict[str, Any], texts: Iterable[str], where: str) -> bool:
    """Whether a space comes before every text. llama.cpp knows that, and none at all."""
    normalizer, cutting = tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    if cutting is None and steps in ([_PREPEND, _REPLACE], [_REPLACE]):
        return _PREPEND in steps
    if cutting is not None and cutting.get("type") == "Metaspace" and not steps:
        in_one = not cutting.get("split", True) or not any(SPACE in text[1:] for text in texts)
        if cutting.get("replacement") == SPACE and cutting.get("prepend_scheme") == "never" and in_one:
            return False
    raise refused(_("the run's tokenizer rewrites spaces otherwise than llama.cpp does"), where)


def _is_by_token(pairs: list[tuple[str, ...]], texts: set[str]) -> bool:
    """Whether all pairs of one token follow each other, and no token of two neighbours is without its pair."""
    joined = [left + right for left, right in pairs]
    begins = [text for text, before in zip(joined, [None, *joined], strict=False) if text != before]
    listed = set(pairs)
    return len(begins) == len(set(begins)) and all(
        (text[:cut], text[cut:]) in listed
        for text in texts
        for cut in range(1, len(text))
        if all(len(part) == 1 or part in texts for part in (text[:cut], text[cut:]))
    )
