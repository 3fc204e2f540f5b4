"""Logits of labels, whatever the base: equal to what transformers makes of each text alone, however rows are padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests import tiny
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    Qwen3Config,
    RobertaConfig,
)  # fmt: skip

from tunewright.example import Origin, Rendered
from tunewright.model.labels import LabelLoss, LinearLogits, TokenLogits, head_names, token_types
from tunewright.model.load import quiet

LABELS = 3
SEP = 4
LLAMA = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
BERT = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "bert": lambda: BertConfig(**BERT),
    "roberta": lambda: RobertaConfig(**BERT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=100, dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=64
    ),
    "modernbert": lambda: ModernBertConfig(**BERT | {"pad_token_id": 0, "global_attn_every_n_layers": 2}),
    "llama": lambda: LlamaConfig(**LLAMA, pad_token_id=2, bos_token_id=1, eos_token_id=2),
    "llama without padding": lambda: LlamaConfig(**LLAMA, pad_token_id=None, bos_token_id=1, eos_token_id=2),
    "qwen3": lambda: Qwen3Config(**LLAMA, head_dim=8, pad_token_id=0),
    "gpt2": lambda: GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=2),
}
ENCODERS = ("bert", "roberta", "distilbert", "modernbert")


def classifier(kind: str) -> Any:
    config = CONFIGS[kind]()
    config.num_labels = LABELS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(5)
    return model.eval()


def row(text: list[int], *wanted: int) -> Rendered:
    ids = np.array([*text, *wanted], dtype=np.int32)
    learn = np.arange(len(ids)) >= len(text)
    return Rendered(ids, learn, Origin("rows.csv", 1, 1))


def texts(count: int = 6, end: int | None = None) -> list[list[int]]:
    random = np.random.default_rng(0)
    made = [random.integers(5, 100, int(random.integers(3, 20))).tolist() for _ in range(count)]
    return [[*text, *([] if end is None else [end])] for text in made]


def rows(end: int | None = None) -> list[Rendered]:
    return [row(text, index % LABELS) for index, text in enumerate(texts(end=end))]


@torch.no_grad()
def alone(model: Any, text: list[int]) -> torch.Tensor:
    """What transformers makes of one text: nothing is padded, so nothing can be taken for padding."""
    pad, model.config.pad_token_id = model.config.pad_token_id, -1
    logits = model(input_ids=torch.tensor([text])).logits[0]
    model.config.pad_token_id = pad
    return torch.Tensor(logits)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("end", [None, 2])
def test_a_batch_gives_what_each_text_gives_alone(kind: str, end: int | None) -> None:
    """end 2: each text ends in the token that the base pads with; the model must classify from it all the same."""
    model = classifier(kind)
    with torch.no_grad():
        together = LinearLogits(model)(rows(end))
    expected = torch.stack([alone(model, text) for text in texts(end=end)])
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)
    assert together.std() > 0.01


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_kind_of_model_it_is_is_found_by_trying(kind: str) -> None:
    found = LinearLogits(classifier(kind))
    assert (found.pools_last, found.causal) == ((False, False) if kind in ENCODERS else (True, True))


def test_the_models_own_pad_token_is_back_after_a_batch() -> None:
    model = classifier("llama")
    LinearLogits(model)(rows())
    assert model.config.pad_token_id == 2


def test_a_pair_is_numbered_as_bert_numbers_it() -> None:
    model = classifier("bert")
    pair = [3, 10, 11, SEP, 20, 21, 22, SEP]
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([pair]), token_type_ids=types).logits
        plain = model(input_ids=torch.tensor([pair])).logits
        got = LinearLogits(model, separator=SEP)([row(pair, 0), row([*pair[:4], *range(30, 40), SEP], 1)])[:1]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(got, plain, atol=1e-3)


def test_one_text_has_one_type() -> None:
    assert token_types(torch.tensor([[3, 9, 8, SEP]]), SEP).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(("kind", "names"), [
    ("bert", ["bert.pooler", "classifier"]), ("distilbert", ["pre_classifier", "classifier"]),
    ("roberta", ["classifier"]), ("llama", ["score"]), ("gpt2", ["score"]),
    ("modernbert", ["head", "classifier"]),
])  # fmt: skip
def test_the_head_is_what_stands_on_top_of_the_base(kind: str, names: list[str]) -> None:
    assert head_names(classifier(kind)) == names


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_loss_of_a_batch_is_the_sum_of_its_rows(kind: str) -> None:
    loss = LabelLoss(LinearLogits(classifier(kind)))
    some = rows()
    torch.testing.assert_close(loss(some), sum(loss([one]) for one in some), rtol=1e-5, atol=1e-5)


def test_the_loss_is_that_of_transformers() -> None:
    model = classifier("bert")
    one = rows()[3]
    text = torch.tensor([one.ids[:-1].tolist()])
    expected = model(input_ids=text, labels=torch.tensor([int(one.ids[-1])])).loss
    torch.testing.assert_close(LabelLoss(LinearLogits(model))([one]), expected)


def test_the_loss_of_several_labels_is_that_of_transformers() -> None:
    model = classifier("bert")
    model.config.problem_type = "multi_label_classification"
    text = texts()[0]
    expected = model(input_ids=torch.tensor([text]), labels=torch.tensor([[1.0, 0.0, 1.0]])).loss * LABELS
    loss = LabelLoss(LinearLogits(model), multi_label=True)
    torch.testing.assert_close(loss([row(text, 1, 0, 1)]), expected)
    assert row(text, 1, 0, 1).learned == LABELS


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "llama"])
def test_a_head_in_fp32_sits_on_a_body_in_bf16(kind: str) -> None:
    """As a LoRA run in bf16 has it. The logits are those of fp32 to what bf16 can hold."""
    exact = LinearLogits(classifier(kind))(rows())
    model = classifier(kind).to(torch.bfloat16)
    for name in head_names(model):
        model.get_submodule(name).float()
    loss = LabelLoss(LinearLogits(model))
    loss(rows()).backward()
    got = loss.logits(rows())
    assert got.dtype == torch.float32
    assert (got - exact).abs().max() < 0.05 * exact.abs().max()
    for name in head_names(model):
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.get_submodule(name).parameters())


def test_an_adapter_reaches_the_logits() -> None:
    model = classifier("bert")
    with quiet():
        tuned = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], lora_alpha=64))
    logits = LinearLogits(tuned)
    before = logits(rows())
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    assert not torch.allclose(before, logits(rows()))


# ---- label tokens ------------------------------------------------------------------------------------------------

WORDS = [11, 40, 7]


def asked() -> list[Rendered]:
    return [row(text, WORDS[index % 3]) for index, text in enumerate(texts())]


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "granite", "gemma2"])
def test_label_tokens_are_scored_as_the_whole_model_scores_them(kind: str) -> None:
    model = tiny.model(kind)
    logits = TokenLogits(model, WORDS)
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([text])).logits[0, -1, WORDS] for text in texts()]
        torch.testing.assert_close(logits(asked()), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_the_loss_of_label_tokens_is_over_the_labels_alone() -> None:
    model = tiny.model("llama")
    logits = TokenLogits(model, WORDS)
    assert logits.wanted(asked()).tolist() == [[0], [1], [2]] * 2
    with torch.no_grad():
        scores = logits(asked())
        expected = functional.cross_entropy(scores, torch.tensor([0, 1, 2] * 2), reduction="sum")
        torch.testing.assert_close(LabelLoss(logits)(asked()), expected)


def test_a_trained_output_matrix_gets_a_gradient_at_the_labels_rows_alone() -> None:
    model = tiny.model("llama")
    LabelLoss(TokenLogits(model, WORDS))(asked()).backward()
    touched = model.get_output_embeddings().weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert touched == sorted(WORDS)
