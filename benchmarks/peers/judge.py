"""What a trained model does on held-out rows, by the same lines for both sides of ``tutorials.py``: one row at a time,
in fp32, without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

Ids = Sequence[int]


@torch.no_grad()
def right(model: Any, rows: Sequence[Ids], wanted: Sequence[int]) -> float:
    """Share of texts for which a classifier's largest logit is the label's."""
    model.eval().float()
    found = [int(model(input_ids=torch.tensor([list(ids)])).logits[0].argmax()) for ids in rows]
    return sum(one == other for one, other in zip(found, wanted, strict=True)) / len(rows)


@torch.no_grad()
def right_tokens(model: Any, prompts: Sequence[Ids], tokens: Sequence[int], wanted: Sequence[int]) -> float:
    """Share of prompts after which the right one of the labels' ``tokens`` is the likeliest of them."""
    model.eval().float()
    found = []
    for ids in prompts:
        last = model(input_ids=torch.tensor([list(ids)])).logits[0, -1]
        found.append(int(last[torch.tensor(list(tokens))].argmax()))
    return sum(one == other for one, other in zip(found, wanted, strict=True)) / len(prompts)


@torch.no_grad()
def surprise(model: Any, pairs: Sequence[tuple[Ids, Ids]], stop: int) -> tuple[float, float]:
    """(nats per token of the answers, nats of the token that should end them) of (prompt, answer) pairs."""
    model.eval().float()
    total, count, ends = 0.0, 0, 0.0
    for prompt, answer in pairs:
        ids = torch.tensor([[*prompt, *answer]])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 :]  # (answer + 1, V)
        each = functional.cross_entropy(logits, torch.tensor([*answer, stop]), reduction="none")
        total, count, ends = total + float(each[:-1].sum()), count + len(answer), ends + float(each[-1])
    return total / count, ends / len(pairs)


@torch.no_grad()
def bleu(model: Any, sources: Sequence[Ids], targets: Sequence[str], decode: Callable[[Any], str]) -> float:
    """BLEU of greedy outputs of at most 64 tokens."""
    from sacrebleu.metrics import BLEU

    model.eval().float()
    said = []
    for ids in sources:
        out = model.generate(input_ids=torch.tensor([list(ids)]), num_beams=1, do_sample=False, max_new_tokens=64)
        said.append(decode(out[0]))
    return float(BLEU().corpus_score(said, [list(targets)]).score)
