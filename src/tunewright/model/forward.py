"""From rows to hidden states at the positions that predict a learned token.

Rows are padded on the right and go through the model without an attention mask: attention is causal, so no real token
ever looks at padding. Logits are nobody's business but the caller's, who makes them in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tunewright.example import Rendered


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
    longest = max(row.length for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    predicts = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : row.length] = torch.from_numpy(row.ids.astype("int64"))
        predicts[index, : row.length - 1] = torch.from_numpy(row.learn[1:].copy())
    targets = ids[:, 1:][predicts[:, :-1]]
    return Batch(ids.to(device), predicts.to(device), targets.to(device))


def causal_model(model: nn.Module) -> nn.Module:
    """The model itself, without PEFT's coat."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator,no-any-return]


class HiddenStates:
    """Hidden states at the predicting positions, and the weight that turns them into logits.

    Most causal models are a decoder and one matrix. A few scale or cap their logits on the way (Gemma 2, Granite,
    Cohere); for those ``whole`` is True and the model's own logits are used. Which one it is is found by trying, not
    by a list of names: both ways must agree on a few tokens.
    """

    def __init__(self, model: nn.Module) -> None:
        self.causal = causal_model(model)
        self.head = self.causal.get_output_embeddings()  # type: ignore[operator]
        self.decoder = getattr(self.causal, self.causal.base_model_prefix, None)  # type: ignore[arg-type]
        self.whole = not self._agrees()

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
    def _agrees(self) -> bool:
        if self.decoder is None or self.head is None:
            return False
        training = self.causal.training
        self.causal.eval()
        try:
            ids = torch.arange(1, 5, device=self.head.weight.device)[None]
            own = self.causal(input_ids=ids, use_cache=False).logits.float()
            hidden = self.decoder(input_ids=ids, use_cache=False).last_hidden_state
            ours = self.head(hidden.to(self.head.weight.dtype)).float()
            return own.shape == ours.shape and torch.allclose(own, ours, rtol=2e-2, atol=2e-2 * float(own.std()))
        finally:
            self.causal.train(training)
