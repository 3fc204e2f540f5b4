"""Template parity: the ids that were learned are the ids that the run's own tokenizer and template write today.

Four hands write the same examples: the training (its rows, as the recipe makes them of the data), the base's tokenizer
and template anew, the files saved in the run, which chat, predict and every endpoint read, and for chats transformers'
own ``apply_chat_template`` on the saved files, which is what other software will do with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from tunewright.data.codec import Codec
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.infer.open import saved_codec
from tunewright.model.load import quiet
from tunewright.tasks import JoiningTask
from tunewright.text import _
from tunewright.verify.proof import Proof, failed, passed
from tunewright.verify.subject import Subject, is_weights

NAME = "template"
EXAMPLES = 256  # evenly spread over the training data
NEIGHBOURS = 6  # tokens shown on each side of the first that differs

Place = tuple[str, int, int]
Written = dict[Place, list[Rendered]]


@dataclass(frozen=True)
class Difference:
    """The first place at which two hands wrote something else."""

    origin: Origin
    token: int
    hands: tuple[str, str]
    shown: tuple[str, str]

    @property
    def text(self) -> str:
        (one, other), (first, second) = self.hands, self.shown
        return _("token {token}: {one} {first}, {other} {second}",
                 token=self.token + 1, one=one, first=first, other=other, second=second)  # fmt: skip


@dataclass
class _Counts:
    rows: int = 0
    ids: int = 0
    prompts: int = 0
    plain: int = 0
    not_plain: int = 0


def prove(subject: Subject) -> Proof:
    chats = _spread(subject.ready.prepared.train_chats)
    saved = saved_codec(subject.folder, subject.recipe, subject.labels)
    counts = _Counts()
    with subject.listener.doing(_("Writing rows again"), 4) as progress:
        difference = None
        for look in (_trained, _anew, _prompts, _plain):
            difference = difference or next(look(subject, saved, chats, counts), None)
            progress(1)
    values: dict[str, Any] = {
        "examples": len(chats), "rows": counts.rows, "ids": counts.ids, "prompts": counts.prompts,
        "by_transformers": counts.plain,
    }  # fmt: skip
    numbers = _("{rows:,} rows, {ids:,} ids", rows=counts.rows, ids=counts.ids)
    changed = subject.changed_files(lambda name: _is_ours(name, subject.task.gives == "labels"))
    if difference is not None:
        what = _("the saved tokenizer and template write other ids than were learned; {text}", text=difference.text)
        return failed(NAME, what, str(difference.origin), _advice(changed), numbers, values)
    if changed:
        what = _("{files} changed after the run ended, though the ids of these rows are the same", files=changed[0])
        return failed(NAME, what, str(subject.run.file(changed[0])), _advice(changed), numbers, values)
    numbers += _(", {prompts:,} prompts", prompts=counts.prompts) if counts.prompts else ""
    numbers += _("; transformers writes {n:,} of them alike", n=counts.plain) if counts.plain else ""
    notes = []
    if counts.not_plain:
        notes.append(
            _("transformers' apply_chat_template writes {n} of {of} rows and prompts otherwise, with the base's own "
              "files too", n=counts.not_plain, of=counts.not_plain + counts.plain)
        )  # fmt: skip
    return passed(NAME, numbers, values, tuple(notes))


def _advice(changed: Sequence[str] | None) -> str:
    files = ", ".join(changed) if changed else _("tokenizer and template of the run")
    return _("bring back {files} as the run wrote it, or train again", files=files)


def _is_ours(name: str, generates_nothing: bool) -> bool:
    """Weights and what they are shaped like are identity's, the generation config the stop contract's."""
    if name == "generation_config.json":
        return generates_nothing
    return not is_weights(name)


# -- the four hands ----------------------------------------------------------------------------------------------------


def _trained(subject: Subject, saved: Codec, chats: Sequence[Chat], counts: _Counts) -> Iterator[Difference]:
    """The training's rows against the saved files."""
    prepared, task = subject.ready.prepared, subject.ready.task
    if isinstance(task, JoiningTask):
        some = prepared.train_chats[:EXAMPLES]
        rows = [row for made in saved.render_many(some) for row in made]
        joined = list(task.arrange(rows, prepared.max_length))
        whole = len(some) == len(prepared.train_chats)
        now = joined if whole else joined[:-1]  # the last one would have gone on with the next document
        then = list(prepared.train[: len(now)])
    else:
        wanted = {_place(chat.origin) for chat in chats}
        by_place: Written = {}
        for row in prepared.train:
            if _place(row.origin) in wanted:
                by_place.setdefault(_place(row.origin), []).append(row)
        written = _written(saved, chats, subject)
        then = [row for chat in chats for row in by_place.get(_place(chat.origin), [])]
        now = [row for chat in chats for row in written.get(_place(chat.origin), [])]
    counts.rows, counts.ids = len(then), sum(row.length for row in then)
    yield from _differences(then, now, (_("learned"), _("saved")), (prepared.codec, saved))


def _anew(subject: Subject, saved: Codec, chats: Sequence[Chat], _counts: _Counts) -> Iterator[Difference]:
    """The base's own files read anew against the saved ones, on whole examples."""
    base, recipe = subject.ready.base, subject.ready.recipe
    codec = subject.ready.task.codec(base.folder, recipe, subject.labels)
    then, now = ([row for made in one.render_many(chats) for row in made] for one in (codec, saved))
    yield from _differences(then, now, (_("base"), _("saved")), (codec, saved))


