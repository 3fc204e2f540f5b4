"""The task ``classify`` with a linear head: which bases do, what is trained, and that a saved run answers the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.conftest import write_tiny_model, write_tiny_tokenizer
from tests.encoders import write_encoder
from transformers import AutoConfig, AutoModelForSequenceClassification, DistilBertConfig

from tunewright.data.texts import TextCodec
from tunewright.errors import BaseModelError, RecipeError
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.infer.labels import LabelEngine
from tunewright.model import adapter, fast
from tunewright.model.load import Labels, load_folder
from tunewright.recipe.schema import Recipe
from tunewright.tasks.classify import LinearTask

TASK = LinearTask()
LABELS = ("bad", "good", "odd")
TEXTS = ("the river is old", "the bridge is older than the church", "bread and salt", "who are you?", "sea")


@pytest.fixture(params=["bert", "roberta", "llama", "sentence"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.mkdir()
    if request.param == "sentence":
        return write_sentence_encoder(base)
    if request.param != "llama":
        return write_encoder(base, request.param)
    write_tiny_tokenizer(base)
    write_tiny_model(base)
    return base


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.mkdir()
    return write_encoder(base)


def write_sentence_encoder(base: Path) -> Path:
    """A BERT that says of itself that a text is the mean of its tokens."""
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return write_encoder(base)


def recipe(method: str = "lora", **more: Any) -> Recipe:
    lora = {"lora": {"rank": 2, **more.pop("lora", {})}} if method == "lora" else {}
    freeze = {"freeze": {"layers": 1}} if method == "freeze" else {}
    return Recipe.model_validate({"task": "classify", "train": {"method": method}, **lora, **freeze, **more})


def codec(folder: Path, **more: Any) -> TextCodec:
    return TASK.codec(folder, recipe(**more), LABELS)


def model(folder: Path, names: tuple[str, ...] = LABELS, seed: int = 0, precision: Any = "fp32") -> Any:
    return load_folder(folder, precision, "cpu", head="classifier", labels=Labels(names, seed=seed))


def rows(reader: TextCodec) -> list[Rendered]:
    made = [
        Chat((Message("user", text), Message("assistant", LABELS[n % 3], learn=True)), Origin("x.csv", n + 2, n + 1))
        for n, text in enumerate(TEXTS)
    ]
    return [row for some in reader.render_many(made) for row in some]


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def probabilities(model: Any, reader: TextCodec) -> torch.Tensor:
    return torch.from_numpy(LabelEngine(model, reader, TASK.logits(model, reader)).probabilities(rows(reader)))


def train_a_little(model: Any, reader: TextCodec, steps: int = 20) -> list[float]:
    objective = TASK.objective(model, reader)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _step in range(steps):
        optimizer.zero_grad()
        loss = objective(rows(reader))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


# ---- which bases do ------------------------------------------------------------------------------------------------


def test_an_encoder_and_a_decoder_will_do(folder: Path) -> None:
    TASK.require(folder, "mine")


def test_an_encoder_decoder_is_refused_with_bases_that_would_do(encoder: Path) -> None:
    (encoder / "config.json").write_text(json.dumps({"model_type": "marian", "is_encoder_decoder": True}))
    with pytest.raises(BaseModelError, match="reads a text and writes another") as error:
        TASK.require(encoder, "mine")
    assert "minilm-l6" in (error.value.do or "")


def test_a_base_that_transformers_has_no_head_for_is_refused(encoder: Path) -> None:
    (encoder / "config.json").write_text(json.dumps({"model_type": "whisperer"}))
    with pytest.raises(BaseModelError, match="transformers has none for 'whisperer'"):
        TASK.require(encoder, "mine")


@pytest.mark.parametrize("key", ["classify.prompt", "classify.words", "data.system", "data.chat_template"])
def test_a_key_that_only_label_token_reads_is_an_error(encoder: Path, key: str) -> None:
    section, _dot, name = key.partition(".")
    value: Any = {"bad": "no"} if name == "words" else "plain {text}"
    with pytest.raises(RecipeError) as error:
        codec(encoder, **{section: {name: value}})
    assert error.value.where == key


# ---- loading -------------------------------------------------------------------------------------------------------


def test_the_head_depends_on_the_seed_alone(encoder: Path) -> None:
    state = torch.random.get_rng_state()
    first, same, other = (model(encoder, seed=seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_first_token_of_a_sentence_encoder_begins_as_a_mean(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_sentence_encoder(base)
    query = "encoder.layer.1.attention.self.query"
    assert not model(base).bert.get_submodule(query).weight.any()
    assert model(base).bert.get_submodule(query.replace("1", "0")).weight.any()
    assert any("mean of its tokens" in note for note in codec(base).notes)
    tuned = adapter.prepare(model(base, precision="bf16"), recipe(lora={"targets": ["query"]}))
    mine = {name for name in trained(tuned) if "layer.1.attention.self.query" in name}
    assert mine and all("modules_to_save" in name for name in mine)  # trained whole, and so a part of the adapter
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    assert model(base).bert.get_submodule(query).weight.any()
    assert not codec(base).notes


def test_the_config_names_the_labels(encoder: Path) -> None:
    config = model(encoder).config
    assert config.id2label == {0: "bad", 1: "good", 2: "odd"}
    assert config.label2id == {"bad": 0, "good": 1, "odd": 2}
    assert config.problem_type == "single_label_classification"


def test_a_missing_weight_that_is_not_the_heads_is_an_error(encoder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = encoder / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(BaseModelError, match=r"incomplete: 1 weights are missing.*layer\.1\.output\.dense"):
        model(encoder)


def test_a_missing_pooler_is_a_part_of_the_new_head(encoder: Path) -> None:
    """Many encoders are published without one."""
    from safetensors.torch import load_file, save_file

    path = encoder / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if "pooler" not in name}
    save_file(weights, path, {"format": "pt"})
    tuned = adapter.prepare(model(encoder), recipe())
    assert any("pooler" in name for name in trained(tuned))


def test_a_classifier_of_other_labels_gets_a_new_head(encoder: Path, tmp_path: Path) -> None:
    made = model(encoder)
    made.save_pretrained(tmp_path / "finished")
    same = load_folder(tmp_path / "finished", "fp32", "cpu", head="classifier", labels=Labels(LABELS, seed=5))
    assert torch.equal(same.classifier.weight, made.classifier.weight)
    for names in (LABELS[::-1], LABELS[:2]):
        other = load_folder(tmp_path / "finished", "fp32", "cpu", head="classifier", labels=Labels(names, seed=5))
        assert other.classifier.weight.shape[0] == len(names)
        assert not torch.equal(other.classifier.weight[0], made.classifier.weight[0])
        assert float(other.classifier.weight.detach().std()) == pytest.approx(0.02, rel=0.3)


def test_a_decoder_without_a_pad_token_is_given_one(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    write_tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    assert model(tmp_path).config.pad_token_id == 0  # the tokenizer's <|endoftext|>


# ---- what is trained -----------------------------------------------------------------------------------------------


def test_distilbert_with_rank_1_on_q_lin_counts_as_in_the_tutorial() -> None:
    config = DistilBertConfig(num_labels=2)
    with torch.device("meta"):
        bare = AutoModelForSequenceClassification.from_config(config)
    bare.to_empty(device="cpu")
    tuned = adapter.prepare(bare, Recipe.model_validate({"lora": {"rank": 1, "targets": ["q_lin"]}}))
    line = "trainable params: 601,346 || all params: 67,556,356 || trainable%: 0.8901"
    assert adapter.counts_line(tuned) == line


def test_an_adapter_never_sits_on_the_head(folder: Path) -> None:
    tuned = adapter.prepare(model(folder), recipe())
    on = {name for name in trained(tuned) if "lora_" in name}
    assert on
    assert not any(part in name for name in on for part in ("classifier", "score", "pooler"))
    whole = {name for name in trained(tuned) if "modules_to_save" in name}
    assert whole | on == trained(tuned)


def test_targets_are_taken_by_name_and_the_head_is_none(encoder: Path) -> None:
    tuned = adapter.prepare(model(encoder), recipe(lora={"targets": ["query"]}))
    assert all("query" in name for name in trained(tuned) if "lora_" in name)
    with pytest.raises(RecipeError, match="no linear layer called 'classifier'"):
        adapter.prepare(model(encoder), recipe(lora={"targets": ["classifier"]}))
    with pytest.raises(RecipeError, match="no linear layer called 'q_lin'"):
        adapter.check(encoder, recipe(lora={"targets": ["q_lin"]}), "classifier")


def test_freeze_trains_the_last_layers_and_what_stands_behind_them(folder: Path) -> None:
    names = trained(adapter.prepare(model(folder), recipe("freeze")))
    parts = ("layer.1.", "layers.1.", "pooler", "classifier", "score", "model.norm")
    assert any("classifier" in name or "score" in name for name in names)
    assert any("layer.1." in name or "layers.1." in name for name in names)
    assert all(any(part in name for part in parts) for name in names)


def test_full_trains_everything(folder: Path) -> None:
    tuned = adapter.prepare(model(folder), recipe("full"))
    assert trained(tuned) == {name for name, _p in tuned.named_parameters()}


def test_a_steps_gradient_is_the_same_however_it_is_cut(encoder: Path) -> None:
    """The base's own dropout would make another gradient of it each time."""

    def gradients(parts: int) -> list[torch.Tensor]:
        tuned = adapter.prepare(model(encoder), recipe("full"))
        tuned.train()
        objective = TASK.objective(tuned, codec(encoder))
        some = rows(codec(encoder))
        for start in range(parts):
            objective(some[start::parts]).backward()
        return [p.grad for p in tuned.parameters() if p.grad is not None]

    assert json.loads((encoder / "config.json").read_text()).get("hidden_dropout_prob", 0.1) > 0
    for whole, cut in zip(gradients(1), gradients(3), strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_the_loss_falls(folder: Path, method: str) -> None:
    losses = train_a_little(adapter.prepare(model(folder), recipe(method)), codec(folder))
    assert losses[-1] < 0.95 * losses[0]


def test_the_quicker_parts_of_training_give_the_same_gradient(folder: Path) -> None:
    def gradients(quick: bool) -> dict[str, torch.Tensor]:
        tuned = adapter.prepare(model(folder), recipe())
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        reader = codec(folder)
        if quick:
            with fast.kernels(tuned):
                TASK.objective(tuned, reader)(rows(reader)).backward()
        else:
            TASK.objective(tuned, reader)(rows(reader)).backward()
        return {name: p.grad for name, p in tuned.named_parameters() if p.grad is not None}

    own, ours = gradients(quick=False), gradients(quick=True)
    assert own.keys() == ours.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max() + 1e-3))


