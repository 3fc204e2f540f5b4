"""Cross entropy of the learned tokens without ever holding all their logits.

The gradient of a cross entropy is known in closed form (softmax minus one-hot), so it is made in the forward pass,
chunk by chunk, while the chunk's logits are there: no second product with the output matrix, and memory for
``CHUNK`` rows of logits instead of all of them. The idea is that of Liger's and Apple's fused losses, in plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from tunewright.model.forward import Batch, HiddenStates

CHUNK = 256


def summed_loss(states: HiddenStates, batch: Batch) -> torch.Tensor:
    """Cross entropy in nats, summed over the batch's learned tokens. () fp32."""
    hidden = states(batch)
    if states.whole:
        return functional.cross_entropy(hidden.float(), batch.targets, reduction="sum")
    head = states.head
    loss: torch.Tensor = _Chunked.apply(hidden, head.weight, getattr(head, "bias", None), batch.targets)
    return loss


class _Chunked(torch.autograd.Function):
    """(hidden (N, H), weight (V, H), bias (V,) or None, targets (N,)) -> () fp32."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        learns = (hidden.requires_grad, weight.requires_grad, bias is not None and bias.requires_grad)
        matrix = weight.to(hidden.dtype)
        grads = (
            torch.empty_like(hidden) if learns[0] else None,
            torch.zeros_like(weight, dtype=torch.float32) if learns[1] else None,
            torch.zeros_like(bias, dtype=torch.float32) if learns[2] and bias is not None else None,
        )
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK):
            part, wanted = hidden[start : start + CHUNK], targets[start : start + CHUNK, None]
            logits = (part @ matrix.T).float()  # (n, V)
            if bias is not None:
                logits += bias
            norm = logits.logsumexp(dim=1, keepdim=True)
            total += (norm - logits.gather(1, wanted)).sum()
            if not any(learns):
                continue
            slope = logits.sub_(norm).exp_()  # softmax, in place of the logits
            slope.scatter_add_(1, wanted, torch.full_like(norm, -1.0))
            narrow = slope.to(hidden.dtype)
            if grads[0] is not None:
                torch.mm(narrow, matrix, out=grads[0][start : start + CHUNK])
            if grads[1] is not None:
                grads[1] += narrow.T @ part
            if grads[2] is not None:
                grads[2] += slope.sum(dim=0)
        ctx.save_for_backward(*grads)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = outer[0]
        grads = ctx.saved_tensors
        return (*(None if g is None else (g * scale).to(t) for g, t in zip(grads, ctx.dtypes, strict=True)), None)
