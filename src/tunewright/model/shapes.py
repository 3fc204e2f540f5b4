"""Shapes of every weight of the common architectures, from config.json alone: for a base whose weights are not here.

Names are those of transformers, because an adapter's targets are found by them. Tied weights stand here once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def shapes(config: Mapping[str, Any], size: Mapping[str, int], tied: bool) -> Shapes:
    """By the config's ``model_type``; one that is not known is taken for a Llama, which most decoders resemble.

    size: layers, encoder_layers, hidden, intermediate, queries, keys, vocabulary.
    """
    kind = str(config.get("model_type"))
    if kind == "gpt2":
        return _gpt2(size, int(config.get("n_positions") or 1024))
    if kind in ("t5", "mt5", "umt5", "longt5"):
        return _t5(config, size, tied)
    if size["encoder_layers"]:
        return _bart(config, size, tied)
    if kind == "distilbert":
        return _distilbert(config, size)
    if kind in ("bert", "roberta", "xlm-roberta", "camembert", "electra"):
        return _bert(config, size, "bert" if kind == "bert" else "electra" if kind == "electra" else "roberta")
    return _llama(size, tied)


def _with_bias(parts: Mapping[str, tuple[int, ...]]) -> Shapes:
    """A bias beside each weight, as long as the weight's outputs; a norm has one as well."""
    return {f"{name}.{kind}": shape if kind == "weight" else shape[:1]
            for name, shape in parts.items() for kind in ("weight", "bias")}  # fmt: skip


def _llama(size: Mapping[str, int], tied: bool) -> Shapes:
    h, i, q, k, v = (size[n] for n in ("hidden", "intermediate", "queries", "keys", "vocabulary"))
    block = {
        "self_attn.q_proj": (q, h), "self_attn.k_proj": (k, h), "self_attn.v_proj": (k, h), "self_attn.o_proj": (h, q),
        "mlp.gate_proj": (i, h), "mlp.up_proj": (i, h), "mlp.down_proj": (h, i),
        "input_layernorm": (h,), "post_attention_layernorm": (h,),
    }  # fmt: skip
    found: Shapes = {f"model.layers.{n}.{name}.weight": s for n in range(size["layers"]) for name, s in block.items()}
    outside = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,)}
    return found | outside | ({} if tied else {"lm_head.weight": (v, h)})


def _gpt2(size: Mapping[str, int], positions: int) -> Shapes:
    h, i, v = size["hidden"], size["intermediate"], size["vocabulary"]
    block = {
        "attn.c_attn.weight": (h, 3 * h), "attn.c_attn.bias": (3 * h,), "attn.c_proj.weight": (h, h),
        "attn.c_proj.bias": (h,), "mlp.c_fc.weight": (h, i), "mlp.c_fc.bias": (i,), "mlp.c_proj.weight": (i, h),
        "mlp.c_proj.bias": (h,), "ln_1.weight": (h,), "ln_1.bias": (h,), "ln_2.weight": (h,), "ln_2.bias": (h,),
    }  # fmt: skip
    found: Shapes = {f"transformer.h.{n}.{name}": s for n in range(size["layers"]) for name, s in block.items()}
    return found | {
        "transformer.wte.weight": (v, h), "transformer.wpe.weight": (positions, h),
        "transformer.ln_f.weight": (h,), "transformer.ln_f.bias": (h,),
    }  # fmt: skip


