"""The next token of one answer, chosen in the same way by every engine."""

from __future__ import annotations

import torch

from tunewright.infer.grammar import Grammars, Held
from tunewright.infer.live import Ask

Scored = tuple[float, tuple[tuple[int, float], ...]]

COLDEST = 1e-6  # below it a difference of logits overflows, and nothing but the likeliest is drawn long before


class Sampler:
    """One answer's way of choosing: its temperature, nucleus, seed, grammar and log-probabilities."""

    def __init__(self, ask: Ask, grammars: Grammars | None, device: torch.device | str = "cpu") -> None:
        self.ask = ask
        self.generator: torch.Generator | None = None
        self.held: Held | None = None
        self.scored: list[Scored] = []  # a token each, where they are wanted
        if ask.temperature > 0:
            self.generator = torch.Generator(device)
            self.generator.manual_seed(ask.seed) if ask.seed is not None else self.generator.seed()
        if ask.grammar is not None:
            assert grammars is not None
            self.held = grammars.begin(ask.grammar, ask.stops)

    @property
    def is_plain(self) -> bool:
        """Whether it takes the largest logit and asks nothing else."""
        return self.ask.temperature == 0 and self.ask.top_logprobs is None and self.held is None

    def __call__(self, row: torch.Tensor) -> int:
        """row: (V,) fp32 logits."""
        allowed = row if self.held is None else self.held.only_allowed(row)
        token = choose(allowed, self.ask.temperature, self.ask.top_p, self.generator)
        if self.ask.top_logprobs is not None:
            self.scored.append(_scored(row, token, self.ask.top_logprobs))
        if self.held is not None:
            self.held.took(token)
        return token


def choose(row: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator | None = None) -> int:
    """(V,) -> the next token: the likeliest at temperature 0, else drawn from the nucleus of mass ``top_p``."""
    if temperature == 0:
        return int(row.argmax())
    chances = ((row - row.max()) / max(temperature, COLDEST)).softmax(0)
    if top_p >= 1:
        return int(torch.multinomial(chances, 1, generator=generator))
    chances, order = chances.sort(descending=True)
    keep = max(1, int((chances.cumsum(0) - chances < top_p).sum()))
    return int(order[torch.multinomial(chances[:keep], 1, generator=generator)])


def _scored(row: torch.Tensor, token: int, top: int) -> Scored:
    logprobs = row.log_softmax(0)
    best = logprobs.topk(top) if top else None
    pairs = () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return float(logprobs[token]), pairs
