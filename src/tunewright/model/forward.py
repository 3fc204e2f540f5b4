"""From rows to hidden states at the positions that predict a learned token.

Rows are padded on the right and go through the model without an attention mask: attention is causal, so no real token
ever looks at padding. Logits are nobody's business but the caller's, who makes them in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunewright.example import Rendered

LARGE = 1000.0  # a logit that no cap leaves alone


@dataclass(frozen=True)
class Batch:
    """ids: (B, T) int64, padded on the right.  predicts: (B, T) bool, True where the *next* token is learned.
    targets: (N,) int64, the learned tokens in the order of ``predicts``."""

    ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor

    def rows_of_targets(self) -> torch.Tensor:
        """(N,) the row that each target stands in."""
        return self.predicts.nonzero()[:, 0]


def collate(rows: Sequence[Rendered], device: torch.device | str = "cpu") -> Batch:
    """Rows padded on the right. What follows a row's last learned token predicts nothing and is left out, and so is
    that token itself, which nothing has to be predicted from."""
    lengths = [max(1, int(row.learn.nonzero()[0].max(initial=0))) for row in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    predicts = torch.zeros(len(rows), max(lengths), dtype=torch.bool)
    targets: list[torch.Tensor] = []
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        own, learn = torch.from_numpy(row.ids.astype("int64")), torch.from_numpy(row.learn[1 : length + 1].copy())
        ids[index, :length] = own[:length]
        predicts[index, : len(learn)] = learn
        targets.append(own[1 : length + 1][learn])
    return Batch(ids.to(device), predicts.to(device), torch.cat(targets).to(device))


def causal_model(model: nn.Module) -> nn.Module:
    """The model itself, without PEFT's coat."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator,no-any-return]


class HiddenStates:
    """Hidden states at the predicting positions, and the weight that turns them into logits.

    Most causal models are a decoder and one matrix. A few scale or cap their logits on the way (Gemma 2, Granite,
    Cohere); for those ``whole`` is True and the model's own logits are used. Which one it is is found by trying, not
    by a list of names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.causal = causal_model(model)
        self.head = self.causal.get_output_embeddings()  # type: ignore[operator]
        self.decoder = getattr(self.causal, self.causal.base_model_prefix, None)  # type: ignore[arg-type]
        self.whole = not self._plain()

    def __call__(self, batch: Batch) -> torch.Tensor:
        """(N, H) hidden states, or (N, V) logits if ``whole``."""
        if self.whole:
            logits: torch.Tensor = self.causal(input_ids=batch.ids, use_cache=False).logits
            return logits[batch.predicts]
        hidden: torch.Tensor = self.decoder(input_ids=batch.ids, use_cache=False).last_hidden_state  # type: ignore[misc]
        return hidden[batch.predicts]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, V) logits in fp32 of a chunk of what ``__call__`` gave."""
        return (states if self.whole else self.head(states.to(self.head.weight.dtype))).float()

    @torch.no_grad()
    def _plain(self) -> bool:
        """Whether logits are the output matrix times the decoder's last hidden states and nothing else.

        One small pass is watched at both places. What the matrix gives is replaced by a large number on the way, so
        that a cap shows even where the model's own logits are small.
        """
        if self.decoder is None or type(self.head) is not nn.Linear:  # an adapter on the head is more than a matrix
            return False
        seen: dict[str, torch.Tensor] = {}

        def replaced(_head: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
            seen["given"] = given[0]
            return torch.full_like(out, LARGE)

        def watched(_decoder: nn.Module, _given: object, out: Any) -> None:
            seen["hidden"] = out.last_hidden_state

        hooks = [self.head.register_forward_hook(replaced), self.decoder.register_forward_hook(watched)]
        training = self.causal.training
        self.causal.eval()
        try:
            ids = torch.arange(1, 5, device=self.head.weight.device)[None]
            logits = self.causal(input_ids=ids, use_cache=False).logits
            same = "given" in seen and torch.equal(seen["given"].float(), seen["hidden"].float())
            return same and bool((logits == LARGE).all())
        finally:
            self.causal.train(training)
            for hook in hooks:
                hook.remove()
