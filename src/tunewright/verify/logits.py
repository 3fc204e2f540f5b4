"""What a model says at the places that it learned, before any choice is made: what merge and effect compare."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunewright.data.lengths import micro_batches
from tunewright.example import Rendered
from tunewright.infer.batch import in_order
from tunewright.infer.engine import Progress
from tunewright.infer.open import Opened
from tunewright.model.forward import HiddenStates, collate
from tunewright.model.sequence import EncoderDecoderStates
from tunewright.tasks import LabelTask

PLACES = 256  # logits of a large vocabulary are a megabyte a place
TOKENS = 2048  # of rows that go through the model together


@torch.no_grad()
def logits(opened: Opened, rows: Sequence[Rendered], progress: Progress | None = None) -> torch.Tensor:
    """(N, V) fp32 on the CPU: at learned places, evenly spread where there are more than ``PLACES``; of a model that
    chooses labels (rows, labels). The same places for the same rows, whichever model is asked."""
    model = opened.engine.model
    model.eval()

    def some(group: Sequence[int]) -> list[Rendered]:
        return [rows[index] for index in group]

    if isinstance(opened.task, LabelTask):
        groups = micro_batches([opened.codec.size(row) for row in rows], TOKENS)
        return torch.stack(in_order(groups, lambda group: opened.engine.logits(some(group)).float().cpu(), progress))
    states = EncoderDecoderStates(model) if opened.task.gives == "outputs" else HiddenStates(model)

    def reached(group: Sequence[int]) -> Sequence[torch.Tensor]:
        return states(collate(some(group), model.device)).split([rows[index].learned for index in group])

    every = torch.cat(in_order(micro_batches([row.length for row in rows], TOKENS), reached, progress))
    chosen = torch.linspace(0, len(every) - 1, min(len(every), PLACES)).long().to(every.device)
    found: torch.Tensor = states.logits(every[chosen])
    return found.cpu()
