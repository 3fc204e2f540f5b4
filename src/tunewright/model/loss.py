"""The loss of learned tokens without ever holding all their logits.

The gradient of a cross entropy is known in closed form (softmax minus the wanted distribution), so it is made in the
forward pass, chunk by chunk, while the chunk's logits are there: no second product with the output matrix, and memory
for ``CHUNK`` rows of logits instead of all of them. The idea is that of Liger's and Apple's fused losses, in plain
torch. The wanted distribution is a token for a training row, and the base's own for a replayed row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from tunewright.example import Rendered
from tunewright.model.forward import HiddenStates, collate

CHUNK = 256


@dataclass(frozen=True, slots=True)
class Replayed(Rendered):
    """A row whose learned tokens are held to the base's distribution. teacher: (learned, H) the base's states there.
    pull: how much each of them weighs against a token that is learned."""

    teacher: torch.Tensor
    pull: float = 1.0


class TokenLoss:
    """Rows to their summed loss. states: what of the model reaches its output matrix; causal by default."""

    def __init__(self, model: Any, states: Any = None) -> None:
        self.model = model
        self.states = states or HiddenStates(model)
        head = self.states.head
        self.base_head = head.weight.detach().clone() if head is not None and head.weight.requires_grad else None

    def __call__(self, rows: Sequence[Rendered]) -> torch.Tensor:
        return summed_loss(self.states, rows, self.model.device, self.base_head)


def summed_loss(
    states: HiddenStates,
    rows: Sequence[Rendered],
    device: torch.device | str = "cpu",
    base_head: torch.Tensor | None = None,
) -> torch.Tensor:
    """Loss in nats, summed over the rows' learned tokens. () fp32.

    Cross entropy for training rows; for replayed ones the divergence from the base, times their pull. base_head: (V, H)
    output matrix of the base, where training changes the model's own.
    """
    batch = collate(rows, device)
    reached = states(batch)
    held = torch.tensor([isinstance(row, Replayed) for row in rows], device=device)[batch.rows_of_targets()]  # (N,)
    replayed = [row for row in rows if isinstance(row, Replayed)]
    teacher = torch.cat([row.teacher for row in replayed]).to(device) if replayed else reached.new_empty(0)
    pulls = torch.tensor([row.pull for row in replayed for _token in range(row.learned)], device=device)  # (held,)
    if states.whole:
        if len(teacher) and teacher.shape[1] != reached.shape[1]:  # states of a base without the adapter on its head
            teacher = teacher @ states.head.weight.detach().to(teacher.dtype).T
        return _plain(reached, batch.targets, held, teacher, pulls)
    head = states.head
    bias = getattr(head, "bias", None)
    if base_head is None:
        base_head = head.weight.detach()
    loss: torch.Tensor = _Chunked.apply(
        reached, head.weight, bias, batch.targets, held, teacher, pulls, base_head
    )  # fmt: skip
    return loss


@torch.no_grad()
def divergences(
    states: HiddenStates, rows: Sequence[Replayed], device: torch.device | str = "cpu",
    base_head: torch.Tensor | None = None,
) -> list[float]:
    """How far the model has moved from the base at each row: the divergence (base first) in nats, summed over the row's
    learned tokens. base_head: as in :func:`summed_loss`."""
    batch = collate(rows, device)
    reached, teacher = states(batch), torch.cat([row.teacher for row in rows]).to(device)
    matrix = states.head.weight.detach() if states.head is not None else None
    known = matrix if base_head is None else base_head
    bias = None if states.whole else getattr(states.head, "bias", None)
    owners = batch.rows_of_targets()
    sums = torch.zeros(len(rows), dtype=torch.float64, device=device)
    for start in range(0, len(reached), CHUNK):
        here = slice(start, start + CHUNK)
        if states.whole:
            now, was = reached[here].float().log_softmax(-1), teacher[here]
            if was.shape[1] != now.shape[1] and known is not None:  # states, and an adapter on the output matrix
                was = was @ known.to(was.dtype).T
            was = was.float().log_softmax(-1)
        else:
            assert matrix is not None and known is not None
            now = _log_chances(reached[here], matrix.to(reached.dtype), bias)
            was = _log_chances(teacher[here], known.to(teacher.dtype), bias)
        sums.index_add_(0, owners[here], (was.exp() * (was - now)).sum(dim=1).double())
    return sums.tolist()  # type: ignore[no-any-return]


def _plain(
    logits: torch.Tensor, targets: torch.Tensor, held: torch.Tensor, teacher: torch.Tensor, pulls: torch.Tensor
) -> torch.Tensor:
    """The same, written as one would. Here ``teacher`` are the base's logits."""
    logits = logits.float()
    loss = functional.cross_entropy(logits[~held], targets[~held], reduction="sum")
    if len(teacher):
        divergence = functional.kl_div(
            logits[held].log_softmax(-1), teacher.float().log_softmax(-1), log_target=True, reduction="none"
        )
        loss = loss + (pulls * divergence.sum(dim=1)).sum()
    return loss


class _Chunked(torch.autograd.Function):
    """(hidden (N, H), weight (V, H), bias (V,) or None, targets (N,), held (N,) bool, teacher (held, H),
    pulls (held,), base_head (V, H)) -> () fp32."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor,
        held: torch.Tensor, teacher: torch.Tensor, pulls: torch.Tensor, base_head: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        learns = (hidden.requires_grad, weight.requires_grad, bias is not None and bias.requires_grad)
        matrix = weight.detach().to(hidden.dtype)
        grads = (
            torch.empty_like(hidden) if learns[0] else None,
            torch.zeros_like(weight, dtype=torch.float32) if learns[1] else None,
            torch.zeros_like(bias, dtype=torch.float32) if learns[2] and bias is not None else None,
        )
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        used = 0  # rows of teacher
        for start in range(0, hidden.shape[0], CHUNK):
            here = slice(start, start + CHUNK)
            part, hold = hidden[here], held[here]
            chance = _log_chances(part, matrix, bias)  # (n, V)
            count = int(hold.sum())
            wanted = _log_chances(teacher[used : used + count], base_head.to(teacher.dtype), bias) if count else None
            pull = pulls[used : used + count, None]
            used += count
            tokens = targets[here][~hold]
            free = chance if wanted is None else chance[~hold]
            total -= free.gather(1, tokens[:, None]).sum()
            if wanted is not None:
                known = wanted.exp()
                total += (pull * known * (wanted - chance[hold])).sum()
            if not any(learns):
                continue
            slope = chance.exp_()  # softmax, in place of its logarithm
            places = (~hold).nonzero()[:, 0]
            slope[places, tokens] -= 1
            if wanted is not None:
                slope[hold] = pull * (slope[hold] - known)
            narrow = slope.to(hidden.dtype)
            if grads[0] is not None:
                torch.mm(narrow, matrix, out=grads[0][here])
            if grads[1] is not None:
                grads[1].add_(narrow.T @ part)
            if grads[2] is not None:
                grads[2].add_(slope.sum(dim=0))
        ctx.save_for_backward(*grads)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*(None if grad is None else (grad * outer[0]).to(dtype) for grad, dtype in grads), *[None] * 5)


def _log_chances(hidden: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(n, V) logarithm of the softmax, fp32."""
    logits = (hidden @ matrix.T).float()
    if bias is not None:
        logits += bias
    return logits.sub_(logits.logsumexp(dim=1, keepdim=True))
