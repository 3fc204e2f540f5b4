"""A base of flan-t5-small's shape where its hub is not reached: what a training of it costs, and nothing it knows.

    python benchmarks/t5_shape.py FOLDER
    python benchmarks/recipes.py instruct-seq2seq --base instruct-seq2seq=FOLDER

Configuration and vocabulary size are those of google/flan-t5-small, 76,961,152 parameters; the weights are random and
the tokenizer is trained on the spot, on the project's own examples. So minutes and memory of a run are measured
honestly, up to two things: texts have other tokens, and the outputs of a model that knows nothing rarely end by
themselves, so that measuring it takes rather longer. Its quality says nothing at all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import T5Config, T5ForConditionalGeneration

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PIECES = 32_100  # of the tokenizer; the rows of the embedding are more, a multiple of 128
SHAPE: dict[str, Any] = {
    "vocab_size": 32_128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8,
    "num_heads": 6, "dropout_rate": 0.1, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def write(folder: Path) -> Path:
    """The base in ``folder``, in transformers' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": 512,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**SHAPE))
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items() if "embed_tokens" not in name}
    # transformers 5 ties the output matrix whatever the configuration says, unless a checkpoint has another one.
    weights["lm_head.weight"] = torch.randn_like(weights["shared.weight"]) * SHAPE["d_model"] ** -0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    named = model.config.to_dict() | SHAPE | {"architectures": ["T5ForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(named), encoding="utf-8")
    model.generation_config.save_pretrained(folder)
    return folder


def _tokenizer() -> Tokenizer:
    """Unigram pieces as SentencePiece makes them, of all texts in ``examples/``, and rows of the vocabulary that stand
    for nothing up to the size of T5's."""
    special = ["<pad>", "</s>", "<unk>"]
    files = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in (".jsonl", ".md"))
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=8_000, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator((path.read_text(encoding="utf-8") for path in files), trainer)
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    pieces += [(f"<unused_{number}>", -100.0) for number in range(PIECES - len(pieces))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = write(Path(sys.argv[1]))
    count = sum(weight.numel() for weight in T5ForConditionalGeneration.from_pretrained(folder).parameters())
    print(f"{folder}: {count:,} parameters, weights random, shape flan-t5-small's")


if __name__ == "__main__":
    main()
