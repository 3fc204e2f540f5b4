"""Keeping what the base can do: its own answers to general prompts are mixed into the training.

A model that is taught one thing forgets others where its weights are shared. Rows that say "answer this as you always
did" hold it in place; that the base wrote them itself means that they pull it nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from tunewright import rundir
from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.infer.engine import Engine, Progress
from tunewright.settings import settings

PROMPTS = "general_prompts.txt"
ANSWER_TOKENS = 64


def prompts() -> list[str]:
    """The bundled general prompts, one a line."""
    text = files("tunewright.train").joinpath(PROMPTS).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def answered(
    engine: Engine, template: ChatTemplate, base_sha256: str, system: str | None, progress: Progress | None = None
) -> list[Rendered]:
    """The general prompts with the base's own greedy answers, as rows to learn.

    Answers are kept in the cache by base and prompt, because they never change.
    """
    opening = [Message("system", system)] if system else []
    chats = [[*opening, Message("user", text)] for text in prompts()]
    asked = [template.prompt_ids(chat) for chat in chats]
    name = hashlib.sha256(json.dumps([base_sha256, template.sha256, asked, ANSWER_TOKENS]).encode()).hexdigest()[:32]
    path = settings().cache / "replay" / f"{name}.json"
    if path.exists():
        answers = rundir.read_json(path)
        if progress:
            progress(len(asked))
    else:
        found = engine.generate(asked, ANSWER_TOKENS, progress)
        answers = [{"ids": list(a.ids), "text": a.text, "stopped": a.stopped} for a in found]
        rundir.write_json(path, answers)
    rows: list[Rendered] = []
    for number, (chat, prompt, answer) in enumerate(zip(chats, asked, answers, strict=True), start=1):
        origin = Origin(PROMPTS, number, number)
        if answer["stopped"]:
            rows += template.render(Chat((*chat, Message("assistant", answer["text"], learn=True)), origin))
        elif answer["ids"]:
            rows.append(_unended(prompt, answer["ids"], origin))
    return rows


def _unended(prompt: Sequence[int], answer: Sequence[int], origin: Origin) -> Rendered:
    """An answer that was cut off: learned as far as it goes, without an end that the base never gave."""
    ids = np.array([*prompt, *answer], dtype=np.int32)
    return Rendered(ids, np.arange(len(ids)) >= len(prompt), origin)
