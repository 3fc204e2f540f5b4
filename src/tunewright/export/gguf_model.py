"""A model of transformers as the tensors and numbers of a GGUF file: Llama, Qwen2 and Qwen3.

The names are those of the ``gguf`` package's own table. Llama's rows of query and key are put into another order,
because llama.cpp turns neighbouring pairs of numbers by a token's position, transformers a number of the first half
with one of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Packing
from numpy.typing import NDArray

from tunewright.errors import RunError
from tunewright.export.vocabulary import Vocabulary
from tunewright.text import _

Type = Literal["f16", "q8_0", "q5_0", "q4_0", "q4_1"]
Written = dict[str, tuple[Packing, list[int]]]
BLOCK = 32  # numbers that share a scale, in each of these types

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
PACKINGS: dict[Type, tuple[Packing, gguf.LlamaFileType]] = {
    "f16": (Packing.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Packing.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q5_0": (Packing.Q5_0, gguf.LlamaFileType.MOSTLY_Q5_0),
    "q4_0": (Packing.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_1": (Packing.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
}
# Of the packings below eight bits, these matrices keep eight: the embedding and the output, which are read at every
# token, and the values and the way back from the hidden layer, whose errors nothing evens out. On the embedded base
# it brings the divergence of four bits from 0.35 to 0.13 nats (docs/export.md).
WIDER = ("token_embd", "output", "attn_v", "ffn_down")
BITS = {Packing.F16: 16.0, Packing.Q8_0: 8.5, Packing.Q5_0: 5.5, Packing.Q4_1: 5.0, Packing.Q4_0: 4.5}


@dataclass(frozen=True)
class Tensor:
    """name: GGUF's.  weight: as the model has it.  turned: heads whose rows are put into another order, 0 for none."""

    name: str
    weight: torch.Tensor
    packing: Packing
    turned: int = 0

    @property
    def bytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.packing]
        return self.weight.numel() // block * size

    def packed(self) -> NDArray[Any]:
        weight = self.weight.detach().float().cpu()
        if self.turned:
            weight = _turned(weight, self.turned)
        found: NDArray[Any] = gguf.quants.quantize(np.ascontiguousarray(weight.numpy()), self.packing)
        return found


def require(config: Any, where: str) -> None:
    """Raises RunError unless llama.cpp computes what a model of ``config`` does, and we know how to say it."""
    kind = config.model_type
    problem = None
    if kind not in ARCHITECTURES:
        problem = _("GGUF export knows {names}, and this base is {kind}", names=", ".join(ARCHITECTURES), kind=kind)
    elif config.hidden_act != "silu":
        problem = _("the base's activation {name!r} is none that llama.cpp has for it", name=config.hidden_act)
    elif getattr(config, "use_sliding_window", False):
        problem = _("the base looks back only so far (sliding window), which GGUF export does not know")
    elif _rope(config).get("partial_rotary_factor", 1.0) != 1.0:
        problem = _("the base turns only a part of each head by a token's position, which GGUF export does not know")
    elif (rope := _rope(config).get("rope_type", "default")) not in ROPES[kind]:
        problem = _("the base scales positions by {name!r}, which GGUF export does not know for {kind}",
                    name=rope, kind=kind)  # fmt: skip
    if problem:
        raise RunError(problem, where=where, do=_("export the run as merged"), command="tunewright export --to merged")


# llama.cpp reads a factor for each frequency from the file of a Llama, and of no other of these.
ROPES = {"llama": ("default", "linear", "llama3"), "qwen2": ("default",), "qwen3": ("default",)}


def scales_positions(config: Any) -> bool:
    """Whether positions are scaled, which transformers does not read from a GGUF file."""
    return bool(_rope(config).get("rope_type", "default") != "default")


def tensors(model: Any, kind: Type) -> list[Tensor]:
    """All weights of a causal model in the order in which they are written; tied ones once."""
    config = model.config
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    turns = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found = []
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise RunError(_("the base has a weight that GGUF export does not know: {name}", name=name),
                           do=_("export the run as merged"), command="tunewright export --to merged")  # fmt: skip
        turned = turns.get(known.split(".")[-2], 0) if config.model_type == "llama" else 0
        found.append(Tensor(known, weight, _packing(known, weight, kind), turned))
    if scales_positions(config):
        found.append(Tensor("rope_freqs.weight", _frequency_factors(model), Packing.F32))
    return found


def parameter_bytes(parameters: int, kind: Type) -> int:
    """Of so many parameters, foreseen: at most, as if half of a narrow file were of the wider kind."""
    bits = BITS[PACKINGS[kind][0]]
    return int(parameters * max(bits, (bits + BITS[Packing.Q8_0]) / 2) / 8 * 1.02)


def write(
    path: Path, model: Any, kind: Type, vocabulary: Vocabulary, about: dict[str, str], wrote: Callable[[int], None]
) -> Written:
    """The file, tensor by tensor, so that only one of them is in memory a second time; packing and shape of each.

    about: ``name``, ``license``… of the general part.  wrote: called with 1 for each tensor.
    """
    config = model.config
    every = tensors(model, kind)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type]])
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        for name, text in about.items():
            writer.add_string(f"general.{name}", text)
        _numbers(writer, config)
        writer.add_file_type(PACKINGS[kind][1])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        vocabulary.write(writer)
        for tensor in every:
            shape = gguf.quant_shape_to_byte_shape(tensor.weight.shape, tensor.packing)
            dtype = {Packing.F32: np.float32, Packing.F16: np.float16}.get(tensor.packing, np.uint8)
            of_bytes = tensor.packing not in (Packing.F32, Packing.F16)
            writer.add_tensor_info(
                tensor.name, shape if of_bytes else tuple(tensor.weight.shape), np.dtype(dtype), tensor.bytes,
                raw_dtype=tensor.packing if of_bytes else None,
            )  # fmt: skip
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for packed in _packed(every, wrote):
            writer.write_tensor_data(packed)
    finally:
        writer.close()
    return {tensor.name: (tensor.packing, list(tensor.weight.shape)) for tensor in every}


def _packed(every: list[Tensor], wrote: Callable[[int], None]) -> Iterator[NDArray[Any]]:
    for tensor in every:
        yield tensor.packed()
        wrote(1)


def _numbers(writer: gguf.GGUFWriter, config: Any) -> None:
    """What the model is shaped like."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))


def _packing(name: str, weight: torch.Tensor, kind: Type) -> Packing:
    """Vectors stay in fp32, as llama.cpp wants them; a matrix whose rows are no whole number of blocks in fp16."""
    if weight.dim() < 2:
        return Packing.F32
    wanted = PACKINGS[kind][0]
    if BITS[wanted] < BITS[Packing.Q8_0] and name.split(".")[-2] in WIDER:
        wanted = Packing.Q8_0
    return wanted if wanted == Packing.F16 or weight.shape[-1] % BLOCK == 0 else Packing.F16


def _turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """(heads · 2 · half, …) -> the two halves of each head interleaved, row by row.

    >>> _turned(torch.arange(8.0), 2).tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def _rope(config: Any) -> dict[str, Any]:
    """How positions turn a head. Older versions keep the base frequency beside it."""
    stored = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    return {"rope_theta": getattr(config, "rope_theta", 10_000.0)} | stored


def _frequency_factors(model: Any) -> torch.Tensor:
    """(half a head,) by how much each frequency is divided: asked of the model itself, whatever its rule is."""
    inverse = model.model.rotary_emb.inv_freq.detach().float().cpu()
    plain = 1.0 / float(_rope(model.config)["rope_theta"]) ** (torch.arange(len(inverse)).float() / len(inverse))
    return plain / inverse
