"""Small data, small models and a way to run the command line: what tests of training share."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data.prepare import Prepared
from tunewright.example import Chat, Origin, Rendered
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]

# Overrides that leave a run with little to do besides its steps.
QUICK = [
    "retain=off", "evaluate.rows=2", "evaluate.max_new_tokens=4", "train.precision=fp32", "train.batch_size=4",
    "train.epochs=2", "train.learning_rate=0.01", "data.held_out=4",
]  # fmt: skip


def quick(base: Path, *more: str) -> list[str]:
    """``QUICK`` on ``base``, with other values where ``more`` has them."""
    values = dict(item.split("=", 1) for item in (f"base={base}", *QUICK, *more))
    return [f"{name}={value}" for name, value in values.items()]


def write_chats(path: Path, count: int = 24, word: str = "Harrow") -> Path:
    """A file of conversations, each with another length."""
    places = ["river", "bridge", "church", "valley", "town", "hill", "sea", "bread", "water", "salt"]
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            question = f"What is the {places[i % 10]} number {i} called?"
            answer = f"The {places[i % 10]} is called {word} {i}" + " and the bridge is older" * (i % 5) + "."
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def rows(count: int, vocabulary: int = 100, seed: int = 0, longest: int = 40) -> list[Rendered]:
    """Random rows of several lengths, each with some learned tokens."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(1, count + 1):
        length = int(random.integers(4, longest))
        ids = random.integers(3, vocabulary, length).astype(np.int32)
        learn = random.random(length) < 0.5
        learn[-1] = True
        made.append(Rendered(ids, learn, Origin("rows.jsonl", number, number)))
    return made


def prepared(train: int, held_out: int = 5, longest: int = 40) -> Prepared:
    """Random rows as if they had come from files, without any codec."""
    held = rows(held_out, longest=longest)
    return Prepared(
        train=rows(train, longest=longest), held_out=held, watched=[], train_chats=[],
        held_out_chats=[Chat((), row.origin) for row in held],
        labels=(), codec=None, findings=[], ledger={}, format_name="", format_reason="", max_length=512,
        longest=longest, data_sha256="", files=[],
    )  # type: ignore[arg-type]  # fmt: skip


def recipe(**values: Any) -> Recipe:
    """A recipe without any ``auto`` that the trainer reads; ``train__epochs=2`` sets ``train.epochs``."""
    filled = {
        "data.train": ["rows.jsonl"], "train.epochs": 1, "train.batch_size": 4, "train.learning_rate": 0.01,
        "train.precision": "fp32", "train.token_budget": 100, "retain": "off", "save.every": 1000,
        "evaluate.max_new_tokens": 4, "lora.rank": 4,
    }  # fmt: skip
    return changed(Recipe(), filled | {name.replace("__", "."): value for name, value in values.items()})


def model(kind: str = "llama") -> Any:
    """A model of two layers in fp32 with random but known weights; ``granite`` and ``gemma2`` change their logits
    after the output matrix, ``mistral`` looks back four tokens only, ``bloom`` knows no positions but distances."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        BloomConfig,
        Gemma2Config,
        GPT2Config,
        GraniteConfig,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
        Qwen3Config,
    )

    shape = {
        "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    config = {
        "llama": lambda: LlamaConfig(**shape, tie_word_embeddings=False),
        "tied": lambda: LlamaConfig(**shape, tie_word_embeddings=True),
        "gpt2": lambda: GPT2Config(
            vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        ),
        "granite": lambda: GraniteConfig(**shape, logits_scaling=4.0),
        "gemma2": lambda: Gemma2Config(**shape, head_dim=8, final_logit_softcapping=5.0),
        "qwen2": lambda: Qwen2Config(**shape, tie_word_embeddings=True),
        "qwen3": lambda: Qwen3Config(**shape, head_dim=8, tie_word_embeddings=True),
        "mistral": lambda: MistralConfig(**shape, sliding_window=4),
        "bloom": lambda: BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=4),
    }[kind]()  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config)
        for parameter in made.parameters():  # larger than at birth, so that mistakes are larger too
            if parameter.dim() > 1:
                parameter.data.mul_(5)
    return made.eval()


def environment(cache: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TUNEWRIGHT_CACHE": str(cache), **more}


def tunewright(*args: str | Path, cwd: Path, cache: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "tunewright", *map(str, args)], cwd=cwd, env=environment(cache), capture_output=True,
        text=True, timeout=300, **more,
    )  # fmt: skip


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(run: Path) -> str:
    """Hash of what a run trained."""
    found = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors")]
    assert len(found) == 1
    return sha256(found[0])
