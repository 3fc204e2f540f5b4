"""Stop contract: what is learned ends in a token that ends answers, the saved generation config knows these tokens,
and live answers end by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tunewright import rundir
from tunewright.data.codec import Codec
from tunewright.example import Rendered
from tunewright.infer.engines import frozen_generation
from tunewright.text import _
from tunewright.verify.proof import Proof, failed, not_applicable, passed
from tunewright.verify.subject import PROMPTS, Subject

NAME = "stop"
FILE = "generation_config.json"
DOCUMENTS = 256  # whose ends are looked at, where documents are learned
LANGUAGE = 1  # tokens that an encoder-decoder may write behind the end: mBART's language


def prove(subject: Subject) -> Proof:
    if subject.task.gives == "labels":
        return not_applicable(NAME, _("a model that chooses labels generates nothing"))
    prepared = subject.ready.prepared
    frozen = frozen_generation(subject.ready.task, subject.ready.base, prepared.codec)
    stops = set(frozen["eos_token_id"])
    turns, used = 0, set()
    for row, end in _ends(subject):
        turns += 1
        used |= stops & set(end)
        if not stops & set(end):
            text = repr(prepared.codec.decode(end))
            what = _("a learned answer does not end in a token that ends answers, but in {text}", text=text)
            return failed(NAME, what, str(row.origin), _("look at the row with `data show`, and train again"))
    values: dict[str, Any] = {"learned_ends": turns, "stop_ids": sorted(used)}
    numbers = _("{turns:,} of {turns:,} ends learned", turns=turns)
    differing = list(_differing(rundir.read_json(subject.folder / FILE), frozen, prepared.codec))
    if differing:
        return failed(
            NAME, _("{file} is not what the run froze: {text}", file=FILE, text="; ".join(differing)),
            str(subject.folder / FILE), _("write these values back: {values}", values=json.dumps(frozen)), numbers,
            values,
        )  # fmt: skip
    names = ", ".join(f"{prepared.codec.decode([token])!r}" for token in sorted(used))
    numbers = _("{numbers} ({names})", numbers=numbers, names=names)
    if subject.task.gives == "likelihood":
        return passed(NAME, numbers, values)
    return _live(subject, numbers, values)


def _ends(subject: Subject) -> Iterator[tuple[Rendered, list[int]]]:
    """The last tokens of each learned stretch, among which a stop has to be; of documents each one's end, because a
    joined row may stop in the middle of one."""
    prepared, gives = subject.ready.prepared, subject.task.gives
    if gives == "likelihood":
        documents = prepared.codec.render_many(prepared.train_chats[:DOCUMENTS])
        yield from ((row, row.ids[-1:].tolist()) for made in documents for row in made)
        return
    behind = LANGUAGE if gives == "outputs" else 0
    for row in prepared.train:
        last = np.flatnonzero(row.learn & ~np.append(row.learn[1:], False))
        yield from ((row, row.ids[max(0, place - behind) : place + 1].tolist()) for place in last.tolist())


def _differing(saved: Any, frozen: dict[str, Any], codec: Codec) -> Iterator[str]:
    saved = saved if isinstance(saved, dict) else {}
    now = saved.get("eos_token_id")
    ends = set(frozen["eos_token_id"])
    known = {token for token in (now if isinstance(now, list) else [now]) if isinstance(token, int)}
    for token in sorted(ends - known):
        yield _("it lacks the stop id {token} ({text!r}), so that answers would not end", token=token,
                text=codec.decode([token]))  # fmt: skip
    for token in sorted(known - ends):
        yield _("it ends answers at {token} ({text!r}) too", token=token, text=codec.decode([token]))
    for name in sorted(saved.keys() | frozen.keys()):
        if name != "eos_token_id" and saved.get(name) != frozen.get(name):
            yield _("{name} was {then}, is {now}", name=name, then=frozen.get(name), now=saved.get(name))


def _live(subject: Subject, numbers: str, values: dict[str, Any]) -> Proof:
    """The first held-out prompts answered now. An answer that ended when the run was measured has to end again, up to
    half of them: another batch may round otherwise."""
    answers, limit = subject.answers, subject.recipe.evaluate.max_new_tokens
    stopped = sum(answer.stopped for answer in answers)
    then = _then(subject)
    values |= {"answers": len(answers), "stopped": stopped, "limit": limit, "stopped_then": then}
    numbers = _("{numbers}; {stopped} of {answers} answers stop within {limit} tokens",
                numbers=numbers, stopped=stopped, answers=len(answers), limit=limit)  # fmt: skip
    if then is not None and then > 0 and stopped < then / 2:
        what = _("answers do not end any more: {now} of {all} now, {then} when the run was measured",
                 now=stopped, all=len(answers), then=then)  # fmt: skip
        return failed(NAME, what, str(subject.folder), _("bring back the files of the run"), numbers, values)
    if answers and not stopped and _fit(subject, answers):
        what = _("none of {all} answers ends by itself within {limit} tokens, though the rows' own would",
                 all=len(answers), limit=limit)  # fmt: skip
        do = _("train longer, or look at the ends of answers with `data show`")
        return failed(NAME, what, str(subject.folder), do, numbers, values)
    return passed(NAME, numbers, values)


def _then(subject: Subject) -> int | None:
    """How many of the same answers ended when the run was measured; None where they were not all measured."""
    with subject.run.reading(rundir.EVALUATION):
        rows: Sequence[dict[str, Any]] = subject.run.read(rundir.EVALUATION).get("rows", [])
        stopped = [bool(row.get("after", {}).get("stopped")) for row in rows[:PROMPTS]]
    answers = len(subject.answers)
    return sum(stopped[:answers]) if len(rows) >= answers else None


def _fit(subject: Subject, answers: Sequence[Any]) -> bool:
    """Whether the rows' own answers end within the limit."""
    limit = subject.recipe.evaluate.max_new_tokens
    return limit != "auto" and all(row.learned <= limit for row in subject.rows[: len(answers)])
