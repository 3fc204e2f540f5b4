"""Frozen weights that several models have in common, in memory once."""

from __future__ import annotations

import threading

import torch
from torch import nn


class Pool:
    """By the hash of a base, its weights as the first model brought them."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[tuple[str, torch.dtype], torch.Tensor]] = {}
        self._lock = threading.Lock()

    def share(self, model: nn.Module, base: str) -> int:
        """Lets each frozen weight of ``model`` be the one that an earlier model on ``base`` has, where the two are the
        same number for number; gives the bytes that were let go."""
        saved = 0
        with self._lock:
            kept = self._kept.setdefault(base, {})
            for name, weight in model.named_parameters():
                if weight.requires_grad or not weight.numel():
                    continue
                key = (_plain(name), weight.dtype)
                other = kept.setdefault(key, weight.data)
                if other is not weight.data and other.shape == weight.shape and torch.equal(other, weight.data):
                    saved += weight.numel() * weight.element_size() * (other.data_ptr() != weight.data_ptr())
                    weight.data = other
        return saved


def _plain(name: str) -> str:
    """The base's own name of a weight, without what PEFT puts around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", ".")
