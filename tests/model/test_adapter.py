"""What is trained by each method, how it is saved, and that it comes back the same."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests import sequences
from transformers import AutoModelForSeq2SeqLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tunewright.errors import RecipeError, ResourceError, RunError
from tunewright.model.adapter import counts, counts_line, load_run, prepare, save
from tunewright.model.load import load, quiet
from tunewright.model.memory import describe, trainable_parameters
from tunewright.model.source import fetch
from tunewright.recipe.schema import Recipe

pytestmark = pytest.mark.usefixtures("cache")
IDS = torch.tensor([[1, 5, 9, 20, 31, 2]])


def recipe(**values: Any) -> Recipe:
    return Recipe.model_validate(values)


def lora(**values: Any) -> Recipe:
    return recipe(lora={"rank": 4, **values})


@pytest.fixture
def model(tiny_base: Path) -> PreTrainedModel:
    return load(fetch(str(tiny_base)), "bf16", "cpu")


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.Tensor(model(input_ids=IDS).logits.float())


def no_files(folder: Path) -> None:
    assert folder.is_dir()


def stir(model: torch.nn.Module) -> None:
    """As a training would, from where an adapter does nothing yet."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


def test_lora_counts_as_peft_does(model: PreTrainedModel, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = prepare(model, lora(targets=["q_proj", "v_proj"]))
    assert isinstance(tuned, PeftModel)
    assert counts(tuned) == tuned.get_nb_trainable_parameters()
    tuned.print_trainable_parameters()
    assert counts_line(tuned) == capsys.readouterr().out.strip()


def test_lora_trains_in_fp32_on_a_frozen_bf16_base(model: PreTrainedModel) -> None:
    tuned = prepare(model, lora())
    kinds = {(p.requires_grad, p.dtype) for p in tuned.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_all_linear_leaves_out_the_tied_head(model: PreTrainedModel) -> None:
    names = trained(prepare(model, lora()))
    assert not any("lm_head" in name or "embed" in name for name in names)
    assert len(names) == 2 * 7 * 2  # layers x linear layers x (A, B)


def test_first_weights_depend_on_the_seed_alone(tiny_base: Path) -> None:
    def first(seed: int, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        tuned = prepare(load(fetch(str(tiny_base)), "bf16", "cpu"), recipe(seed=seed))
        after = torch.rand(1)
        torch.manual_seed(noise)
        assert torch.equal(after, torch.rand(1))  # the global generator is left alone
        return torch.cat([p.flatten() for n, p in tuned.named_parameters() if "lora_A" in n])

    assert torch.equal(first(3, noise=1), first(3, noise=2))
    assert not torch.equal(first(3, noise=1), first(4, noise=1))


def test_unknown_target_lists_what_there_is(model: PreTrainedModel) -> None:
    with pytest.raises(RecipeError, match="'qproj'") as caught:
        prepare(model, lora(targets=["qproj"]))
    assert "did you mean q_proj?" in (caught.value.do or "") and "down_proj" in (caught.value.do or "")


def test_all_linear_beside_a_name_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(RecipeError, match="alone"):
        prepare(model, lora(targets=["all-linear", "q_proj"]))


def test_full_trains_everything_in_fp32(model: PreTrainedModel) -> None:
    tuned = prepare(model, recipe(train={"method": "full"}))
    assert {(p.requires_grad, p.dtype) for p in tuned.parameters()} == {(True, torch.float32)}
    assert counts(tuned)[0] == counts(tuned)[1]


def test_freeze_trains_the_last_layers_and_the_last_norm(model: PreTrainedModel) -> None:
    tuned = prepare(model, recipe(train={"method": "freeze"}, freeze={"layers": 1}))
    names = trained(tuned)
    assert names == {n for n, _p in tuned.named_parameters() if n.startswith(("model.layers.1.", "model.norm."))}
    assert all(p.dtype == (torch.float32 if n in names else torch.bfloat16) for n, p in tuned.named_parameters())
    with torch.autocast("cpu", torch.bfloat16):
        tuned(input_ids=IDS, labels=IDS).loss.backward()
    assert tuned.get_submodule("model.layers.1.mlp.up_proj").weight.grad is not None


def test_more_layers_than_there_are_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(RecipeError, match="the base has 2 layers, and 9"):
        prepare(model, recipe(train={"method": "freeze"}, freeze={"layers": 9}))


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_what_was_saved_comes_back(tiny_base: Path, tmp_path: Path, method: str) -> None:
    base = fetch(str(tiny_base))
    tuned = prepare(load(base, "fp32", "cpu"), recipe(train={"method": method}, freeze={"layers": 1}))
    before = logits(tuned)
    stir(tuned)
    wanted = logits(tuned)
    assert not torch.allclose(before, wanted)
    save(tuned, tmp_path / "out", no_files, {"eos_token_id": [2], "pad_token_id": 0, "do_sample": False})
    back = load_run(load(base, "fp32", "cpu"), tmp_path / "out")
    assert torch.equal(logits(back), wanted)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [2]
    kind = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (tmp_path / "out" / kind).exists() and not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("own", [True, False])
def test_a_t5_says_whether_its_output_matrix_is_its_own(tmp_path: Path, own: bool) -> None:
    model = sequences.model("t5_untied" if own else "t5")
    if own:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
    save(model, tmp_path / "out", no_files, {})
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is not own
    with quiet():
        back = AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path / "out"))
    with torch.no_grad():
        one, two = (each(input_ids=IDS, decoder_input_ids=IDS).logits for each in (model, back.eval()))
    assert torch.equal(one, two)


def test_saving_twice_gives_the_same_bytes(model: PreTrainedModel, tmp_path: Path) -> None:
    tuned = prepare(model, lora())
    for name in ("a", "b"):
        save(tuned, tmp_path / name, no_files, {})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_saving_needs_no_hub(model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    asked: list[object] = []

    def refuse(*args: object, **_more: object) -> None:
        asked.append(args)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    tuned = prepare(model, lora())
    tuned.peft_config["default"].base_model_name_or_path = "smollm2-135m-instruct"  # type: ignore[operator,index]
    save(tuned, tmp_path / "out", no_files, {})
    assert asked == []


@pytest.mark.parametrize("method", ["lora", "full"])
def test_full_disk_while_saving_keeps_what_was_there(tiny_base: Path, tmp_path: Path, method: str) -> None:
    tuned = prepare(load(fetch(str(tiny_base)), "fp32", "cpu"), recipe(train={"method": method}))
    out = tmp_path / "run" / "out"
    out.mkdir(parents=True)
    (out / "kept").write_text("yes")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ResourceError, match="the disk is full"):
            save(tuned, out, no_files, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert [p.name for p in out.iterdir()] == ["kept"]


def test_damaged_adapter_is_named(tiny_base: Path, tmp_path: Path) -> None:
    base = fetch(str(tiny_base))
    save(prepare(load(base, "bf16", "cpu"), lora()), tmp_path / "out", no_files, {})
    weights = tmp_path / "out" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(RunError, match="cannot be read"):
        load_run(load(base, "bf16", "cpu"), tmp_path / "out")


def test_gpt2_with_its_transposed_layers(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=60, n_embd=32, n_layer=3, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    base = fetch(str(tmp_path))
    tuned = prepare(load(base, "bf16", "cpu"), lora())
    assert counts(tuned)[0] == trainable_parameters(describe(base.folder), lora())
    assert not any("lm_head" in name for name in trained(tuned))
    frozen = prepare(load(base, "bf16", "cpu"), recipe(train={"method": "freeze"}))
    assert any(n.startswith("transformer.ln_f") for n in trained(frozen))


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5", "bart", "marian"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_base_s_own_dropout_is_what_the_recipe_says(share: float, kind: str) -> None:
    """At 0 two passes in training mode are equal."""
    from transformers import AutoModel, BartConfig, BertConfig, GPT2Config, MarianConfig, T5Config

    small = {"vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32,
             "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": 0,
             "decoder_start_token_id": 0, "encoder_layerdrop": 0.5, "attention_dropout": 0.3}  # fmt: skip
    config: Any = {
        "gpt2": lambda: GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2),
        "bert": lambda: BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2),
        "t5": lambda: T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
        "bart": lambda: BartConfig(**small, dropout=0.3, activation_dropout=0.3),
        "marian": lambda: MarianConfig(**small, dropout=0.3),
    }[kind]()
    model = prepare(AutoModel.from_config(config), recipe(train={"method": "full", "dropout": share})).train()
    ids = torch.arange(3, 30)[None]
    more = {"decoder_input_ids": ids} if kind in ("t5", "bart", "marian") else {}
    one, two = (model(input_ids=ids, **more).last_hidden_state for _again in range(2))
    assert torch.equal(one, two) == (share == 0)
