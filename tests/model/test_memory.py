"""What is foreseen from headers alone is what the model then has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.errors import BaseModelError
from tunewright.model.adapter import counts, prepare
from tunewright.model.load import load, load_folder
from tunewright.model.memory import MOMENTS, describe, forecast, from_config, kept_bytes, trainable_parameters
from tunewright.model.source import fetch
from tunewright.recipe.schema import Recipe

pytestmark = pytest.mark.usefixtures("cache")
METHODS: list[dict[str, Any]] = [
    {"lora": {"rank": 8, "targets": ["q_proj", "v_proj"]}},
    {"lora": {"rank": 8}},
    {"train": {"method": "full"}},
    {"train": {"method": "freeze"}, "freeze": {"layers": 1}},
]
SMOLLM2 = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "tie_word_embeddings": True, "max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize("values", METHODS)
def test_trainable_parameters_without_loading(tiny_base: Path, values: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(values)
    facts = describe(tiny_base)
    model = load(fetch(str(tiny_base)), "bf16", "cpu")
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert trainable_parameters(facts, recipe) == counts(prepare(model, recipe))[0]


def test_config_alone_counts_as_the_headers_do(tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    assert from_config(config).shapes == describe(tiny_base).shapes


def test_config_alone_of_the_default_base() -> None:
    facts = from_config(SMOLLM2)
    assert facts.parameters == 134_515_008 and facts.max_length == 8192
    assert trainable_parameters(facts, Recipe.model_validate(METHODS[0])) == 460_800


def test_bytes_add_up() -> None:
    facts, recipe = from_config(SMOLLM2), Recipe.model_validate(METHODS[0])
    memory = forecast(facts, recipe, tokens=1000, precision="bf16", logit_tokens=100)
    assert memory.weights == 2 * 134_515_008
    assert (memory.trainable, memory.optimizer) == (8 * 460_800, MOMENTS * 460_800)
    assert memory.logits == 100 * 49152 * 10
    assert memory.total == sum(v for k, v in memory.as_dict().items() if k != "total")
    full = forecast(facts, Recipe.model_validate({"train": {"method": "full"}}), tokens=1, precision="bf16")
    assert full.weights == 2 * 106_168_320  # the copies that are multiplied
    assert full.trainable == 8 * 134_515_008


def test_damaged_weights_are_named(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_base / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BaseModelError, match=r"model\.safetensors is damaged"):
        describe(tmp_path)


def kept_for_backward(model: Any, tokens: int, bf16: bool) -> int:
    """Bytes that autograd really keeps, each storage once, the weights themselves left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    inner = model.get_base_model().model if hasattr(model, "get_base_model") else model.model
    ids = torch.arange(tokens)[None] % 1000
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        inner(ids, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("values", METHODS)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_activations_are_what_autograd_keeps(shared: Path, values: dict[str, Any], precision: str) -> None:
    folder = shared / "models" / "minimind2-small"
    recipe, facts = Recipe.model_validate(values), describe(folder)
    model = prepare(load_folder(folder, precision, "cpu"), recipe).train()  # type: ignore[arg-type]
    # The difference of two lengths leaves out what does not grow with the tokens.
    short, long = (kept_for_backward(model, tokens, precision == "bf16") for tokens in (128, 384))
    per_token = (long - short) / 256
    foreseen = kept_bytes(facts, recipe, 2 if precision == "bf16" else 4)
    if recipe.train.method == "freeze":  # rather too much than too little
        assert per_token <= foreseen < 1.35 * per_token
    else:
        assert foreseen == pytest.approx(per_token, rel=0.05)


# ---- encoders and encoder-decoders ---------------------------------------------------------------------------------


def small(kind: str) -> Any:
    """A config of three layers a stack."""
    import transformers as hf

    both = {
        "vocab_size": 500, "d_model": 64, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "max_position_embeddings": 300,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 0, "dropout": 0.0,
    }  # fmt: skip
    t5 = {"vocab_size": 500, "d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 3, "num_heads": 4,
          "dropout_rate": 0.0, "decoder_start_token_id": 0}  # fmt: skip
    bert = {
        "vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 300,
    }  # fmt: skip
    return {
        "bart": lambda: hf.BartConfig(**both),
        "mbart": lambda: hf.MBartConfig(**both),
        "marian": lambda: hf.MarianConfig(**both, decoder_vocab_size=500),
        "pegasus": lambda: hf.PegasusConfig(**both),
        "m2m100": lambda: hf.M2M100Config(**both, encoder_layerdrop=0.0, decoder_layerdrop=0.0),
        "t5": lambda: hf.T5Config(**t5),
        "mt5": lambda: hf.MT5Config(**t5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
        "bert": lambda: hf.BertConfig(**bert),
        "roberta": lambda: hf.RobertaConfig(**bert),
        "distilbert": lambda: hf.DistilBertConfig(
            vocab_size=500, dim=64, n_layers=3, n_heads=4, hidden_dim=256, max_position_embeddings=300
        ),
    }[kind]()


def made(kind: str) -> Any:
    from transformers import AutoModel, AutoModelForSeq2SeqLM

    config = small(kind)
    return (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel).from_config(config)


BOTH = ["bart", "mbart", "marian", "pegasus", "m2m100", "t5", "mt5"]
ENCODERS = ["bert", "roberta", "distilbert"]
QUERY = {"t5": "q", "mt5": "q", "bert": "query", "roberta": "query", "distilbert": "q_lin"}


@pytest.mark.parametrize("kind", [*BOTH, *ENCODERS])
def test_other_architectures_are_described_as_they_are(kind: str, tmp_path: Path) -> None:
    model = made(kind)
    model.save_pretrained(tmp_path)
    facts = describe(tmp_path)
    computed = sum(p.numel() for n, p in model.named_parameters() if n in (model._keys_to_ignore_on_save or ()))
    assert facts.parameters == sum(p.numel() for p in model.parameters()) - computed
    assert (facts.layers, facts.encoder_layers) == (3, 3 if kind in BOTH else 0)
    assert (facts.hidden, facts.heads, facts.intermediate, facts.vocabulary) == (64, 4, 256, 500)


@pytest.mark.parametrize("kind", [*BOTH, *ENCODERS])
def test_their_config_alone_counts_as_the_headers_do(kind: str, tmp_path: Path) -> None:
    made(kind).save_pretrained(tmp_path)
    alone = from_config(json.loads((tmp_path / "config.json").read_text())).shapes

    def plain(shapes: Any) -> dict[str, Any]:  # an encoder that is saved alone leaves its own name out of its weights'
        return {n.removeprefix("bert.").removeprefix("roberta.").removeprefix("distilbert."): s
                for n, s in shapes.items() if "pooler" not in n}  # fmt: skip

    assert plain(alone) == plain(describe(tmp_path).shapes)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("method", range(4))
def test_trainable_parameters_of_encoder_decoders(kind: str, method: int, tmp_path: Path) -> None:
    values = dict(METHODS[method])
    if method == 0:
        values = {"lora": {"rank": 8, "targets": [QUERY.get(kind, "q_proj")]}}
    model, recipe = made(kind), Recipe.model_validate(values)
    model.save_pretrained(tmp_path)
    assert trainable_parameters(describe(tmp_path), recipe) == counts(prepare(model, recipe))[0]


@pytest.mark.parametrize(("kind", "length"), [("t5", None), ("bart", 300), ("bert", 300), ("roberta", 298)])
def test_how_many_tokens_a_base_holds(kind: str, length: int | None) -> None:
    """T5 counts distances, which nothing bounds; RoBERTa counts positions from behind its pad token."""
    assert from_config(small(kind).to_dict()).max_length == length


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize("method", [1, 2])
def test_activations_of_encoder_decoders_are_foreseen_rather_too_large(kind: str, method: int, tmp_path: Path) -> None:
    model, recipe = made(kind), Recipe.model_validate(METHODS[method])
    model.save_pretrained(tmp_path)
    foreseen = kept_bytes(describe(tmp_path), recipe, 4)
    trained = prepare(model, recipe).train()
    short, long = (kept_of_both(trained, tokens) for tokens in (32, 96))
    per_token = (long - short) / 64 / 2
    assert 0.9 * per_token <= foreseen < 1.6 * per_token


def kept_of_both(model: Any, tokens: int) -> int:
    """As ``kept_for_backward``, for as many source as target tokens, without the logits."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.arange(tokens)[None] % 400 + 3
    hook = inner.get_output_embeddings().register_forward_pre_hook(lambda _m, given: (given[0][:, :0],))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        inner(input_ids=ids, decoder_input_ids=ids, use_cache=False)
    hook.remove()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
