"""What a base could do and the tuned model must still do: questions with four answers, and how far its words moved.

The questions of ``questions.txt`` are not answered in words: the likeliest of four answers counts, so that a model that
now says everything differently is not taken for one that forgot. The divergence is taken at the base's own answers to
the prompts of ``prompts.txt``; ten of them are answered by both for people to read. The cache keeps the base's side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tunewright import rundir
from tunewright.data.template import ChatTemplate
from tunewright.evaluate.kept import Retained
from tunewright.evaluate.questions import Asked, prompts
from tunewright.example import Rendered
from tunewright.infer import held
from tunewright.infer.engine import Generation, Progress
from tunewright.settings import settings

ANSWER_TOKENS = 32
SIDE_BY_SIDE = 10  # prompts whose answers are shown
FOLDER = "retention"  # in the cache


def work(asked: Sequence[Asked], tuned: bool) -> int:
    """How much ``progress`` will count up to."""
    reported, watched = prompts()
    return len(asked) + len(reported) + (SIDE_BY_SIDE if tuned else len(watched))


def of_base(
    engine: Any, asked: Sequence[Asked], base: str, system: str | None, keep_head: bool,
    progress: Progress,
) -> Retained:
    """``engine`` (of a chat) holds the base, whose sha256 is ``base``. keep_head: its output matrix will be trained."""
    reported, watched = prompts()
    template = engine.template
    rows, more = (
        held.answered(engine, template, base, system, texts, ANSWER_TOKENS, progress) for texts in (reported, watched)
    )
    head = engine.model.get_output_embeddings()
    return Retained(
        asked=tuple(asked),
        scores=tuple(_base_scores(engine, asked, base, progress)),
        held=tuple(rows),
        moved=(0.0,) * len(rows),
        said=tuple(_said(row, template) for row in rows[:SIDE_BY_SIDE]),
        watched=tuple(more),
        head=head.weight.detach().clone() if keep_head and head is not None else None,
    )


def of_tuned(engine: Any, base: Retained, progress: Progress) -> Retained:
    """The same of the tuned model. base: what :func:`of_base` gave."""
    rows = base.held
    shown = [row.ids[: int(row.learn.argmax())].tolist() for row in rows[:SIDE_BY_SIDE]]
    return Retained(
        asked=base.asked,
        scores=tuple(engine.choose([one.choices for one in base.asked], progress)),
        held=rows,
        moved=tuple(engine.diverged(rows, base.head, progress)),
        said=tuple(engine.generate(shown, ANSWER_TOKENS, progress)),
        watched_moved=moved(engine, base),
    )


def moved(engine: Any, base: Retained) -> float:
    """Divergence in nats a token at the watched prompts: what the end of an epoch tells."""
    return sum(engine.diverged(base.watched, base.head)) / max(1, sum(row.learned for row in base.watched))


def _base_scores(
    engine: Any, asked: Sequence[Asked], base: str, progress: Progress
) -> list[tuple[float, ...]]:
    """From the cache, where this base has been asked the same before, in the same precision."""
    ids = [[one.choices.prompt, one.choices.options] for one in asked]
    name = hashlib.sha256(json.dumps([base, ids, str(engine.model.dtype)]).encode()).hexdigest()[:32]
    path = settings().cache / FOLDER / f"{name}.json"
    try:
        stored = [tuple(map(float, row)) for row in json.loads(path.read_text(encoding="utf-8"))]
        if [len(row) for row in stored] == [len(one.choices.options) for one in asked]:
            progress(len(asked))
            return stored
    except (OSError, ValueError, TypeError):  # not there yet, or damaged: made anew
        pass
    made = engine.choose([one.choices for one in asked], progress)
    rundir.write_json(path, [list(row) for row in made])
    return made


def _said(row: Rendered, template: ChatTemplate) -> Generation:
    """The base's answer, back from its row."""
    ids = row.ids[row.learn].tolist()
    stopped = bool(ids) and ids[-1] in template.stop_ids
    said = template.said(ids[:-1] if stopped else ids)
    return Generation(tuple(ids), said.answer.strip(), stopped, said.thinking, said.finished)
