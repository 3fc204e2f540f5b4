"""Turns a ``.gguf`` file into a folder of bf16 safetensors. Runs as a process of its own.

A process of its own, because it needs three times the base's size in memory for a moment, and because the verbs that
only read a tokenizer must not import torch. Its stdout speaks to the parent: a line ``stage TEXT`` for each stage, a
line ``error {json}`` if it fails. What it writes appears under its final name only when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

# Keys that transformers writes about itself or about the moment of saving; they would make equal bases look different.
NOT_ABOUT_THE_BASE = ("transformers_version", "_name_or_path", "_model_name_or_path", "is_local", "local_files_only",
                      "_from_model_config", "quantization_config")  # fmt: skip


def stage(text: str) -> None:
    print("stage", text, flush=True)


def tidy(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists():
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kept = {k: v for k, v in values.items() if k not in NOT_ABOUT_THE_BASE}
            path.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def save_tokenizer(source: Path, folder: Path, **how: Any) -> None:
    stage("reading the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False, **how)
    if not tokenizer.is_fast:
        raise ValueError(f"its tokenizer ({type(tokenizer).__name__}) has no form that can be saved as tokenizer.json")
    tokenizer.save_pretrained(str(folder))


def convert_gguf(source: Path, folder: Path) -> None:
    """Weights are unpacked to bf16; what four bits lost stays lost."""
    # transformers parses the file, with its 100,000 tokenizer strings, anew for tokenizer, config and weights, and
    # builds the same table of names once for each module; remembering both halves the time.
    gguf.GGUFReader = cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = cache(gguf.get_tensor_name_map)
    where = {"gguf_file": source.name}
    save_tokenizer(source.parent, folder, **where)
    stage("unpacking the weights")
    # Where a kernel for packed weights is installed, transformers would keep them packed, which cannot be trained.
    dense: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):
        dense["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        str(source.parent), dtype=torch.bfloat16, **where, **dense
    )
    # A model that came from a quantized file refuses to be saved while it remembers that it did.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    if wrong := {str(p.dtype) for p in model.parameters()} - {"torch.bfloat16"}:
        raise ValueError(f"some weights stayed packed as {', '.join(sorted(wrong))}")
    stage("writing the weights")
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(str(folder))


def main(kind: str, source: str, destination: str) -> int:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    final = Path(destination)
    unfinished = final.with_name(final.name + ".unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if kind == "gguf":
            convert_gguf(Path(source), unfinished)
        else:
            save_tokenizer(Path(source), unfinished)
        tidy(unfinished)
        os.replace(unfinished, final)
    except Exception as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        number = getattr(error, "errno", None)
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        print("error", json.dumps({"errno": number, "what": text, "type": type(error).__name__}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
