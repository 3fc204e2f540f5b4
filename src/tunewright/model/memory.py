"""What a training will need in memory, foreseen from a base's headers alone. No torch, no weights.

Shapes come from the safetensors headers, which are exact, or from config.json where the weights are not here yet.
Activations are what the backward pass keeps, counted per layer and token for a pre-norm decoder:

    norms       2 x hidden x 4 bytes             both norms compute in fp32, whatever the precision
    attention   (2 x queries + 2 x keys) x b     query, key, value and output; plus 4 bytes a head (log-sum-exp)
    mlp         3 x intermediate x b             gate, its activation, up
    trained     the input of each trained linear layer x b (in fp32 the inputs that layers share count once),
                rank x (b + 4) for an adapter; 2 x hidden x 4 more where the norms are trained

with b = 2 bytes in bf16, 4 in fp32; times the layers that the backward pass goes through, and one layer more for what
is in flight. Checked against the tensors that autograd really keeps (tests/model/test_memory.py): within 5 % for lora
and full; for freeze too high by up to a third of one layer, because the first trained layer needs no input gradient.

The parts of ``model/fast.py``, with which a usual decoder is trained on a CPU, keep less, and one thing more:

    norms       hidden x b + 4                   each of both
    attention   (queries + 2 x keys) x b         and heads x (length + 128) / 2 x b, its weights, in rows up to 1,024
    mlp         2 x intermediate x b             gate and up
    trained     the input of each trained linear layer x b, those that layers share once; rank x b for an adapter

In an encoder-decoder a token goes through one of the two stacks, and a target's looks at the source besides; both are
taken to read as much. For lora and full it foresees 15 to 40 % too much there. T5 adds distances to every weight of
attention, so that these are kept too: heads x length x length x b a layer, which is not in here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from tunewright.errors import BaseModelError
from tunewright.model import hashes
from tunewright.model.shapes import shapes as known_shapes
from tunewright.model.source import read_config
from tunewright.recipe.schema import Recipe
from tunewright.text import _

# Resident memory of Python with torch, transformers and peft imported, and of a CUDA context.
LIBRARIES = {"cpu": 480_000_000, "cuda": 550_000_000}
# What a heap holds beyond what is in use, as a share of the tensors that come and go: micro-batches of ever other
# lengths leave holes. Measured on the demo (benchmarks/plan.py); CUDA's allocator reports its own in `activations`.
HEAP = {"cpu": 0.4, "cuda": 0.0}
# `model/fast.py` goes through a row's queries in blocks, and keeps their attention weights in rows up to this long.
BLOCK, KEEP_UP_TO = 128, 1024
# AdamW keeps two fp32 moments.
MOMENTS = 8
# A chunk of logits exists as computed, in fp32, and as its gradient.
LOGIT_BYTES = {"bf16": 2 + 4 + 4, "fp32": 4 + 4}
WIDTH = {"bf16": 2, "fp32": 4}

Precision = Literal["bf16", "fp32"]
EMBEDDINGS = re.compile(r"(embed|wte|wpe|\bshared\b|relative_attention_bias)")
HEADS = re.compile(r"(^|\.)(lm_head|embed_out|output_projection)\.")
BUFFERS = re.compile(r"(\.attn\.bias|masked_bias|rotary_emb\.inv_freq|position_ids|final_logits_bias)$")
# What an encoder guesses hidden words with: it is not loaded where it learns labels.
GUESSING = re.compile(r"^(cls|lm_head|vocab_\w+|generator_\w+|discriminator_\w+)\.")
SHARED = re.compile(r"(^|\.)(encoder|decoder)\.embed_tokens\.weight$")  # a second copy in old files
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d+)\.")
OF_ENCODER = re.compile(r"^(model\.)?encoder\.(?!layer\.)")  # of an encoder-decoder; BERT's is all there is
# Positions are counted from behind the pad token, so that two of them can never be used.
OFFSET = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "roberta-prelayernorm")


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a base without its weights. shapes: of every parameter, tied ones once.

    layers: of the decoder, or of the only stack there is.  encoder_layers: of an encoder-decoder's encoder, else 0.
    max_length: tokens the base can hold, None where nothing bounds them.
    """

    architecture: str
    layers: int
    encoder_layers: int
    hidden: int
    intermediate: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    max_length: int | None
    tied: bool
    weight_bytes: int
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)

    @property
    def gated(self) -> bool:
        """Whether two products meet in the feed-forward part, so that it keeps three tensors and not two. GPT-2's has
        one, but its activation is written out in several operations."""
        return not any(name.endswith((".fc1.weight", ".wi.weight", ".intermediate.dense.weight", ".lin1.weight"))
                       for name in self.shapes)  # fmt: skip

    @property
    def parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def usual(self) -> bool:
        """Whether the parts of ``model/fast.py`` fit: a decoder with RMS norms and a gated feed-forward part."""
        gated = any(name.endswith(".gate_proj.weight") for name in self.shapes)
        return gated and not self.encoder_layers and not _has_biased_norms(self)

    @property
    def linear_weights(self) -> int:
        """Of these layers together: multiplications a token takes on its way through them."""
        return sum(map(prod, self.linear().values()))

    def linear(self) -> dict[str, tuple[int, int]]:
        """(in + out) sizes of the layers that an adapter can sit on, by module name."""
        return {
            name.removesuffix(".weight"): (shape[0], shape[1])
            for name, shape in self.shapes.items()
            if len(shape) == 2 and name.endswith(".weight") and not EMBEDDINGS.search(name) and not HEADS.search(name)
        }


