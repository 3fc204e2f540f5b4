"""Texts as vectors, from a base that only reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from tunewright.data.basefiles import BaseFiles
from tunewright.data.lengths import micro_batches
from tunewright.data.texts import TextCodec
from tunewright.errors import BaseModelError
from tunewright.infer.batch import in_order, padded
from tunewright.model.hashes import POOLING
from tunewright.model.load import quiet
from tunewright.model.memory import describe
from tunewright.model.source import Base, read_config
from tunewright.text import _

CONTEXT = 512  # tokens, where the base bounds nothing
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "pooling_mode_max_tokens": "max"}


class TextEncoder:
    """codec: its own tokenizer.  size: numbers of a vector.  context: tokens that a text may have.  pooling: how the
    tokens of a text become one vector, as the base's ``1_Pooling`` says it: ``mean``, ``first`` or ``max``.

    Vectors have length one, so that their dot product is the cosine, as users of such endpoints take for granted.
    """

    def __init__(self, model: Any, codec: TextCodec, context: int, pooling: str, pad: int, budget: int = 8192) -> None:
        self.model, self.codec, self.context, self.pooling = model.eval(), codec, context, pooling
        self.size = int(model.config.hidden_size)
        self.pad, self.budget = pad, budget

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """(T,) ids of each text, with the special tokens that the base's tokenizer puts around it."""
        return [row.ids[~row.learn].tolist() for row in self.codec.ask([(text, None) for text in texts])]

    @torch.no_grad()
    def vectors(self, rows: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """(size,) fp32 for each row of ids, in their order; the same whatever rows come together, to rounding."""

        def ask(group: Sequence[int]) -> NDArray[np.float32]:
            ids, mask = padded([rows[index] for index in group], self.pad, "right")
            ids, mask = ids.to(self.model.device), mask.to(self.model.device)
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (B, T, H)
            found: NDArray[np.float32] = _normal(_pooled(states, mask, self.pooling)).cpu().numpy()
            return found

        return in_order(micro_batches([len(row) for row in rows], self.budget), ask)


def open_encoder(base: Base) -> TextEncoder:
    """Raises BaseModelError for a base that cannot be read as vectors, or asks for a pooling that is not known."""
    pooling = pooling_of(base.folder)
    config = read_config(base.folder)
    try:
        with quiet():
            model = AutoModel.from_pretrained(base.folder, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseModelError(
            _("the base cannot be loaded: {why}", why=str(error).splitlines()[0]), where=str(base.folder),
            do=_("fetch it again, or take another one"),
        ) from None  # fmt: skip
    codec = TextCodec(BaseFiles.read(base.folder))
    context = describe(base.folder).max_length or CONTEXT
    return TextEncoder(model, codec, context, pooling, int(config.get("pad_token_id") or 0))


def pooling_of(folder: Path) -> str:
    """The mean where the base says nothing. Raises BaseModelError for what is not known here."""
    try:
        told = json.loads((folder / POOLING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "mean"
    asked = [name for name, on in told.items() if name.startswith("pooling_mode_") and on is True]
    if len(asked) != 1 or asked[0] not in _MODES:
        raise BaseModelError(
            _("the base pools its tokens in a way that is not known here: {what}", what=", ".join(asked) or "?"),
            where=str(folder / POOLING), do=_("take another base"), command="tunewright models",
        )  # fmt: skip
    return _MODES[asked[0]]


def _pooled(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, T, H), (B, T) -> (B, H)"""
    if pooling == "first":
        return states[:, 0]
    there = mask.unsqueeze(-1).bool()
    if pooling == "max":
        return states.masked_fill(~there, -torch.inf).amax(1)
    return states.masked_fill(~there, 0).sum(1) / there.sum(1)


def _normal(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
