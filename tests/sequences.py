"""Tiny encoder-decoders, and rows for them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.example import Origin, Rendered

KINDS = ["t5", "t5_untied", "mt5", "bart", "marian", "mbart", "m2m100"]
PAD, END, VOCABULARY = 0, 1, 100


def model(kind: str = "t5", vocabulary: int = VOCABULARY, pad: int = PAD, end: int = END) -> Any:
    """An encoder-decoder of two and two layers in fp32 with random but known weights, in evaluation mode."""
    import torch
    from transformers import (
        AutoModelForSeq2SeqLM,
        BartConfig,
        M2M100Config,
        MarianConfig,
        MBartConfig,
        MT5Config,
        T5Config,
    )

    ids = {"vocab_size": vocabulary, "pad_token_id": pad, "eos_token_id": end, "decoder_start_token_id": pad}
    t5 = ids | {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    bart = ids | {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
        "bos_token_id": 2, "forced_eos_token_id": None, "dropout": 0.0,
    }  # fmt: skip
    config = {
        "t5": lambda: T5Config(**t5),
        "t5_untied": lambda: T5Config(**t5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
        "mt5": lambda: MT5Config(**t5, feed_forward_proj="gated-gelu"),
        "bart": lambda: BartConfig(**bart | {"decoder_start_token_id": end}),
        "marian": lambda: MarianConfig(**bart, scale_embedding=True, decoder_vocab_size=vocabulary),
        "mbart": lambda: MBartConfig(**bart),
        "m2m100": lambda: M2M100Config(**bart, encoder_layerdrop=0.0, decoder_layerdrop=0.0),
    }[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForSeq2SeqLM.from_config(config)
        for parameter in made.parameters():  # larger than at birth, so that mistakes are larger too
            if parameter.dim() > 1 and not kind.endswith("t5") and "t5" not in kind:
                parameter.data.mul_(5)
        if kind == "bart":  # where BART keeps what other models have in their output matrix
            made.final_logits_bias.copy_(torch.randn(1, vocabulary))
    return made.eval()


def rows(count: int, vocabulary: int = VOCABULARY, seed: int = 0) -> list[Rendered]:
    """Random sources and targets of several lengths, each with its end."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(1, count + 1):
        sides = [[*random.integers(3, vocabulary, int(random.integers(2, 14))).tolist(), END] for _side in range(2)]
        ids = np.array(sides[0] + sides[1], dtype=np.int32)
        made.append(Rendered(ids, np.arange(len(ids)) >= len(sides[0]), Origin("rows.jsonl", number, number)))
    return made


SENTENCES = [
    "The river rises in the hills and runs slowly to the sea.",
    "La rivière descend des collines et va lentement à la mer.",
    "A man in a hat walks over the old bridge, near the church.",
    "Un homme avec un chapeau marche sur le vieux pont, près de l'église.",
    "Who are you? I am a small model, made for tests. 0 1 2 3 4 5 6 7 8 9",
    "Qui êtes-vous ? Je suis un petit modèle, fait pour les essais.",
]


def write_base(folder: Path, kind: str) -> Path:
    """A tiny base with a tokenizer of its own kind, trained on ``SENTENCES``: ``t5``, ``bart``, ``marian`` (two
    SentencePiece models), and with languages ``mbart25``, ``mbart50``, ``nllb``."""
    folder.mkdir(parents=True, exist_ok=True)
    write = {"t5": _t5_tokenizer, "bart": _bart_tokenizer, "marian": _marian_tokenizer}.get(kind, _many)
    tokenizer = write(folder, kind)
    pad, end = int(tokenizer.pad_token_id), int(tokenizer.eos_token_id)
    shape = {"mbart25": "mbart", "mbart50": "mbart", "nllb": "m2m100"}.get(kind, kind)
    made = model(shape, vocabulary=len(tokenizer), pad=pad, end=end)
    for name, weight in made.named_parameters():  # so that what is written depends on what was read
        if weight.dim() > 1 and ("encoder_attn" in name or "EncDecAttention" in name):
            weight.data.mul_(8)
        elif weight.dim() > 1 and "encoder" in name and "embed" not in name:
            weight.data.mul_(3)
    config = made.generation_config
    config.decoder_start_token_id = end if shape in ("bart", "mbart", "m2m100") else pad
    config.eos_token_id, config.pad_token_id, config.max_length = end, pad, None
    if kind == "marian":
        config.bad_words_ids = [[pad]]
    made.save_pretrained(folder)
    return folder


def _pieces() -> list[str]:
    return ["▁", *sorted(set("".join(SENTENCES)) - {" "})]


def _t5_tokenizer(folder: Path, _kind: str) -> Any:
    """SentencePiece-like: a mark for spaces, an end behind each text, and characters that it does not know."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import AutoTokenizer

    special = ["<pad>", "</s>", "<unk>"]
    pieces = [(text, 0.0) for text in special] + [(text, -float(n)) for n, text in enumerate(_pieces(), start=2)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return _saved(tokenizer, folder, AutoTokenizer)


def _bart_tokenizer(folder: Path, _kind: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoTokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "</s>", "<s>", "<unk>"],
    ))  # fmt: skip
    around = [("<s>", 2), ("</s>", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=around)
    return _saved(tokenizer, folder, AutoTokenizer, bos_token="<s>")


def _saved(tokenizer: Any, folder: Path, auto: Any, **more: str) -> Any:
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    text = json.dumps(config | {"unk_token": "<unk>", "model_max_length": 64} | more)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return auto.from_pretrained(str(folder))


def _marian_tokenizer(folder: Path, _kind: str) -> Any:
    import sentencepiece
    from transformers import AutoTokenizer

    known = {"</s>": 0, "<unk>": 1}
    for name, texts in (("source", SENTENCES[::2]), ("target", SENTENCES[1::2])):
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 4), model_writer=written, vocab_size=90, character_coverage=1.0,
            hard_vocab_limit=False, model_type="bpe", bos_id=-1, eos_id=0, unk_id=1, minloglevel=2,
        )  # fmt: skip
        (folder / f"{name}.spm").write_bytes(written.getvalue())
        pieces = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
        for number in range(pieces.get_piece_size()):
            known.setdefault(pieces.id_to_piece(number), len(known))
    known["<pad>"] = len(known)
    (folder / "vocab.json").write_text(json.dumps(known), encoding="utf-8")
    config = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "fr", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return AutoTokenizer.from_pretrained(str(folder))


def _many(folder: Path, kind: str) -> Any:
    """Tokenizers that know many languages by name."""
    from transformers import AutoTokenizer, MBart50Tokenizer, MBartTokenizer, NllbTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    scored = [(text, 0.0) for text in special] + [(text, -float(n)) for n, text in enumerate(_pieces())]
    if kind == "nllb":
        numbers = {text: number for number, text in enumerate([*special, *_pieces()])}
        made: Any = NllbTokenizer(vocab=numbers, merges=[])
    else:
        made = (MBart50Tokenizer if kind == "mbart50" else MBartTokenizer)(vocab=scored)
    made.save_pretrained(str(folder))
    return AutoTokenizer.from_pretrained(str(folder))
