"""Log-probabilities in OpenAI's two forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewright.data.codec import Codec
from tunewright.infer.live import Step
from tunewright.serve.streams import HALF

LEAST = -9999.0  # stands for minus infinity, which JSON does not have


class Spelling:
    """Tokens of one answer as text, each behind the one before it: a tokenizer may write a first word without its
    space."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._before: int | None = None

    def chat(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """Entries of ``logprobs.content``."""
        entries = []
        for step in steps:
            top = [self._entry(token, logprob) for token, logprob in step.top]
            entries.append(self._entry(step.token, step.logprob) | {"top_logprobs": top})
            self._before = step.token
        return entries

    def completion(self, steps: Sequence[Step], places: Sequence[int]) -> dict[str, Any]:
        """``logprobs`` of completions. places: of each step, as ``streams.Piece`` has them."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for step, place in zip(steps, places, strict=True):
            text = self.text(step.token)
            likely: dict[str, float] = {}  # best first; of two tokens with one text, the likelier
            for token, logprob in step.top:
                likely.setdefault(self.text(token), _finite(logprob))
            found["tokens"].append(text)
            found["token_logprobs"].append(_finite(step.logprob))
            found["top_logprobs"].append(likely | {text: likely.get(text, _finite(step.logprob))})
            found["text_offset"].append(place)
            self._before = step.token
        return found

    def text(self, token: int) -> str:
        if self._before is not None:
            before = self.codec.decode([self._before])
            both = self.codec.decode([self._before, token])
            if HALF not in before and both.startswith(before):
                return both[len(before) :]
        return self.codec.decode([token])

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self.text(token)
        return {
            "token": text, "logprob": _finite(logprob), "bytes": None if HALF in text else list(text.encode("utf-8")),
        }  # fmt: skip


def _finite(logprob: float | None) -> float:
    return LEAST if logprob is None else max(logprob, LEAST)
