"""Prompts of unequal lengths as one tensor, and where each answer ends: the same for every engine that generates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch


def padded(
    prompts: Sequence[Sequence[int]], pad: int, side: Literal["left", "right"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) ids, filled up with ``pad`` on ``side``, and (B, T) with 1 where a prompt's own ids stand."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros_like(ids)
    for index, prompt in enumerate(prompts):
        start = longest - len(prompt) if side == "left" else 0
        here = slice(start, start + len(prompt))
        ids[index, here] = torch.tensor(list(prompt))
        mask[index, here] = 1
    return ids, mask


def until_stop(ids: Sequence[int], stops: Collection[int]) -> tuple[tuple[int, ...], bool]:
    """The ids before the first stop, and whether there was one."""
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    return tuple(ids if end is None else ids[:end]), end is not None
