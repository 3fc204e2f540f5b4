"""What a model says at the places that it learned, before any choice is made: what merge and effect compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tunewright.data.lengths import micro_batches
from tunewright.example import Rendered
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
    if isinstance(opened.task, LabelTask):
        sizes = [opened.codec.size(row) for row in rows]
        return _by_row(sizes, lambda group: opened.engine.logits([rows[i] for i in group]).float().cpu(), progress)
    states = EncoderDecoderStates(model) if opened.task.gives == "outputs" else HiddenStates(model)
    reached: dict[int, torch.Tensor] = {}
    for group in micro_batches([row.length for row in rows], TOKENS):
        some = [rows[i] for i in group]
        parts = states(collate(some, model.device)).split([row.learned for row in some])
        reached.update(zip(group, parts, strict=True))
        if progress:
            progress(len(group))
    every = torch.cat([reached[i] for i in range(len(rows))])
    chosen = torch.linspace(0, len(every) - 1, min(len(every), PLACES)).long().to(every.device)
    found: torch.Tensor = states.logits(every[chosen])
    return found.cpu()


def _by_row(
    sizes: Sequence[int], ask: Callable[[Sequence[int]], torch.Tensor], progress: Progress | None
) -> torch.Tensor:
    found: dict[int, torch.Tensor] = {}
    for group in micro_batches(sizes, TOKENS):
        found.update(zip(group, ask(group), strict=True))
        if progress:
            progress(len(group))
    return torch.stack([found[index] for index in range(len(sizes))])