# ---- saved and opened ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_saved_run_answers_the_same(folder: Path, tmp_path: Path, method: str, precision: str) -> None:
    reader = codec(folder)
    tuned = adapter.prepare(model(folder, precision=precision), recipe(method))
    if method == "lora" or precision == "fp32":
        train_a_little(tuned, reader, steps=3)
    else:
        for parameter in tuned.parameters():  # as a run leaves it
            parameter.data = parameter.data.bfloat16()
    adapter.save(tuned, tmp_path / "saved", reader.save, {})
    again = adapter.load_run(model(folder, seed=9, precision=precision), tmp_path / "saved")
    opened = TASK.codec(tmp_path / "saved", recipe(method), LABELS)
    assert opened.sha256 == reader.sha256
    assert torch.equal(probabilities(again, opened), probabilities(tuned, reader))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_saved_run_knows_its_labels_without_the_data(encoder: Path, tmp_path: Path, method: str) -> None:
    tuned = adapter.prepare(model(encoder), recipe(method))
    adapter.save(tuned, tmp_path / "saved", codec(encoder).save, {})
    assert AutoConfig.from_pretrained(tmp_path / "saved").id2label == {0: "bad", 1: "good", 2: "odd"}
    assert not (tmp_path / "saved" / "generation_config.json").exists()


PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
base, saved, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer, config = AutoTokenizer.from_pretrained(saved), AutoConfig.from_pretrained(saved)
model = AutoModelForSequenceClassification.from_pretrained(base, config=config)
model = PeftModel.from_pretrained(model, saved).eval()
with torch.no_grad():
    print(json.dumps(model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(1).tolist()))
"""


@pytest.mark.slow
def test_plain_peft_and_transformers_read_a_saved_adapter(folder: Path, tmp_path: Path) -> None:
    reader = codec(folder)
    tuned = adapter.prepare(model(folder), recipe())
    train_a_little(tuned, reader, steps=3)
    assert isinstance(tuned, PeftModel)
    adapter.save(tuned, tmp_path / "saved", reader.save, {})
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder), str(tmp_path / "saved"), json.dumps(TEXTS)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    got = torch.tensor(json.loads(done.stdout.strip().splitlines()[-1]), dtype=torch.float64)
    torch.testing.assert_close(got, probabilities(tuned, reader), rtol=1e-4, atol=1e-5)
