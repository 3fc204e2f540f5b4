"""How well given tokens are predicted: the same arithmetic for every model that writes tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunewright.data.lengths import micro_batches
from tunewright.example import Rendered
from tunewright.infer.engine import Progress, Score
from tunewright.model.forward import collate

CHUNK = 256  # rows of logits that exist at once


@torch.no_grad()
def scores(
    states: Any, rows: Sequence[Rendered], device: torch.device, token_budget: int, progress: Progress | None = None
) -> list[Score]:
    """Loss and accuracy on the learned tokens of each row, in the order of ``rows``. states: as ``HiddenStates``."""
    found: dict[int, Score] = {}
    for group in micro_batches([row.length for row in rows], token_budget):
        batch = collate([rows[i] for i in group], device)
        reached = states(batch)
        loss = torch.zeros(len(group), dtype=torch.float64)
        right = torch.zeros(len(group), dtype=torch.int64)
        owners = batch.rows_of_targets().cpu()
        for start in range(0, reached.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            logits, targets = states.logits(reached[part]), batch.targets[part]
            each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            loss.index_add_(0, owners[part], each.double().cpu())
            right.index_add_(0, owners[part], (logits.argmax(1) == targets).long().cpu())
        for place, index in enumerate(group):
            found[index] = Score(float(loss[place]), rows[index].learned, int(right[place]))
        if progress:
            progress(len(group))
    return [found[index] for index in range(len(rows))]
