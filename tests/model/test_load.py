"""Loading: what is loaded, what is refused, and how fast bf16 is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from tunewright.errors import BaseModelError
from tunewright.model import load as load_module
from tunewright.model.load import fast_bf16, load, public_name, require_decoder
from tunewright.model.source import Base, fetch

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_weights_come_in_the_asked_precision(tiny_base: Path, dtype: str) -> None:
    model = load(fetch(str(tiny_base)), dtype, "cpu")  # type: ignore[arg-type]
    assert {p.dtype for p in model.parameters()} == {load_module.DTYPES[dtype]}
    assert model.config._attn_implementation == "sdpa" and not model.training


def test_converted_gguf_holds_plain_linear_layers(tiny_gguf: Path) -> None:
    model = load(fetch(str(tiny_gguf)), "bf16", "cpu")
    projection = model.get_submodule("model.layers.0.self_attn.q_proj")
    assert type(projection) is nn.Linear and projection.weight.shape == (64, 64)


def test_adapters_name_their_base_as_others_know_it(tiny_base: Path) -> None:
    named = [("package", "smollm2-135m-instruct"), ("hub", "qwen3-0.6b"), ("hub", "a/b"), ("folder", "x")]
    names = [public_name(Base(name, source, tiny_base, "", {})) for source, name in named]
    assert names == ["smollm2-135m-instruct", "Qwen/Qwen3-0.6B", "a/b", str(tiny_base)]


def test_loading_says_nothing(tiny_base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(fetch(str(tiny_base)), "bf16", "cpu")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_encoder_is_refused_with_bases_that_would_do(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BaseModelError, match="BertForMaskedLM only reads") as caught:
        load(fetch(str(tmp_path)), "bf16", "cpu")
    assert "smollm2-135m-instruct" in (caught.value.do or "")


def test_translator_is_refused(tmp_path: Path) -> None:
    T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match="encoder-decoder"):
        require_decoder(tmp_path, "t5")


def test_a_refusal_speaks_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    with pytest.raises(BaseModelError, match="cannot go on with a text"):
        require_decoder(tmp_path, "bert", "pretrain")


def test_base_with_its_own_code_is_refused_and_not_run(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config |= {"model_type": "nobody_knows", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BaseModelError, match="code of its own"):
        load(fetch(str(folder)), "bf16", "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("flags", "avx", "amx", "fast"),
    [({"amx_bf16"}, False, True, True), (set(), True, False, True), ({"bf16"}, False, False, True),
     ({"avx2", "avx512f"}, False, False, False)],
)  # fmt: skip
def test_fast_bf16_by_what_the_chip_has(
    flags: set[str], avx: bool, amx: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_bf16("cpu")[0] is fast and fast_bf16("cpu")[1]
