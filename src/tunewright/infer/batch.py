"""What goes through a model together, prompts of unequal lengths as one tensor, and where each answer ends: the same
for every engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, TypeVar

import torch

from tunewright.infer.engine import Progress

T = TypeVar("T")


def in_order(
    groups: Iterable[Sequence[int]], ask: Callable[[Sequence[int]], Iterable[T]], progress: Progress | None = None
) -> list[T]:
    """What ``ask`` gives for each number of a group, in the order of the numbers. groups: all from 0 on, each once."""
    found: dict[int, T] = {}
    for group in groups:
        found.update(zip(group, ask(group), strict=True))
        if progress:
            progress(len(group))
    return [found[number] for number in range(len(found))]


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