def _t5(config: Mapping[str, Any], size: Mapping[str, int], tied: bool) -> Shapes:
    h, i, q, v = (size[n] for n in ("hidden", "intermediate", "queries", "vocabulary"))
    gated = "gated" in str(config.get("feed_forward_proj", ""))
    attention = {"q": (q, h), "k": (q, h), "v": (q, h), "o": (h, q)}
    inner = {"wi_0": (i, h), "wi_1": (i, h), "wo": (h, i)} if gated else {"wi": (i, h), "wo": (h, i)}
    found: Shapes = {"shared.weight": (v, h)}
    if not tied:
        found["lm_head.weight"] = (v, h)
    for stack, layers in (("encoder", size["encoder_layers"]), ("decoder", size["layers"])):
        for n in range(layers):
            parts = [("SelfAttention", attention), ("DenseReluDense", inner)]
            if stack == "decoder":
                parts.insert(1, ("EncDecAttention", attention))
            for place, (name, weights) in enumerate(parts):
                at = f"{stack}.block.{n}.layer.{place}"
                found |= {f"{at}.{name}.{part}.weight": shape for part, shape in weights.items()}
                found[f"{at}.layer_norm.weight"] = (h,)
        buckets = (int(config.get("relative_attention_num_buckets") or 32), int(size["heads"]))
        found[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = buckets
        found[f"{stack}.final_layer_norm.weight"] = (h,)
    return found


def _bart(config: Mapping[str, Any], size: Mapping[str, int], tied: bool) -> Shapes:
    """BART, mBART, Marian, Pegasus and M2M100. They differ in norms around the stacks and in how positions are told."""
    h, i, v = size["hidden"], size["intermediate"], size["vocabulary"]
    kind = config.get("model_type")
    projections = dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (h, h))
    found: Shapes = {"model.shared.weight": (v, h)}
    if not tied:
        found["lm_head.weight"] = (v, h)
    positions = int(config.get("max_position_embeddings") or 1024)
    for stack, layers in (("encoder", size["encoder_layers"]), ("decoder", size["layers"])):
        block: dict[str, tuple[int, ...]] = {f"self_attn.{name}": s for name, s in projections.items()}
        block |= {"self_attn_layer_norm": (h,), "fc1": (i, h), "fc2": (h, i), "final_layer_norm": (h,)}
        if stack == "decoder":
            block |= {f"encoder_attn.{name}": s for name, s in projections.items()} | {"encoder_attn_layer_norm": (h,)}
        for n in range(layers):
            found |= {f"model.{stack}.layers.{n}.{name}": s for name, s in _with_bias(block).items()}
        if kind not in ("m2m_100", "marian"):  # which compute them
            learned = kind in ("bart", "mbart")  # which keep two places free
            found[f"model.{stack}.embed_positions.weight"] = (positions + 2 * learned, h)
        before, behind = kind in ("bart", "mbart"), kind not in ("bart", "marian")
        for name in ["layernorm_embedding"] * before + ["layer_norm"] * behind:
            found |= _with_bias({f"model.{stack}.{name}": (h,)})
    return found


def _bert(config: Mapping[str, Any], size: Mapping[str, int], prefix: str) -> Shapes:
    h, i, v = size["hidden"], size["intermediate"], size["vocabulary"]
    wide = int(config.get("embedding_size") or h)
    block: dict[str, tuple[int, ...]] = {f"attention.self.{name}": (h, h) for name in ("query", "key", "value")}
    block |= {
        "attention.output.dense": (h, h), "attention.output.LayerNorm": (h,), "intermediate.dense": (i, h),
        "output.dense": (h, i), "output.LayerNorm": (h,),
    }  # fmt: skip
    rows = {"word": v, "position": config.get("max_position_embeddings") or 512,
            "token_type": config.get("type_vocab_size") or 2}  # fmt: skip
    found: Shapes = {f"{prefix}.embeddings.{name}_embeddings.weight": (int(n), wide) for name, n in rows.items()}
    found |= _with_bias({f"{prefix}.embeddings.LayerNorm": (wide,)})
    for n in range(size["layers"]):
        found |= {f"{prefix}.encoder.layer.{n}.{name}": s for name, s in _with_bias(block).items()}
    return found | (_with_bias({f"{prefix}.pooler.dense": (h, h)}) if prefix == "bert" else {})


def _distilbert(config: Mapping[str, Any], size: Mapping[str, int]) -> Shapes:
    h, i, v = size["hidden"], size["intermediate"], size["vocabulary"]
    block: dict[str, tuple[int, ...]] = {f"attention.{name}": (h, h) for name in ("q_lin", "k_lin", "v_lin", "out_lin")}
    block |= {"sa_layer_norm": (h,), "ffn.lin1": (i, h), "ffn.lin2": (h, i), "output_layer_norm": (h,)}
    found: Shapes = {
        "distilbert.embeddings.word_embeddings.weight": (v, h),
        "distilbert.embeddings.position_embeddings.weight": (int(config.get("max_position_embeddings") or 512), h),
    } | _with_bias({"distilbert.embeddings.LayerNorm": (h,)})
    for n in range(size["layers"]):
        found |= {f"distilbert.transformer.layer.{n}.{name}": s for name, s in _with_bias(block).items()}
    return found