@dataclass(frozen=True)
class Memory:
    """Bytes. ``total`` is the foreseen peak of the process (on a GPU: of the device)."""

    weights: int
    trainable: int
    optimizer: int
    activations: int
    logits: int
    heap: int
    libraries: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}


def describe(folder: Path) -> ModelFacts:
    """Facts about a base's folder. Reads config.json and, where there are weights, their headers."""
    config = read_config(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    stored = 0
    for path in sorted(p for p in folder.glob("*.safetensors") if hashes.is_base_file(p.name)):
        try:
            header = hashes.safetensors_header(path)
        except ValueError as why:
            raise BaseModelError(_("{file} is damaged: {why}", file=path.name, why=why), where=str(path)) from None
        shapes |= {name: tuple(values["shape"]) for name, values in header.items()}
        stored += path.stat().st_size
    return from_config(config, shapes, stored)


def from_config(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]] | None = None, stored: int = 0
) -> ModelFacts:
    """Facts from config.json. Without ``shapes`` those of its architecture (``model/shapes.py``)."""
    text = config.get("text_config") or config  # models that also see keep the language part apart

    def get(*names: str, default: int = 0) -> int:
        return next((int(text[n]) for n in names if text.get(n) is not None), default)

    both = bool(config.get("is_encoder_decoder", "encoder_layers" in config or "d_kv" in config))
    hidden = get("hidden_size", "n_embd", "d_model", "dim")
    heads = get("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads", default=1)
    head = get("head_dim", "d_kv", default=hidden // heads)
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", both or _is_gpt2(config))))
    own = ("num_decoder_layers", "decoder_layers", "num_layers") if both else ("num_hidden_layers", "n_layer")
    size = {
        "layers": get(*own, "num_hidden_layers", "n_layers"), "hidden": hidden, "heads": heads, "queries": head * heads,
        "encoder_layers": get("encoder_layers", "num_layers", "num_hidden_layers") if both else 0,
        "intermediate": get(
            "intermediate_size", "n_inner", "decoder_ffn_dim", "ffn_dim", "d_ff", "hidden_dim", default=4 * hidden
        ),
        "keys": head * get("num_key_value_heads", default=heads),
        "vocabulary": get("decoder_vocab_size", "vocab_size") if both else get("vocab_size"),
    }  # fmt: skip
    kept = _kept(shapes or known_shapes(config, size, tied), config, tied)
    return ModelFacts(
        architecture=str((config.get("architectures") or [config.get("model_type", "unknown")])[0]),
        max_length=_max_length(config, text), tied=tied, shapes=kept,
        weight_bytes=stored or 2 * sum(prod(s) for s in kept.values()), **size,
    )  # fmt: skip


def _is_gpt2(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "gpt2"


def _max_length(config: Mapping[str, Any], text: Mapping[str, Any]) -> int | None:
    if "relative_attention_num_buckets" in text and "max_position_embeddings" not in text:
        return None  # T5 only knows how far two tokens are apart; its `n_positions` bounds nothing
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
    length = next((int(text[name]) for name in names if text.get(name) is not None), 0)
    if config.get("model_type") in OFFSET:
        length -= int(text.get("pad_token_id") or 1) + 1
    return length if length > 0 else None


def _kept(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], tied: bool) -> dict[str, tuple[int, ...]]:
    """``shapes`` without buffers, second copies of tied weights, and what is not loaded."""
    encoder = any("MaskedLM" in str(a) or "PreTraining" in str(a) for a in config.get("architectures") or [])
    whole = any(name.rpartition(".")[0].endswith("shared") for name in shapes)
    return {
        name: shape
        for name, shape in shapes.items()
        if not BUFFERS.search(name)
        and not (tied and HEADS.search(name))
        and not (encoder and GUESSING.search(name))
        and not (whole and SHARED.search(name))
    }


def trained_linear(facts: ModelFacts, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """The linear layers that get an adapter (lora) or are trained themselves (full, freeze)."""
    linear = facts.linear()
    if recipe.train.method == "full" or (recipe.train.method == "lora" and recipe.lora.targets == ["all-linear"]):
        return linear
    if recipe.train.method == "freeze":
        return {n: s for n, s in linear.items() if _layer(n) >= facts.layers - recipe.freeze.layers}
    return {n: s for n, s in linear.items() if any(n == t or n.endswith(f".{t}") for t in recipe.lora.targets)}


def trainable_parameters(facts: ModelFacts, recipe: Recipe) -> int:
    """How many weights are trained; with lora rank x (in + out) of each target."""
    if recipe.train.method == "lora":
        return sum(recipe.lora.rank * (a + b) for a, b in trained_linear(facts, recipe).values())
    if recipe.train.method == "full":
        return facts.parameters
    first = facts.layers - recipe.freeze.layers
    # The last norm stands outside the layers.
    return sum(prod(s) for n, s in facts.shapes.items() if _layer(n) >= first or _is_last_norm(n))


def forecast(
    facts: ModelFacts,
    recipe: Recipe,
    *,
    tokens: int,
    precision: Precision,
    outputs: int | None = None,
    logit_tokens: int | None = None,
    device: str = "cpu",
    longest: int = 0,
) -> Memory:
    """Peak memory of a training step.

    tokens: of the largest micro-batch, with padding where there is any.  outputs: numbers that the last layer
    gives for a position (one for each word of the vocabulary by default).  logit_tokens: positions whose logits exist
    at once (all of them by default).  longest: tokens of its longest row; of rows end to end the mean, each token of
    which counts once.
    """
    width = WIDTH[precision]
    trained = trainable_parameters(facts, recipe)
    kind = "cuda" if device.startswith("cuda") else "cpu"
    # Trained weights of the base itself are fp32 and stand in for the frozen ones; an adapter's come on top.
    own = 0 if recipe.train.method == "lora" else trained
    activations = activation_bytes(facts, recipe, width, tokens, longest, quick=kind == "cpu" and facts.usual)
    logits = min(tokens, logit_tokens or tokens) * (outputs or facts.vocabulary) * LOGIT_BYTES[precision]
    logits += _own_head_bytes(facts, recipe, outputs or facts.vocabulary, width)
    return Memory(
        weights=(facts.parameters - own) * width + _cast_bytes(facts, recipe, precision),
        trainable=trained * (4 + 4),  # the weight and its gradient
        optimizer=trained * MOMENTS,
        activations=activations,
        logits=logits,
        heap=round(HEAP[kind] * (activations + logits)),
        libraries=LIBRARIES[kind],
    )


def activation_bytes(
    facts: ModelFacts, recipe: Recipe, width: int, tokens: int, longest: int, quick: bool
) -> int:
    """What a micro-batch of ``tokens``, its longest row of ``longest``, keeps and has in flight. width: bytes of a
    number.  quick: with the parts of ``model/fast.py``."""
    kept = _quick_bytes(facts, recipe, width, longest) if quick else kept_bytes(facts, recipe, width)
    return tokens * (kept + _layer_bytes(facts, recipe, width))


def _cast_bytes(facts: ModelFacts, recipe: Recipe, precision: Precision) -> int:
    """Trained matrices are fp32; in bf16 a step multiplies copies of them."""
    if precision == "fp32" or recipe.train.method == "lora":
        return 0
    return 2 * sum(prod(shape) for shape in trained_linear(facts, recipe).values())


def _own_head_bytes(facts: ModelFacts, recipe: Recipe, outputs: int, width: int) -> int:
    """An output matrix that is trained stands beside the base's, its gradient and, in bf16, a copy to multiply with."""
    if recipe.train.method != "full":
        return 0
    return outputs * facts.hidden * (4 + 4 + (width if width == 2 else 0))


def _quick_bytes(facts: ModelFacts, recipe: Recipe, width: int, longest: int) -> int:
    """``kept_bytes`` with the quicker parts."""
    linear = trained_linear(facts, recipe)
    deep = min(recipe.freeze.layers, facts.layers) if recipe.train.method == "freeze" else facts.layers
    shared = {(name.rpartition(".")[0], _input_size(name, shape)) for name, shape in linear.items()}
    kept = sum(size for _parent, size in shared) * width
    if recipe.train.method == "lora":
        kept += len(linear) * recipe.lora.rank * width
    chances = facts.heads * (longest + BLOCK) // 2 * width if longest <= KEEP_UP_TO else 0
    layer = 2 * (facts.hidden * width + 4) + (facts.queries + 2 * facts.keys + 2 * facts.intermediate) * width
    return kept + deep * (layer + chances)


def kept_bytes(facts: ModelFacts, recipe: Recipe, width: int) -> int:
    """What autograd keeps for the backward pass, in bytes a token. width: bytes of a number, 2 or 4."""
    linear = trained_linear(facts, recipe)
    freezes = recipe.train.method == "freeze"
    deep = min(recipe.freeze.layers, facts.layers) if freezes else facts.layers
    inputs = [(name.rpartition(".")[0], _input_size(name, shape)) for name, shape in linear.items()]
    kept = sum(size for _parent, size in (inputs if width == 2 else set(inputs))) * width
    if recipe.train.method == "lora":
        kept += len(linear) * recipe.lora.rank * (width + 4)
    last_norm = (1 if recipe.train.method == "lora" else 3) * facts.hidden * 4
    kept += deep * _layer_bytes(facts, recipe, width)
    if facts.encoder_layers:  # a token goes through one of the two stacks; both are taken to read as much
        encoder = 0 if freezes else facts.encoder_layers
        kept += encoder * _layer_bytes(facts, recipe, width) + deep * _cross_bytes(facts, recipe, width)
        kept //= 2
    return kept + last_norm


def _layer_bytes(facts: ModelFacts, recipe: Recipe, width: int) -> int:
    """The part of ``kept_bytes`` that each layer costs, whatever in it is trained."""
    attention = (2 * facts.queries + 2 * facts.keys) * width + 4 * facts.heads
    return 2 * _norm_bytes(facts, recipe, width) + attention + (3 if facts.gated else 2) * facts.intermediate * width


def _has_biased_norms(facts: ModelFacts) -> bool:
    return any(name.endswith(("norm.bias", "Norm.bias")) for name in facts.shapes)


def _norm_bytes(facts: ModelFacts, recipe: Recipe, width: int) -> int:
    """An RMS norm is written out in fp32; the older kind, which has a bias, is one operation that keeps its input."""
    if _has_biased_norms(facts):
        return facts.hidden * width
    return facts.hidden * 4 * (1 if recipe.train.method == "lora" else 2)


def _cross_bytes(facts: ModelFacts, recipe: Recipe, width: int) -> int:
    """What a decoder's look at its encoder costs: query and output of one's tokens, key and value of the other's."""
    return _norm_bytes(facts, recipe, width) + 4 * facts.queries * width + 4 * facts.heads


def _input_size(name: str, shape: tuple[int, int]) -> int:
    """Linear keeps (out, in), GPT-2's Conv1D (in, out)."""
    return shape[0] if re.search(r"\.(c_attn|c_proj|c_fc)$", name) else shape[1]


def _layer(name: str) -> int:
    """Number of the layer that a weight stands in; -1 outside, and in an encoder that has a decoder behind it."""
    found = LAYER.search(name)
    return int(found.group(1)) if found and not OF_ENCODER.search(name) else -1


def _is_last_norm(name: str) -> bool:
    if _layer(name) >= 0 or OF_ENCODER.search(name):
        return False
    return bool(re.search(r"(^|\.)(norm|ln_f|layer_norm|final_layernorm|final_layer_norm)\.", name))
