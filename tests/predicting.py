"""Small finished runs of other tasks than chat, and a tiny T5 to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.encoders import write_encoder

WORDS = ("river", "bridge")  # a text that holds the first is "wet", the second "dry"
TEXTS = [
    "The {} rises in the hills", "people of the valley follow the {}", "what is the name of the {}?",
    "the {} is older than the church", "a short note about the {}", "the {}, the town and the bread",
]  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(count: int) -> list[dict[str, Any]]:
    """Rows with text, label and number, each text another one."""
    return [
        {"text": f"{TEXTS[i // 2 % len(TEXTS)].format(WORDS[i % 2])} {i // 2}", "label": ("wet", "dry")[i % 2], "id": i}
        for i in range(count)
    ]


def train_labels(home: Path) -> Path:
    base = home / "base"
    base.mkdir()
    write_encoder(base)
    write_rows(home / "texts.jsonl", labelled(64))
    return _trained(home, "texts.jsonl", [
        "task=classify", "classify.head=linear", f"base={base}", "train.method=full", "train.epochs=12",
        "train.learning_rate=0.005", "train.keep=last", "train.precision=fp32", "data.held_out=8",
    ])  # fmt: skip


def train_pairs(home: Path) -> Path:
    base = write_t5(home / "base")
    write_rows(home / "pairs.jsonl", [{"source": f"salt {i}", "target": f"bread {i}"} for i in range(20)])
    return _trained(home, "pairs.jsonl", [
        "task=seq2seq", f"base={base}", "train.method=full", "train.epochs=2", "train.precision=fp32",
        "data.held_out=4", "evaluate.rows=2", "evaluate.max_new_tokens=4", "data.max_length=32",
    ])  # fmt: skip


def _trained(home: Path, data: str, words: list[str]) -> Path:
    from tunewright import api

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("TUNEWRIGHT_CACHE", str(home / "cache"))
        run = api.train(data, words)
    return (home / run.folder.path).resolve()


def write_t5(folder: Path, texts: list[str] | None = None) -> Path:
    """A T5 of two and two layers with a byte-level tokenizer of its own and random but known weights."""
    import torch
    from tests.conftest import TINY_TEXT
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "</s>", "<unk>"],
    )  # fmt: skip
    tokenizer.train_from_iterator(texts or TINY_TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": 512, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
        dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder
