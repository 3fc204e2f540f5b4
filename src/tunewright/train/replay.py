"""Keeping what the base can do: general prompts, as the base itself would go on with them, are part of each step.

A model that is taught one thing forgets others where its weights are shared. The base answers bundled general prompts
once; while training, the tuned model's distribution at these answers is held to the base's (Kullback-Leibler
divergence, base first), which says more than the words alone. The base's distribution is kept as its last hidden
states: the output matrix, which an adapter leaves alone, makes logits of them again, so no second pass through the
base is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tunewright import rundir
from tunewright.data.lengths import micro_batches
from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.infer.engine import Generation, Progress
from tunewright.infer.transformers import TransformersEngine
from tunewright.model.forward import HiddenStates, collate
from tunewright.model.loss import Replayed
from tunewright.settings import settings
from tunewright.tasks.chat import ask

PROMPTS = "general_prompts.txt"
ANSWER_TOKENS = 32


def prompts() -> list[str]:
    """The bundled general prompts, one a line."""
    text = files("tunewright.train").joinpath(PROMPTS).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def answered(
    engine: TransformersEngine, template: ChatTemplate, base: str, system: str | None, progress: Progress
) -> list[Replayed]:
    """The general prompts with the base's own answers. ``engine`` holds the base, whose sha256 is ``base``.

    Answers never change, so they are kept in the cache by base, template and prompts.
    """
    texts = prompts()
    asked = [ask(text, template, system) for text in texts]
    kind = str(engine.model.dtype)
    name = hashlib.sha256(json.dumps([base, template.sha256, asked, ANSWER_TOKENS, kind]).encode()).hexdigest()[:32]
    path = settings().cache / "replay" / f"{name}.safetensors"
    try:
        with safe_open(str(path), "pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in ("ids", "learn", "lengths", "states")}
        progress(len(asked))
    except (OSError, SafetensorError):  # not there yet, or damaged: made anew
        answers = engine.generate(asked, ANSWER_TOKENS, progress)
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
    origin = Origin(PROMPTS, number, number)
    if answer.stopped and answer.finished:
        said = Message("assistant", answer.text, learn=True, thinking=answer.thinking)
        return template.render(Chat((*before, said), origin))[-1]
    ids = np.array([*prompt, *answer.ids], dtype=np.int32)
    return Rendered(ids, np.arange(len(ids)) >= len(prompt), origin)


@torch.no_grad()
def _states(engine: TransformersEngine, rows: Sequence[Rendered]) -> dict[int, torch.Tensor]:
    states, found = HiddenStates(engine.model), {}
    for group in micro_batches([row.length for row in rows], engine.token_budget):
        batch = collate([rows[index] for index in group], engine.model.device)
        hidden = states(batch).cpu()
        for index, part in zip(group, hidden.split([rows[i].learned for i in group]), strict=True):
            found[index] = part
    return found


def _pack(rows: Sequence[Rendered], states: dict[int, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "ids": torch.from_numpy(np.concatenate([row.ids for row in rows])),
        "learn": torch.from_numpy(np.concatenate([row.learn for row in rows])),
        "lengths": torch.tensor([row.length for row in rows]),
        "states": torch.cat([states[index] for index in range(len(rows))]),
    }


def _unpack(tensors: dict[str, torch.Tensor]) -> list[Replayed]:
    lengths = tensors["lengths"].tolist()
    ids, learn = tensors["ids"].split(lengths), tensors["learn"].split(lengths)
    teachers = tensors["states"].split([int(part[1:].sum()) for part in learn])
    return [
        Replayed(one.numpy(), mask.numpy(), Origin(PROMPTS, number, number), teacher)
        for number, (one, mask, teacher) in enumerate(zip(ids, learn, teachers, strict=True), start=1)
    ]
