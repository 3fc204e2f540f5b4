"""An adapter in its weights says what base and adapter say side by side."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel
from tests import sequences
from tests.tiny import model, recipe

from tunewright.model import adapter
from tunewright.model.merge import merged


def adapted(kind: str, **values: Any) -> PeftModel:
    """A tiny model with an adapter that was trained, as far as its numbers tell."""
    base = sequences.model() if kind == "t5" else model(kind)
    made = adapter.prepare(base, recipe(**values))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) / 4)
    made.eval()
    assert isinstance(made, PeftModel)
    return made


@torch.no_grad()
def said(any_model: Any) -> torch.Tensor:
    ids = torch.arange(3, 20)[None]
    more = {"decoder_input_ids": ids} if any_model.config.is_encoder_decoder else {}
    logits: torch.Tensor = any_model(input_ids=ids, **more).logits
    return logits.float()


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "qwen3", "t5"])
def test_merged_it_says_the_same(kind: str) -> None:
    tuned = adapted(kind)
    with tuned.disable_adapter():
        base = said(tuned)
    before = said(tuned)
    plain = merged(tuned)
    assert not isinstance(plain, PeftModel) and not any("lora" in name for name, _weight in plain.named_parameters())
    assert (before - base).abs().max() > 0.1
    assert (said(plain) - before).abs().max() < 1e-3 * before.abs().max()


def test_sums_are_made_in_fp32_and_rounded_once() -> None:
    tuned = adapted("llama")
    for name, weight in tuned.named_parameters():
        if "lora" not in name:
            weight.data = weight.data.bfloat16()
    layer: Any = tuned.get_base_model().model.layers[0].mlp.up_proj
    wanted = (layer.get_base_layer().weight.float() + layer.get_delta_weight("default")).bfloat16()
    plain: Any = merged(tuned)
    assert torch.equal(plain.model.layers[0].mlp.up_proj.weight, wanted)
    assert {weight.dtype for weight in plain.parameters()} == {torch.bfloat16}


def test_an_adapter_on_the_output_matrix_leaves_the_embedding_alone() -> None:
    """They are one matrix in the base; merged into both, every text would be read otherwise."""
    tuned = adapted("tied", lora__targets=["q_proj", "lm_head"])
    before, embedding = said(tuned), tuned.get_base_model().get_input_embeddings().weight.clone()
    plain = merged(tuned)
    assert torch.equal(plain.get_input_embeddings().weight, embedding)
    assert plain.config.tie_word_embeddings is False
    assert (said(plain) - before).abs().max() < 1e-3 * before.abs().max()
