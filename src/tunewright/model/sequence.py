"""From rows of source and target to the decoder's states at the positions that predict a target token.

A row is the source's ids followed by the target's, which alone are learned (``tasks/seq2seq.py``). The source goes
through the encoder once, with a mask over its padding; the decoder reads the target moved one place to the right, by
the model's own rule, because it differs: T5 begins with padding, BART with the end token, mBART with the language.
Padding of the target needs no mask: attention in the decoder is causal, and nothing is learned there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tunewright.example import Rendered
from tunewright.model.forward import Batch, causal_model

LARGE = 1000.0  # what the output matrix is made to say in the trial; no cap and no scale leaves it alone
IGNORED = -100  # how transformers marks a place without a target


def split(row: Rendered) -> tuple[list[int], list[int]]:
    """(source ids, target ids) of a row."""
    border = int(row.learn.argmax()) if row.learn.any() else row.length
    return row.ids[:border].tolist(), row.ids[border:].tolist()


@dataclass(frozen=True)
class Output:
    """An output matrix with a bias that the model keeps elsewhere (BART's ``final_logits_bias``)."""

    matrix: nn.Linear
    bias: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        return self.matrix.weight

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, self.weight) + self.bias


class EncoderDecoderStates:
    """What reaches the output matrix at the predicting positions; of the shape of ``forward.HiddenStates``.

    The whole model runs, and its output matrix is handed nothing: so T5's scale of tied embeddings, or whatever else
    stands before the matrix, is in the states, and no logits are made that nobody learns from. What stands behind the
    matrix is found by trying: nothing, a bias (then ``head`` has it), or more, in which case ``whole`` is True and
    the model's own logits are used.
    """

    def __init__(self, model: nn.Module) -> None:
        self.causal = causal_model(model)
        matrix = self.causal.get_output_embeddings()  # type: ignore[operator]
        # An adapter on the matrix is more than a matrix.
        bias = self._behind(matrix) if type(matrix) is nn.Linear else None
        self.whole = bias is None
        self.head: Any = matrix
        if bias is not None and bool(bias.any()):
            self.head = Output(matrix, bias if matrix.bias is None else bias + matrix.bias.detach())
        self._matrix = matrix

    def __call__(self, batch: Batch) -> torch.Tensor:
        """(N, H) states, or (N, V) logits if ``whole``, in the order of ``batch.targets``."""
        inputs, places = self._inputs(batch)
        if self.whole:
            return self.causal(**inputs, use_cache=False).logits[places]
        seen: list[torch.Tensor] = []

        def keep(_matrix: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            seen.append(given[0])
            return (given[0][:, :0],)

        hook = self._matrix.register_forward_pre_hook(keep)
        try:
            self.causal(**inputs, use_cache=False)
        finally:
            hook.remove()
        return seen[0][places]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, V) logits in fp32 of a chunk of what ``__call__`` gave."""
        return (states if self.whole else self.head(states.to(self.head.weight.dtype))).float()

    def _inputs(self, batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Arguments of the model, and (B, target length) True where a target token is predicted."""
        rows, device = batch.ids.shape[0], batch.ids.device
        sources = batch.predicts.int().argmax(dim=1) + 1  # (B,) the first prediction is made from the source's end
        counts = batch.predicts.sum(dim=1)  # (B,) target tokens
        mask = torch.arange(int(sources.max()), device=device)[None] < sources[:, None]
        source = batch.ids[:, : mask.shape[1]].masked_fill(~mask, self._pad())
        places = torch.arange(int(counts.max()), device=device)[None] < counts[:, None]
        labels = torch.full((rows, places.shape[1]), IGNORED, device=device)
        labels[places] = batch.targets
        inputs = {"input_ids": source, "attention_mask": mask.long(), "decoder_input_ids": self._shifted(labels)}
        return inputs, places

    def _shifted(self, labels: torch.Tensor) -> torch.Tensor:
        own = getattr(self.causal, "prepare_decoder_input_ids_from_labels", None)
        if own is not None:
            return own(labels)
        shifted = labels.roll(1, dims=1)  # M2M100 has the rule, but no method for it
        shifted[:, 0] = self.causal.config.decoder_start_token_id  # type: ignore[union-attr]
        return shifted.masked_fill(shifted == IGNORED, self._pad())

    def _pad(self) -> int:
        return int(self.causal.config.pad_token_id or 0)  # type: ignore[union-attr]

    @torch.no_grad()
    def _behind(self, matrix: nn.Linear) -> torch.Tensor | None:
        """(V,) what is added behind the output matrix, None where something else happens to its logits as well.

        The matrix is made to say 0, and then ``LARGE``, whatever it is given.
        """
        said: list[torch.Tensor] = []
        training = self.causal.training
        self.causal.eval()
        try:
            for value in (0.0, LARGE):
                hook = matrix.register_forward_hook(lambda _m, _given, out, v=value: torch.full_like(out, v))
                try:
                    ids = torch.arange(1, 5, device=matrix.weight.device)[None]
                    out = self.causal(input_ids=ids, decoder_input_ids=ids, use_cache=False)
                    said.append(out.logits[0].float())  # (4, V)
                finally:
                    hook.remove()
        finally:
            self.causal.train(training)
        bias, large = said
        same = bool((bias == bias[:1]).all()) and bool(((large - bias - LARGE).abs() < 0.01 * LARGE).all())
        return bias[0] if same else None


def lengths(rows: Sequence[Rendered]) -> list[int]:
    """The longer of each row's two sides: what its place in a batch costs."""
    return [max(len(source), len(target)) for source, target in map(split, rows)]
