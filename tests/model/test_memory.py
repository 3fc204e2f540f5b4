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
    assert full.weights == 0 and full.trainable == 8 * 134_515_008


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