def _prompts(subject: Subject, saved: Codec, chats: Sequence[Chat], counts: _Counts) -> Iterator[Difference]:
    """What the model is asked with, against what stood before the answer when it was learned."""
    base = subject.ready.prepared.codec
    for chat, rows in zip(chats, base.render_many(chats), strict=True):
        question = subject.ready.task.question(chat, saved)
        if question is None or not rows:
            continue
        counts.prompts += 1
        asked = np.array(question.prompt, dtype=np.int32)
        learned = rows[-1].ids[: len(asked)]
        if not np.array_equal(asked, learned):
            hands = (_("learned"), _("asked"))
            yield _difference(chat.origin, learned, asked, hands, (base, saved))


def _plain(subject: Subject, saved: Codec, chats: Sequence[Chat], counts: _Counts) -> Iterator[Difference]:
    """transformers with the saved files. A base whose template it writes otherwise than we do, with the base's own
    files, is none that this could be asked of."""
    task = subject.ready.task
    if task.name != "chat":
        return
    with quiet():
        ours = AutoTokenizer.from_pretrained(str(subject.folder), local_files_only=True)
        own = subject.recipe.data.chat_template is None
        theirs = AutoTokenizer.from_pretrained(str(subject.ready.base.folder), local_files_only=True) if own else ours
    codec = subject.ready.prepared.codec
    plain = [chat for chat in chats if _is_plain(chat, codec)]
    for chat, rows in zip(plain, codec.render_many(plain), strict=True):
        question, last = task.question(chat, codec), chat.last_answer()
        asked = [] if question is None else [(np.array(question.prompt, dtype=np.int32), chat.messages[:last], True)]
        whole = [(rows[0].ids, chat.messages, False)] if len(rows) == 1 else []
        for expected, messages, prompt in (*asked, *whole):
            if not np.array_equal(_applied(theirs, messages, prompt), expected):
                counts.not_plain += 1
                continue
            counts.plain += 1
            found = _applied(ours, messages, prompt)
            if not np.array_equal(found, expected):
                hands = (_("learned"), _("transformers"))
                yield _difference(chat.origin, expected, found, hands, (codec, saved))


def _is_plain(chat: Chat, codec: Codec) -> bool:
    """Nothing in it that every software passes to a template in its own way, or takes for structure."""
    return not chat.tools and all(
        not message.tool_calls and message.thinking is None and not codec.specials_in(message.content)
        for message in chat.messages
    )


def _applied(tokenizer: Any, messages: Sequence[Message], prompt: bool) -> Any:
    if not messages or tokenizer.chat_template is None:
        return np.zeros(0, dtype=np.int32)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    with quiet():
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, tokenize=True, return_dict=False)
    return np.array(ids, dtype=np.int32)


# -- rows and what differs in them -------------------------------------------------------------------------------------


def _spread(chats: Sequence[Chat]) -> list[Chat]:
    places = np.unique(np.linspace(0, len(chats) - 1, min(len(chats), EXAMPLES)).round().astype(int)).tolist()
    return [chats[place] for place in places]


def _place(origin: Origin) -> Place:
    return origin.file, origin.line, origin.row


def _written(codec: Codec, chats: Sequence[Chat], subject: Subject) -> Written:
    """Rows of each example, cut where they were cut for training."""
    most = subject.ready.prepared.max_length
    written: Written = {}
    for chat, rows in zip(chats, codec.render_many(chats), strict=True):
        fits = all(codec.size(row) <= most for row in rows)
        written[_place(chat.origin)] = rows if fits else list(codec.cut(chat, rows, most).rows)
    return written


def _differences(
    then: Sequence[Rendered], now: Sequence[Rendered], hands: tuple[str, str], codecs: tuple[Codec, Codec]
) -> Iterator[Difference]:
    for one, other in zip(then, now, strict=False):
        if not np.array_equal(one.ids, other.ids):
            yield _difference(one.origin, one.ids, other.ids, hands, codecs)
        elif not np.array_equal(one.learn, other.learn):
            place = int((one.learn != other.learn).argmax())
            words = tuple(_("learns it") if row.learn[place] else _("does not learn it") for row in (one, other))
            yield Difference(one.origin, place, hands, (words[0], words[1]))
    if len(then) != len(now):
        longer = then if len(then) > len(now) else now
        rows = tuple(_("{n} rows", n=len(side)) for side in (then, now))
        yield Difference(longer[min(len(then), len(now))].origin, 0, hands, (rows[0], rows[1]))


def _difference(
    origin: Origin, one: Any, other: Any, hands: tuple[str, str], codecs: tuple[Codec, Codec]
) -> Difference:
    shared = min(len(one), len(other))
    unequal = np.flatnonzero(one[:shared] != other[:shared])
    place = int(unequal[0]) if unequal.size else shared
    shown = [_shown(ids, place, codec) for ids, codec in zip((one, other), codecs, strict=True)]
    return Difference(origin, place, hands, (shown[0], shown[1]))


def _shown(ids: Any, place: int, codec: Codec) -> str:
    """The token at ``place`` in »marks« between its neighbours, on one line."""
    start = max(0, place - NEIGHBOURS)
    before, token, after = (
        codec.decode(part.tolist())
        for part in (ids[start:place], ids[place : place + 1], ids[place + 1 :][:NEIGHBOURS])
    )
    return repr(f"{before}»{token}«{after}") if place < len(ids) else _("ends after {text}", text=repr(before))
