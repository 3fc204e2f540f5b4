"""From rows to hidden states at the positions that predict a learned token.

Rows are padded on the right and go through the model without an attention mask: attention is causal, so no real token
ever looks at padding. Logits are nobody's business but the caller's, who makes them in chunks.

A row of several documents (``data/joined.py``) tells the model where each begins by positions that start anew;
transformers' masks then keep attention within a document. A model whose masks do not is found out by trying, and gets
each document in a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunewright.data.joined import Joined
from tunewright.example import Rendered

LARGE = 1000.0  # a logit that no cap leaves alone
APART = 0.01  # of what a leak between documents would change, this much may be rounding


@dataclass(frozen=True)
class Batch:
    """ids: (B, T) int64, padded on the right.  predicts: (B, T) bool, True where the *next* token is learned.
    targets: (N,) int64, the learned tokens in the order of ``predicts``.  positions: (B, T) int64, each token's place
    in its document; None where each row is one document."""

    ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor | None = None

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
    positions = _positions(rows, ids.shape[1])
    if positions is not None:
        positions = positions.to(device)
    return Batch(ids.to(device), predicts.to(device), torch.cat(targets).to(device), positions)


def _positions(rows: Sequence[Rendered], width: int) -> torch.Tensor | None:
    """(B, T) places that start anew with each document; padding counts on. None if no row holds several."""
    if not any(isinstance(row, Joined) and len(row.starts) > 1 for row in rows):
        return None
    places = torch.arange(width).repeat(len(rows), 1)
    for index, row in enumerate(rows):
        for start in row.starts.tolist() if isinstance(row, Joined) else ():
            places[index, start:] = torch.arange(max(0, width - start))
    return places


def one_document_a_row(batch: Batch) -> Batch:
    """The same documents, each in a row of its own; what they predict stays in the same order."""
    assert batch.positions is not None
    rows, starts = (batch.positions == 0).nonzero(as_tuple=True)
    ends = torch.cat([starts[1:], starts.new_zeros(1)])
    ends[ends == 0] = batch.ids.shape[1]
    width = int((ends - starts).max())
    ids = batch.ids.new_zeros(len(rows), width)
    predicts = batch.predicts.new_zeros(len(rows), width)
    for index, (row, start, end) in enumerate(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)):
        ids[index, : end - start] = batch.ids[row, start:end]
        predicts[index, : end - start] = batch.predicts[row, start:end]
    return Batch(ids, predicts, batch.targets)


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
        self._keeps_apart: bool | None = None  # tried when the first row of several documents comes

    def __call__(self, batch: Batch) -> torch.Tensor:
        """(N, H) hidden states, or (N, V) logits if ``whole``."""
        if batch.positions is not None:
            if self._keeps_apart is None:
                self._keeps_apart = self._tried_apart()
            if not self._keeps_apart:
                batch = one_document_a_row(batch)
        return self._all(batch.ids, batch.positions)[batch.predicts]

    def _all(self, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, H) hidden states, or (B, T, V) logits if ``whole``."""
        more = {} if positions is None else {"position_ids": positions}
        if self.whole:
            return self.causal(input_ids=ids, use_cache=False, **more).logits  # type: ignore[no-any-return]
        return self.decoder(input_ids=ids, use_cache=False, **more).last_hidden_state  # type: ignore[misc,no-any-return]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, V) logits in fp32 of a chunk of what ``__call__`` gave."""
        return (states if self.whole else self.head(states.to(self.head.weight.dtype))).float()

    @torch.no_grad()
    def _tried_apart(self) -> bool:
        """Whether positions that start anew make the model attend within a document only: two documents in one row
        give the states that each gives alone, to what rounding makes of the difference that a leak would be."""
        device = self.head.weight.device if self.head is not None else next(self.causal.parameters()).device
        first, second = torch.arange(1, 6, device=device)[None], torch.arange(2, 9, device=device)[None]
        together = torch.cat([first, second], dim=1)
        positions = torch.cat([torch.arange(n.shape[1], device=device)[None] for n in (first, second)], dim=1)
        training = self.causal.training
        self.causal.eval()
        try:
            alone = torch.cat([self._all(first), self._all(second)], dim=1).float()
            apart = (self._all(together, positions).float() - alone).abs().max()
            leaked = (self._all(together).float() - alone).abs().max()
            return bool(apart <= APART * leaked)
        except (TypeError, ValueError):  # no such argument
            return False
        finally:
            self.causal.train(training)

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
