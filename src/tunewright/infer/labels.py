"""The engine of models that choose labels: rows in, a probability for each label out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tunewright.data.codec import Codec
from tunewright.data.lengths import micro_batches
from tunewright.example import Rendered
from tunewright.infer.batch import in_order
from tunewright.infer.engine import Progress
from tunewright.model.labels import LabelLogits


class LabelEngine:
    """logits: what of the model speaks of labels (``model/labels.py``).  token_budget: tokens of rows that go through
    the model together, padding included."""

    def __init__(
        self, model: Any, codec: Codec, logits: LabelLogits, multi_label: bool = False, token_budget: int = 4096
    ) -> None:
        self.model, self.codec, self.logits = model, codec, logits
        self.multi_label, self.token_budget = multi_label, token_budget

    @torch.no_grad()
    def probabilities(self, rows: Sequence[Rendered], progress: Progress | None = None) -> NDArray[np.float64]:
        """(N, L) in the order of ``rows``: each row adds up to 1; with ``multi_label`` each label stands for itself."""
        self.model.eval()

        def chances(group: Sequence[int]) -> NDArray[np.float64]:
            logits = self.logits([rows[index] for index in group]).double()
            found: NDArray[np.float64] = (logits.sigmoid() if self.multi_label else logits.softmax(dim=1)).cpu().numpy()
            return found

        groups = micro_batches([self.codec.size(row) for row in rows], self.token_budget)
        each = in_order(groups, chances, progress)
        return np.stack(each) if each else np.zeros((0, len(getattr(self.codec, "labels", ()))))
