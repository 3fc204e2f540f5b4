"""From rows to hidden states at the positions that predict a learned token.

Rows are padded on the right and go through the model without an attention mask: attention is causal, so no real token
ever looks at padding. Logits are nobody's business but the caller's, who makes them in chunks.

While a model is trained on a CPU (``model/fast.py``) there is no padding: the rows lie end to end in one, and attention
is told where each begins and ends (``model/documents.py``).

A row of several documents (``data/joined.py``) tells the model where each begins by positions that start anew;
transformers' masks then keep attention within a document. A model that keeps them apart in neither way is found out by
trying, and gets each document in a row of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunewright.data.joined import Joined
from tunewright.example import Rendered
from tunewright.model.documents import ATTENTION, Document, telling

LARGE = 1000.0  # a logit that no cap leaves alone
APART = 0.01  # of what a leak between documents would change, this much may be rounding


@dataclass(frozen=True)
class Batch:
    """ids: (B, T) int64, padded on the right.  predicts: (B, T) bool, True where the *next* token is learned.
    targets: (N,) int64, the learned tokens in the order of ``predicts``.  documents: where each lies, one after the
    other and without what pads a row; mostly a row is one."""

    ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    documents: tuple[Document, ...]

    @property
    def positions(self) -> torch.Tensor | None:
        """(B, T) int64, each token's place in its document, padding counting on; None where each row is one."""
        rows, width = self.ids.shape
        if len(self.documents) == rows:
            return None
        places = torch.arange(width).repeat(rows, 1)
        for row, start, _end in self.documents:
            places[row, start:] = torch.arange(width - start)
        return places.to(self.ids.device)

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
    documents: list[Document] = []
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        own, learn = torch.from_numpy(row.ids.astype("int64")), torch.from_numpy(row.learn[1 : length + 1].copy())
        ids[index, :length] = own[:length]
        predicts[index, : len(learn)] = learn
        targets.append(own[1 : length + 1][learn])
        starts = [start for start in row.starts.tolist() if start < length] if isinstance(row, Joined) else [0]
        documents += [(index, start, end) for start, end in zip(starts, [*starts[1:], length], strict=True)]
    return Batch(ids.to(device), predicts.to(device), torch.cat(targets).to(device), tuple(documents))


def end_to_end(batch: Batch) -> Batch:
    """The same documents in one row without padding; what they predict stays in the same order."""
    inside = torch.zeros_like(batch.predicts)
    documents: list[Document] = []
    for row, start, end in batch.documents:
        inside[row, start:end] = True
        place = documents[-1][2] if documents else 0
        documents.append((0, place, place + end - start))
    return Batch(batch.ids[inside][None], batch.predicts[inside][None], batch.targets, tuple(documents))


def one_document_a_row(batch: Batch) -> Batch:
    """The same documents, each in a row of its own; what they predict stays in the same order."""
    width = max(end - start for _row, start, end in batch.documents)
    ids = batch.ids.new_zeros(len(batch.documents), width)
    predicts = batch.predicts.new_zeros(len(batch.documents), width)
    documents: list[Document] = []
    for index, (row, start, end) in enumerate(batch.documents):
        ids[index, : end - start] = batch.ids[row, start:end]
        predicts[index, : end - start] = batch.predicts[row, start:end]
        documents.append((index, 0, end - start))
    return Batch(ids, predicts, batch.targets, tuple(documents))


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
        self._tried: dict[bool, bool] = {}  # whether documents in one row stay apart: told where they lie, or not

    def __call__(self, batch: Batch) -> torch.Tensor:
        """(N, H) hidden states, or (N, V) logits if ``whole``."""
        if len(batch.documents) > 1 and self._goes_by_documents() and self._keeps_apart(told=True):
            batch = end_to_end(batch)
            with telling(batch.documents):
                return self._all(batch.ids, batch.positions)[batch.predicts]
        if batch.positions is not None and not self._keeps_apart(told=False):
            batch = one_document_a_row(batch)
        return self._all(batch.ids, batch.positions)[batch.predicts]

    def _goes_by_documents(self) -> bool:
        return getattr(self.causal.config, "_attn_implementation", None) == ATTENTION

    def _all(self, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, H) hidden states, or (B, T, V) logits if ``whole``."""
        more = {} if positions is None else {"position_ids": positions}
        if self.whole:
            return self.causal(input_ids=ids, use_cache=False, **more).logits  # type: ignore[no-any-return]
        return self.decoder(input_ids=ids, use_cache=False, **more).last_hidden_state  # type: ignore[misc,no-any-return]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, V) logits in fp32 of a chunk of what ``__call__`` gave."""
        return (states if self.whole else self.head(states.to(self.head.weight.dtype))).float()

    def _keeps_apart(self, told: bool) -> bool:
        if told not in self._tried:
            self._tried[told] = self._try_apart(told)
        return self._tried[told]

    @torch.no_grad()
    def _try_apart(self, told: bool) -> bool:
        """Whether positions that start anew make the model attend within a document only: two documents in one row
        give the states that each gives alone, to what rounding makes of the difference that a leak would be. ``told``:
        with an attention that knows where they lie, and in every layer."""
        device = self.head.weight.device if self.head is not None else next(self.causal.parameters()).device
        first, second = torch.arange(1, 6, device=device)[None], torch.arange(2, 9, device=device)[None]
        together = torch.cat([first, second], dim=1)
        positions = torch.cat([torch.arange(n.shape[1], device=device)[None] for n in (first, second)], dim=1)
        training = self.causal.training
        self.causal.eval()
        try:
            alone = torch.cat([self._all(first), self._all(second)], dim=1).float()
            leaked = (self._all(together).float() - alone).abs().max()
            with telling(((0, 0, 5), (0, 5, 12))) if told else contextlib.nullcontext() as heard:
                apart = (self._all(together, positions).float() - alone).abs().max()
            return bool(apart <= APART * leaked) and not (heard is not None and heard.unheeded)
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
