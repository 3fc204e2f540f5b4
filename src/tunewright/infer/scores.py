"""How well given tokens are predicted: the same arithmetic for every model that writes tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunewright.data.lengths import micro_batches
from tunewright.example import Rendered
from tunewright.infer.batch import in_order
from tunewright.infer.engine import Progress, Score
from tunewright.model.forward import collate

CHUNK = 256  # rows of logits that exist at once


@torch.no_grad()
def scores(
    states: Any, rows: Sequence[Rendered], device: torch.device, token_budget: int, progress: Progress | None = None
) -> list[Score]:
    """Loss and accuracy on the learned tokens of each row, in the order of ``rows``. states: as ``HiddenStates``."""
    groups = micro_batches([row.length for row in rows], token_budget)
    return in_order(groups, lambda group: _scored(states, [rows[index] for index in group], device), progress)


def _scored(states: Any, rows: Sequence[Rendered], device: torch.device) -> list[Score]:
    """Of rows that go through the model together."""
    batch = collate(rows, device)
    reached = states(batch)
    loss = torch.zeros(len(rows), dtype=torch.float64)
    right = torch.zeros(len(rows), dtype=torch.int64)
    owners = batch.rows_of_targets().cpu()
    for start in range(0, reached.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        logits, targets = states.logits(reached[part]), batch.targets[part]
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        loss.index_add_(0, owners[part], each.double().cpu())
        right.index_add_(0, owners[part], (logits.argmax(1) == targets).long().cpu())
    return [Score(float(one), row.learned, int(hits)) for row, one, hits in zip(rows, loss, right, strict=True)]
