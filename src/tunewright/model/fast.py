"""Parts of a decoder layer done with less work on a CPU, while a model is trained.

Half of a training step on a CPU is not matrix products: it is softmax, norms and activations that read and write big
tensors, copies to fp32 and back, and an attention backward pass that is not made for short rows. Each part here does
the same arithmetic as the model's own in fewer passes, and keeps less for the backward pass.

No model is trusted for its name: a norm or an activation is replaced only after both gave the same numbers on a trial,
an adapter's layer only where it is PEFT's plain case, and attention hands everything but plain causal rows back to
transformers. Several documents in one row, told to it by ``model/documents.py``, cost it no more than as many rows.
All parts are taken out again when training ends, so that what is measured and served is transformers' own code. On a
GPU nothing is replaced; its kernels are good.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLayer
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunewright.model.documents import ATTENTION, Document, mask, told
from tunewright.model.forward import causal_model

CHANGES = ("position_bias", "s_aux", "softcap")  # arguments that make attention more than its plain product
BLOCK = 128  # queries at once: their scores stay in a core's cache
KEEP_UP_TO = 1024  # tokens of a row whose attention weights are kept for the backward pass instead of made again


def give_back_memory() -> None:
    """Hand freed memory back to the system. Steps of ever other lengths leave glibc's heap full of holes that the next
    one does not fit into; where there is no glibc there is nothing to do."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def kernels(model: nn.Module) -> Iterator[tuple[str, ...]]:
    """Within the context ``model`` trains with the parts below; yields the names of those that were put in place."""
    causal = causal_model(model)
    if next(causal.parameters()).device.type != "cpu":
        yield ()
        return
    replaced: list[nn.Module] = []
    names: set[str] = set()
    for module in model.modules():
        for name, part, fits in (("norm", _norm, _is_norm), ("swiglu", _swiglu, _is_swiglu), ("lora", _lora, _is_lora)):
            if fits(module) and (name == "lora" or _same(module, partial(part, module))):
                module.forward = partial(part, module)  # type: ignore[method-assign]
                replaced.append(module)
                names.add(name)
    before = causal.config._attn_implementation  # type: ignore[union-attr]
    if before == "sdpa":
        causal.set_attn_implementation(ATTENTION)  # type: ignore[operator]
        names.add("attention")
    try:
        yield tuple(sorted(names))
    finally:
        for module in replaced:
            del module.forward  # the class's own shows again
        if before == "sdpa":
            causal.set_attn_implementation(before)  # type: ignore[operator]


