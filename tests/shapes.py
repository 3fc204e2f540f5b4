"""Bases of the shapes that people meet, tiny: each with a tokenizer, special tokens and a template of its kind."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from tests.conftest import TINY_TEXT

END = "<|endoftext|>"
CHATML = (END, "<|im_start|>", "<|im_end|>")

# As Qwen2's: a system message of its own where there is none.
QWEN2 = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# As Qwen3's: the reasoning of the last answer alone is written.
QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for message in messages %}{% if message.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.role == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# As Llama 3's: the template writes the first token, which the tokenizer would add too; an answer ends in its own token.
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}"
    "{{ message.content + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

# specials: structure in the tokenizer.  named: what tokenizer_config.json calls them.  stops: eos_token_id of
# generation_config.json, as text.  first: the tokenizer puts it before every text.
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"specials": (END,), "named": {"bos_token": END, "eos_token": END, "unk_token": END}, "stops": (END,)},
    "qwen2": {
        "specials": CHATML, "named": {"eos_token": "<|im_end|>", "pad_token": END}, "template": QWEN2,
        "stops": ("<|im_end|>", END),
    },
    "qwen3": {
        "specials": CHATML, "named": {"eos_token": "<|im_end|>", "pad_token": END}, "template": QWEN3,
        "stops": ("<|im_end|>", END),
    },
    "llama": {  # no pad token
        "specials": ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "named": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}, "template": LLAMA3,
        "stops": ("<|end_of_text|>", "<|eot_id|>"), "first": "<|begin_of_text|>",
    },
    "mistral": {  # a base model: no template, padding is the stop token, a space before every text
        "specials": ("<unk>", "<s>", "</s>"), "spaces": True, "first": "<s>", "stops": ("</s>",),
        "named": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
    },
}  # fmt: skip


def write_base(folder: Path, kind: str, **other: Any) -> Path:
    """A base of ``kind`` with random but known weights; ``other`` replaces entries of its shape."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, kind, **other)
    write_model(folder, kind)
    return folder


def write_tokenizer(folder: Path, kind: str, **other: Any) -> Path:
    """Everything of ``write_base`` but the model."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[kind] | other
    specials = [AddedToken(text, normalized=False, special=True) for text in shape["specials"]]
    if shape.get("spaces"):
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Metaspace()
        alphabet = sorted({*string.printable, *"".join(TINY_TEXT)} - {" "})
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=alphabet, special_tokens=specials
    )
    tokenizer.train_from_iterator(TINY_TEXT, trainer)
    if "first" in shape:
        first = shape["first"]
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{first} $A", None, [(first, tokenizer.token_to_id(first))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **shape["named"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    stops = [tokenizer.token_to_id(text) for text in shape["stops"]]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}), encoding="utf-8")
    if "template" in shape:
        (folder / "chat_template.jinja").write_text(shape["template"], encoding="utf-8")
    return folder


def write_model(folder: Path, kind: str) -> None:
    """Two layers; config without any token's number, so that the files of the tokenizer have to be right."""
    import torch
    from tokenizers import Tokenizer
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
        Qwen3Config,
    )

    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    shape = {
        "vocab_size": vocabulary, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None,
        "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    config = {
        "gpt2": lambda: GPT2Config(
            vocab_size=vocabulary, n_embd=64, n_layer=2, n_head=4, n_positions=256, bos_token_id=None, eos_token_id=None
        ),
        "qwen2": lambda: Qwen2Config(**shape, tie_word_embeddings=True),
        "qwen3": lambda: Qwen3Config(**shape, head_dim=16, tie_word_embeddings=True),
        "llama": lambda: LlamaConfig(**shape, tie_word_embeddings=False),
        "mistral": lambda: MistralConfig(**shape, sliding_window=16),
    }[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    stops = (folder / "generation_config.json").read_bytes()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(stops)
