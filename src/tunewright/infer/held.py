"""What a base itself says to bundled prompts, with its hidden states there: what a tuned model is compared with and, in
training, held to.

The base's distribution at a token is kept as its last hidden state: the output matrix, which an adapter leaves alone,
makes logits of it again, so that no second pass through the base is needed. A base answers once; its answers are kept
in the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tunewright import rundir
from tunewright.data.lengths import micro_batches
from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.infer.batch import in_order
from tunewright.infer.engine import Generation, Progress
from tunewright.infer.transformers import TransformersEngine
from tunewright.model.forward import HiddenStates, collate
from tunewright.model.loss import Replayed
from tunewright.settings import settings
from tunewright.tasks.chat import ask

FOLDER = "answers"  # in the cache


def answered(
    engine: TransformersEngine, template: ChatTemplate, base: str, system: str | None, texts: Sequence[str],
    new_tokens: int, progress: Progress,
) -> list[Replayed]:
    """``texts``, each as a user's turn, with the base's own answers of up to ``new_tokens`` tokens. ``engine`` holds
    the base, whose sha256 is ``base``. Row numbers are those of ``texts``, from 1.

    Answers never change, so they are kept in the cache by base, template, prompts and precision.
    """
    asked = [ask(text, template, system) for text in texts]
    kind = str(engine.model.dtype)
    name = hashlib.sha256(json.dumps([base, template.sha256, asked, new_tokens, kind]).encode()).hexdigest()[:32]
    path = settings().cache / FOLDER / f"{name}.safetensors"
    try:
        with safe_open(str(path), "pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in ("ids", "learn", "lengths", "states")}
        progress(len(asked))
    except (OSError, SafetensorError):  # not there yet, or damaged: made anew
        answers = engine.generate(asked, new_tokens, progress)
        opening = (Message("system", system),) if system else ()
        rows = [
            _row(template, (*opening, Message("user", text)), prompt, answer, number)
            for number, (text, prompt, answer) in enumerate(zip(texts, asked, answers, strict=True), start=1)
        ]
        tensors = _pack(rows, _states(engine, rows))
        rundir.write_bytes(path, save(tensors))
    return _unpack(tensors)


def _row(
    template: ChatTemplate, before: tuple[Message, ...], prompt: Sequence[int], answer: Generation, number: int
) -> Rendered:
    """An answer that was cut off is learned as far as it goes, without an end that the base never gave."""
    origin = Origin(FOLDER, number, number)
    if answer.stopped and answer.finished:
        said = Message("assistant", answer.text, learn=True, thinking=answer.thinking)
        return template.render(Chat((*before, said), origin))[-1]
    ids = np.array([*prompt, *answer.ids], dtype=np.int32)
    return Rendered(ids, np.arange(len(ids)) >= len(prompt), origin)


@torch.no_grad()
def _states(engine: TransformersEngine, rows: Sequence[Rendered]) -> list[torch.Tensor]:
    states = HiddenStates(engine.model)

    def hidden(group: Sequence[int]) -> Sequence[torch.Tensor]:
        some = [rows[index] for index in group]
        return states(collate(some, engine.model.device)).cpu().split([row.learned for row in some])

    return in_order(micro_batches([row.length for row in rows], engine.token_budget), hidden)


def _pack(rows: Sequence[Rendered], states: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "ids": torch.from_numpy(np.concatenate([row.ids for row in rows])),
        "learn": torch.from_numpy(np.concatenate([row.learn for row in rows])),
        "lengths": torch.tensor([row.length for row in rows]),
        "states": torch.cat(list(states)),
    }


def _unpack(tensors: dict[str, torch.Tensor]) -> list[Replayed]:
    lengths = tensors["lengths"].tolist()
    ids, learn = tensors["ids"].split(lengths), tensors["learn"].split(lengths)
    teachers = tensors["states"].split([int(part[1:].sum()) for part in learn])
    return [
        Replayed(one.numpy(), mask.numpy(), Origin(FOLDER, number, number), teacher)
        for number, (one, mask, teacher) in enumerate(zip(ids, learn, teachers, strict=True), start=1)
    ]
