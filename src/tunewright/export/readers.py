"""Exports read back from the disk by the software that they are for, and asked as the run's own model is asked."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tunewright.data.basefiles import TOKENIZER
from tunewright.errors import RunError
from tunewright.infer.engines import engine_for
from tunewright.infer.open import Opened, saved_codec, saved_generation
from tunewright.model.load import CLASSES, DTYPES, pick_device, quiet
from tunewright.model.source import Base
from tunewright.text import _
from tunewright.verify.subject import Subject

# What transformers' reader of GGUF does not read of every family, though it stands in the file.
UNREAD = ("head_dim", "rope_parameters")
NEIGHBOURS = 4  # tokens shown on each side of the first that differs


def merged(subject: Subject, folder: Path) -> Opened:
    """As ``AutoModelFor….from_pretrained(folder)`` gives it."""
    with quiet():
        model = CLASSES[subject.task.head].from_pretrained(
            str(folder), dtype="auto", local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    return _opened(subject, model, folder)


def adapter(subject: Subject, base: Base, folder: Path) -> Opened:
    """As ``PeftModel.from_pretrained`` gives it, on the base as transformers loads it."""
    dtype = DTYPES[str(subject.recipe.train.precision)]  # type: ignore[index]
    more: dict[str, Any] = {}
    if subject.task.head == "classifier":
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        more = {"config": config, "ignore_mismatched_sizes": True}
    with quiet():
        model = CLASSES[subject.task.head].from_pretrained(
            str(base.folder), dtype=dtype, local_files_only=True, trust_remote_code=False, **more
        )
        tuned = PeftModel.from_pretrained(model, str(folder))
    return _opened(subject, tuned, folder)


def gguf(subject: Subject, folder: Path, name: str, own: Any) -> tuple[Opened, list[str]]:
    """As transformers' ``gguf_file=`` unpacks it, in fp32; and what had to be told it, which its reader leaves in the
    file though it is there. own: the config of the run's model."""
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a bar that no setting turns off
        config = AutoConfig.from_pretrained(str(folder), gguf_file=name, local_files_only=True)
        told = [key for key in UNREAD if _differ(getattr(config, key, None), getattr(own, key, None))]
        for key in told:
            setattr(config, key, getattr(own, key))
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), gguf_file=name, config=config, dtype=torch.float32, local_files_only=True
        )
    return _opened(subject, model, subject.folder), told


def gguf_ids(folder: Path, name: str, texts: Sequence[str]) -> list[list[int]]:
    """What transformers' reader of GGUF makes of ``texts``."""
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=name, local_files_only=True)
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def require_same_ids(
    reader: str, tokenizer: Tokenizer, texts: Sequence[str], found: Sequence[Sequence[int]], where: str
) -> int:
    """How many ids were compared. tokenizer: the run's own.  found: ids of each of ``texts`` by a reader of the export.
    Raises RunError, with the first token that differs, unless they are those of the run."""
    count = 0
    for text, other in zip(texts, found, strict=True):
        one = tokenizer.encode(text, add_special_tokens=False).ids
        count += len(one)
        if one == list(other):
            continue
        pairs = enumerate(zip(one, other, strict=False))
        place = next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))
        near = tokenizer.decode(one[max(0, place - NEIGHBOURS) : place + NEIGHBOURS], skip_special_tokens=False)
        raise RunError(
            _("{reader} makes other ids than the run near {near!r}: token {place} is {one}, and was {other}",
              reader=reader, near=near, place=place + 1, one=list(other[place : place + 1]),
              other=one[place : place + 1]),
            where=where, do=_("export the run as merged, and report this base"),
            command="tunewright export --to merged",
        )  # fmt: skip
    return count


def tokenizer_of(folder: Path) -> Tokenizer:
    """The run's own, to write a text's ids with: special tokens in it are structure, as every reader takes them."""
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _opened(subject: Subject, model: Any, folder: Path) -> Opened:
    model.to(pick_device()).eval()
    codec = saved_codec(folder, subject.recipe, subject.labels)
    engine = engine_for(subject.task, model, codec, saved_generation(folder, subject.task), subject.recipe)
    return Opened(engine, codec, subject.task, subject.recipe, subject.labels)


def _differ(read: Any, own: Any) -> bool:
    """Frequencies are stored in fp32 in the file."""
    if isinstance(read, dict) and isinstance(own, dict):
        return any(_differ(read.get(key), own.get(key)) for key in own)
    if isinstance(read, float | int) and isinstance(own, float | int):
        return abs(read - own) > 1e-6 * abs(own)
    return bool(read != own)
