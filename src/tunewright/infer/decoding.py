"""Attention of a step in which every request goes on by one token, on a CPU.

transformers packs all requests' keys into one row and masks: with eight requests each query is multiplied with the keys
of all eight. Here keys and values are read from the same paged cache as one padded row a request, so that a query meets
its own keys alone. Any other step (prompts being read, windows, biases) is handed back to transformers.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tunewright_decoding"
CHANGES = ("position_bias", "s_aux", "softcap", "sliding_window")  # arguments that make attention more than its product


def use(model: PreTrainedModel) -> None:
    """``model`` attends in this way from now on."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config._attn_implementation = NAME
    model.config.get_text_config()._attn_implementation = NAME


def attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    dropout: float = 0.0, scaling: float | None = None, cache: Any = None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """query: (1, heads, tokens, size); key, value: (1, key heads, tokens, size) of the new tokens."""
    rows = _rows(query, cache, more)
    if rows is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, cache=cache, **more
        )
    places, mask = rows
    new = [one.squeeze(0).transpose(0, 1) for one in (key, value)]  # (requests, key heads, size)
    allocator = cache.layer_to_allocator[module.layer_idx]
    written = more["write_index"][allocator.index]
    keys, values = allocator.update(*new, module.layer_idx, places, written)  # (requests * longest, key heads, size)
    requests = query.shape[2]
    keys, values = (one.view(requests, -1, *one.shape[1:]).transpose(1, 2) for one in (keys, values))
    # The query heads that share a key head go in as its rows: (requests, key heads, heads a key head, size).
    grouped = query.squeeze(0).transpose(0, 1).reshape(requests, keys.shape[1], -1, query.shape[-1])
    out = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scaling)
    return out.reshape(1, requests, query.shape[1], -1), None


def _rows(query: torch.Tensor, cache: Any, more: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Where each request's keys lie, padded to the longest, and what of it is real: (requests * longest,) and
    (requests, 1, 1, longest). None where this is not a step of one token each. Worked out once a step."""
    if cache is None or more.get("max_length_q") != 1 or len(more["read_index"]) != 1:
        return None
    if any(more.get(name) is not None for name in CHANGES):
        return None
    packed = more["read_index"][0]
    if getattr(_step, "packed", None) is not packed:
        [ends] = more["cu_seq_lens_k"].values()
        if packed.numel() != int(ends[-1]) or len(ends) - 1 != query.shape[2]:
            return None
        lengths = ends.diff()
        count = torch.arange(int(lengths.max()))
        real = count < lengths[:, None]  # (requests, longest)
        places = packed[(ends[:-1, None] + count).clamp(max=packed.numel() - 1)]
        places = torch.where(real, places, places[:, :1])
        mask = torch.zeros(real.shape, dtype=query.dtype).masked_fill(~real, torch.finfo(query.dtype).min)
        _step.packed, _step.rows = packed, (places.flatten(), mask[:, None, None, :])
    rows: tuple[torch.Tensor, torch.Tensor] = _step.rows
    return rows


_step = threading.local()  # each engine runs its steps in a thread of its own