@torch.no_grad()
def _same(module: nn.Module, part: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether ``part`` and the module itself give the same on a trial of three rows."""
    weight = next(module.parameters())
    x = torch.linspace(-2, 2, 3 * weight.shape[-1]).reshape(1, 3, -1).to(weight.dtype)
    own, ours = module(x).float(), part(x).float()
    coarse = weight.dtype == torch.bfloat16
    absolute = 1e-6 + (1e-2 * float(own.std()) if coarse else 0.0)
    return bool(torch.allclose(own, ours, rtol=2e-2 if coarse else 1e-5, atol=absolute))


# ---- RMS norm --------------------------------------------------------------------------------------------------


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _Norm.apply(x, module.weight, module.variance_epsilon)
    return result


class _Norm(torch.autograd.Function):
    """weight * x / rms(x), x: (..., H). Keeps the normed x in its own dtype instead of three copies in fp32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        normed = (wide * scale).to(x.dtype)
        ctx.save_for_backward(normed, scale, weight)
        return weight * normed

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        normed, scale, weight = ctx.saved_tensors
        slope = outer[0] * weight
        along = (slope * normed).sum(-1, keepdim=True, dtype=torch.float32).div_(-normed.shape[-1])
        grad = torch.addcmul(slope, normed, along.to(normed.dtype)).mul_(scale.to(normed.dtype))
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (outer[0] * normed).flatten(0, -2).sum(0, dtype=torch.float32).to(weight.dtype)
        return grad, of_weight, None


# ---- gated activation --------------------------------------------------------------------------------------------


def _is_swiglu(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")) and (
        type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    )


def _swiglu(module: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = module.down_proj(_SwiGLU.apply(module.gate_proj(x), module.up_proj(x)))
    return result


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up. Keeps its two inputs and nothing else."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        of_up = functional.silu(gate).mul_(outer[0])
        return torch.ops.aten.silu_backward(outer[0] * up, gate), of_up


# ---- linear layer with an adapter ----------------------------------------------------------------------------------


def _is_lora(module: nn.Module) -> bool:
    """PEFT's plain case: one adapter, no dropout, none of its variants."""
    return (
        type(module) is LoraLayer
        and type(module.base_layer) is nn.Linear
        and module.active_adapters == ["default"]
        and isinstance(module.lora_dropout["default"], nn.Identity)
        and not module.merged
        and not module.fan_in_fan_out
        and not module.lora_bias["default"]
        and not module.lora_variant
    )


def _lora(module: Any, x: torch.Tensor) -> torch.Tensor:
    base = module.base_layer
    down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
    result: torch.Tensor = _Lora.apply(x, base.weight, base.bias, down, up, module.scaling["default"])
    return result


class _Lora(torch.autograd.Function):
    """x W' + b + s (x A') B', x: (..., in). The adapter's products run in x's dtype, added into the base's output in
    place; PEFT casts x to fp32 and back for them."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, down: torch.Tensor,
        up: torch.Tensor, scale: float,
    ) -> torch.Tensor:  # fmt: skip
        flat, down, up = x.reshape(-1, x.shape[-1]), down.to(x.dtype), up.to(x.dtype)
        inner = flat @ down.T  # (N, r)
        out = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)
        out.addmm_(inner, up.T, alpha=scale)
        ctx.save_for_backward(flat, inner, weight, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, weight, down, up = ctx.saved_tensors
        slope = outer[0].reshape(-1, outer[0].shape[-1])
        inner_slope = (slope @ up).mul_(ctx.scale)
        grad = None
        if ctx.needs_input_grad[0]:
            grad = (slope @ weight).addmm_(inner_slope, down).view(ctx.shape)
        return grad, None, None, (inner_slope.T @ flat).float(), (slope.T @ inner).float().mul_(ctx.scale), None


# ---- attention -----------------------------------------------------------------------------------------------------


def _attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention of right-padded rows, or within the documents that rows consist of; anything else (a mask, a
    window, a cache) is transformers' business.

    query: (B, heads, T, D); key, value: (B, key heads, T, D). Returns (B, T, heads, D).
    """
    known = told()
    plain = attention_mask is None and not dropout and query.shape[2] == key.shape[2] and query.shape[2] > 1
    plain = plain and all(more.get(name) is None for name in CHANGES)
    if not plain or not getattr(module, "is_causal", True) or more.get("is_causal") is False:
        if known is not None:
            known.unheeded = True
            if attention_mask is None:
                attention_mask = mask(known.documents, query.shape[2])
        out, _none = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return out, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    with torch.autocast("cpu", enabled=False):
        documents = [(row, 0, query.shape[2]) for row in range(len(query))] if known is None else known.documents
        result: torch.Tensor = _Causal.apply(query.to(dtype), key.to(dtype), value.to(dtype), scale, documents)
    return result, None


def _mask(*args: Any, local_size: int | None = None, **more: Any) -> torch.Tensor | None:
    """What transformers asks for before the layers. Documents that are told need none, unless one is longer than the
    window of a layer."""
    if (known := told()) is not None:
        longest = max(end - start for _row, start, end in known.documents)
        if local_size is None or longest <= local_size:
            return None
    return sdpa_mask(*args, local_size=local_size, **more)


class _Causal(torch.autograd.Function):
    """Document by document, block of queries by block of queries; each block sees only the keys of its document up to
    its own end. documents: (row, start, end) of all places."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float,
        documents: Sequence[Document],
    ) -> torch.Tensor:  # fmt: skip
        rows, heads, length, width = query.shape
        out = query.new_empty(rows, length, heads, width)
        weights: list[torch.Tensor] = []
        for row, first, last in documents:
            for start, end in _blocks(first, last):
                chance = _weights(_grouped(query, key, row, start, end), key[row, :, first:end], end - start, scale)
                part = torch.bmm(chance, value[row, :, first:end])  # (K, G * n, D)
                out[row, start:end] = part.view(heads, end - start, width).transpose(0, 1)
                if last - first <= KEEP_UP_TO:
                    weights.append(chance)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.scale, ctx.documents = scale, documents
        return out

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        kept = iter(weights)
        slope = outer[0].transpose(1, 2)  # (B, heads, T, D)
        grads = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for row, first, last in ctx.documents:
            for start, end in _blocks(first, last):
                part, seen = _grouped(query, key, row, start, end), key[row, :, first:end]
                known = last - first <= KEEP_UP_TO
                chance = next(kept) if known else _weights(part, seen, end - start, ctx.scale)
                out = _grouped(slope, key, row, start, end)
                grads[2][row, :, first:end].baddbmm_(chance.transpose(1, 2), out)
                of_chance = torch.bmm(out, value[row, :, first:end].transpose(1, 2))
                of_score = torch._softmax_backward_data(of_chance, chance, -1, chance.dtype).mul_(ctx.scale)
                of_query = torch.bmm(of_score, seen)
                grads[0][row, :, start:end] = of_query.view(query.shape[1], end - start, -1)
                grads[1][row, :, first:end].baddbmm_(of_score.transpose(1, 2), part)
        return (*grads, None, None)


def _blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, BLOCK):
        yield start, min(last, start + BLOCK)


def _grouped(x: torch.Tensor, key: torch.Tensor, row: int, start: int, end: int) -> torch.Tensor:
    """(K, G * n, D): the block's queries of all heads that share a key head, one below the other."""
    return x[row, :, start:end].reshape(key.shape[1], -1, x.shape[-1])


def _weights(part: torch.Tensor, key: torch.Tensor, queries: int, scale: float) -> torch.Tensor:
    """(K, G * n, m) attention weights of ``queries`` positions, the last of which is the key's last."""
    mask = _future(queries, key.shape[1], part.shape[1] // queries, part.dtype)
    return torch.baddbmm(mask, part, key.transpose(1, 2), alpha=scale).softmax(-1)


@lru_cache(maxsize=64)
def _future(queries: int, keys: int, groups: int, dtype: torch.dtype) -> torch.Tensor:
    """(G * n, m): minus infinity where a key lies after its query."""
    mask = torch.full((queries, keys), -torch.inf).triu(keys - queries + 1)
    return mask.repeat(groups, 1).to(dtype)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)
