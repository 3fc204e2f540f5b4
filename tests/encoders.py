"""Tiny encoders with tokenizers of the two common kinds: BERT's word pieces and RoBERTa's bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import TINY_TEXT

BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 66,
}  # fmt: skip


def write_encoder(folder: Path, kind: str = "bert") -> Path:
    """A base: tokenizer, config and random but known weights of a model without any head."""
    import torch
    from transformers import AutoConfig, AutoModel

    write_tokenizer(folder, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, kind: str = "bert") -> Path:
    """Tokenizer and config in ``folder``, and an empty file called as the kind, for tests to ask."""
    tokenizer, named, config = _bert() if kind == "bert" else _roberta()
    tokenizer.save(str(folder / "tokenizer.json"))
    named |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    config |= SIZES | {"model_type": kind, "vocab_size": tokenizer.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / kind).touch()
    return folder


def _bert() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, show_progress=False, special_tokens=list(BERT_SPECIALS))
    tokenizer.train_from_iterator([text.lower() for text in TINY_TEXT] + ["[ sep ] cls pad"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {f"{text[1:-1].lower()}_token": text for text in BERT_SPECIALS}
    return tokenizer, named, {"type_vocab_size": 2, "pad_token_id": 0, "architectures": ["BertModel"]}


def _roberta() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(ROBERTA_SPECIALS),
    )  # fmt: skip
    tokenizer.train_from_iterator(TINY_TEXT, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    named = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>",
             "unk_token": "<unk>", "mask_token": "<mask>"}  # fmt: skip
    config = {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
              "architectures": ["RobertaModel"]}  # fmt: skip
    return tokenizer, named, config
