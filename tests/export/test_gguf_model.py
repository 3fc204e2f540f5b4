"""A model of each family, written as GGUF, computes the same: read by transformers, and by llama.cpp itself."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.conftest import needs_llama_cpp
from tests.shapes import write_base
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.errors import RunError
from tunewright.export import gguf_model, vocabulary
from tunewright.export.llama import LlamaCpp
from tunewright.export.readers import UNREAD
from tunewright.model.load import quiet

FAMILIES = ("llama", "qwen2", "qwen3")
IDS = list(range(5, 64))
# Largest difference of a logit, as a share of the largest, on random weights that were made large. A row of 64 numbers
# has but two scales in it, so that packing costs these models far more than real ones.
MOST = {"f16": 0.01, "q8_0": 0.12, "q5_0": 0.5, "q4_0": 0.8, "q4_1": 0.8}


def made(folder: Path, kind: str, **config: Any) -> Any:
    """A model with biases and norms that are not what they are at birth."""
    write_base(folder, kind)
    if config:
        stored = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(stored | config))
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) / 4)
    return model.eval()


def written(folder: Path, model: Any, kind: gguf_model.Type) -> Path:
    stops = json.loads((folder / "generation_config.json").read_text())
    held = vocabulary.read(folder, model.config.vocab_size, stops, None, "{{ messages }}")
    path = folder / f"model-{kind}.gguf"
    gguf_model.write(path, model, kind, held, {"name": "tiny"}, lambda _count: None)
    return path


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(torch.tensor([IDS])).logits[0]
    return found


def by_transformers(path: Path, own: Any) -> torch.Tensor:
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        for name in UNREAD:  # a head of other than 128 numbers in Qwen3
            if (value := getattr(own.config, name, None)) is not None:
                setattr(config, name, value)
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, config=config, dtype=torch.float32
        )
    return logits(model.eval())


def by_llama_cpp(path: Path, vocabulary_size: int) -> torch.Tensor:
    llama = LlamaCpp(path, len(IDS), vocabulary_size)
    llama._model.eval(IDS)
    found = torch.from_numpy(llama._model.scores[: len(IDS)].copy())
    llama.close()
    return found


def share(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("kind", FAMILIES)
def test_transformers_reads_the_same_model(tmp_path: Path, kind: str) -> None:
    model = made(tmp_path, kind)
    for packing in gguf_model.PACKINGS:
        assert share(by_transformers(written(tmp_path, model, packing), model), logits(model)) < MOST[packing], packing


@needs_llama_cpp
@pytest.mark.parametrize("kind", FAMILIES)
def test_llama_cpp_reads_the_same_model(tmp_path: Path, kind: str) -> None:
    model = made(tmp_path, kind)
    for packing in gguf_model.PACKINGS:
        path = written(tmp_path, model, packing)
        assert share(by_llama_cpp(path, model.config.vocab_size), logits(model)) < MOST[packing], packing


@needs_llama_cpp
@pytest.mark.parametrize("rope", [
    {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 16},
    {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0},
], ids=["llama3", "linear"])  # fmt: skip
def test_scaled_positions_are_in_the_file(tmp_path: Path, rope: dict[str, Any]) -> None:
    model = made(tmp_path, "llama", rope_parameters=rope)
    path = written(tmp_path, model, "f16")
    assert share(by_llama_cpp(path, model.config.vocab_size), logits(model)) < MOST["f16"]
    model.model.rotary_emb.inv_freq = 1 / 100.0 ** (torch.arange(8) / 8)  # as it would be without the scale
    assert share(by_llama_cpp(path, model.config.vocab_size), logits(model)) > MOST["f16"]


def test_the_order_of_llamas_heads_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that the turn prevents, planted."""
    model = made(tmp_path, "llama")
    monkeypatch.setattr(gguf_model, "_turned", lambda weight, _heads: weight)
    assert share(by_transformers(written(tmp_path, model, "f16"), model), logits(model)) > MOST["f16"]


def test_narrower_packings_are_smaller_and_the_file_is_no_larger_than_foreseen(tmp_path: Path) -> None:
    model = made(tmp_path, "llama")
    sizes = {kind: sum(tensor.bytes for tensor in gguf_model.tensors(model, kind)) for kind in gguf_model.PACKINGS}
    assert sizes["q4_0"] < sizes["q4_1"] < sizes["q5_0"] < sizes["q8_0"] < 0.6 * sizes["f16"]
    wide = {tensor.name for tensor in gguf_model.tensors(model, "q4_0") if tensor.packing.name == "Q8_0"}
    assert {name.replace("blk.0.", "") for name in wide if "blk.1" not in name} == {
        "token_embd.weight", "output.weight", "attn_v.weight", "ffn_down.weight"
    }  # fmt: skip
    parameters = sum(weight.numel() for weight in model.parameters())
    for kind in ("f16", "q8_0"):  # of so small a model the embedding is most of it
        assert sizes[kind] < gguf_model.parameter_bytes(parameters, kind)


@pytest.mark.parametrize(("kind", "config", "said"), [
    ("gpt2", {}, "this base is gpt2"),
    ("llama", {"hidden_act": "gelu"}, "activation 'gelu'"),
    ("qwen2", {"use_sliding_window": True}, "sliding window"),
    ("qwen2", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "positions by 'yarn'"),
])  # fmt: skip
def test_what_we_cannot_say_is_refused(tmp_path: Path, kind: str, config: dict[str, Any], said: str) -> None:
    write_base(tmp_path, kind)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | config))
    with quiet(), pytest.raises(RunError) as error:
        gguf_model.require(AutoConfig.from_pretrained(tmp_path), "config.json")
    assert said in error.value.what and error.value.command == "tunewright export --to merged"
