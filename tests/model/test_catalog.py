"""The named bases: what they can learn, and that their numbers are those of their architectures."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    BertConfig,
    BertForPreTraining,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tunewright.model.catalog import Entry, catalog, suited

# As each one lies on the hub, with the head it was pretrained with.
SHAPES = {
    "distilbert-base-uncased": (DistilBertForMaskedLM, DistilBertConfig()),
    "bert-base-uncased": (BertForPreTraining, BertConfig()),
    "roberta-base": (RobertaForMaskedLM, RobertaConfig(vocab_size=50265, max_position_embeddings=514,
                                                       type_vocab_size=1)),
    "gpt2": (GPT2LMHeadModel, GPT2Config()),
    "t5-small": (T5ForConditionalGeneration, T5Config(vocab_size=32128)),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_architecture(name: str) -> None:
    kind, config = SHAPES[name]
    with torch.device("meta"):
        model: PreTrainedModel = kind(config)  # type: ignore[arg-type]
    assert catalog()[name].parameters == sum(p.numel() for p in model.parameters())
    assert catalog()[name].size_bytes == 4 * catalog()[name].parameters


def test_an_error_proposes_first_what_needs_no_hub() -> None:
    assert suited("chat")[0] == "smollm2-135m-instruct" and "minilm-l6" not in suited("chat")
    assert set(suited("classify")[:2]) == {"smollm2-135m-instruct", "minilm-l6"}
    assert "bert-base-uncased" in suited("classify") and "t5-small" not in suited("classify")
    assert "t5-small" in suited("seq2seq") and "gpt2" not in suited("seq2seq")
    assert all(suited(task) for task in ("chat", "classify", "seq2seq", "pretrain"))  # type: ignore[arg-type]


def test_package_carries_a_file_or_a_folder() -> None:
    facts = {"source": "package", "package": "p", "version": "1", "size_bytes": 1, "parameters": 1, "licence": "MIT",
             "languages": ("en",), "notes": ""}  # fmt: skip
    with pytest.raises(ValidationError, match="file and sha256, or folder and files"):
        Entry.model_validate(facts)
    with pytest.raises(ValidationError, match="file and sha256, or folder and files"):
        Entry.model_validate(facts | {"file": "a", "sha256": "b", "folder": "c", "files": {"d": "e"}})
