"""The task ``classify`` with the head ``label_token``: a causal model is asked, and answers with a label's word.

    Review: A warm film.\\nSentiment: |  positive
    the prompt                       | the word, of which only the first token is learned

The prompt is all that the model reads: plain text, unless ``data.chat_template`` asks for turns. With SmolLM2-135M that
is twice as quick as the base's own template, whose system message alone is longer than a review, and better before
training. A row is what chat training would make of it, ended behind the first token of the label's word. Logits are
computed at that one place and over the labels' first tokens alone, so a prediction is a probability of each label, and
the base can be measured before anything is trained. Two labels that begin with the same token could not be told apart;
that is an error which names both.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import rundir
from tunewright.data.basefiles import GENERATION, TOKENIZER, BaseFiles
from tunewright.data.codec import Codec
from tunewright.data.fit import Cut
from tunewright.data.template import ChatTemplate
from tunewright.data.texts import given, wanted
from tunewright.data.tokens import Encoder
from tunewright.errors import BaseModelError, DataError, RecipeError
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.model.catalog import suited
from tunewright.model.labels import LabelLoss, TokenLogits
from tunewright.model.load import require_decoder
from tunewright.recipe.schema import Recipe
from tunewright.tasks.interface import Gives, Head, Objective, Question, Reads
from tunewright.text import _

# Names no subject. Of ten prompts tried on 160 reviews an untrained base answered this one best; other rows may differ.
PROMPT = "{text}\nIn one word, this is"
PAIR_PROMPT = "First: {text}\nSecond: {pair}\nIn one word, this is"
SAVED = "label_token.json"

# What is said, and nothing around it but a space before the label's word.
PLAIN_TEXT = """\
{%- for message in messages %}
    {{- ' ' if message.role == 'assistant' }}{{ message.content }}{{ '\\n\\n' if message.role == 'system' }}
{%- endfor %}"""
_FIELD = re.compile(r"\{(\w+)\}")
_MARK = "Qzxw"  # stands for an answer where only its place is wanted


class LabelTokenTask:
    name = "label_token"
    reads: Reads = "labels"
    head: Head = "decoder"
    gives: Gives = "labels"
    retains = False

    def require(self, folder: Path, name: str) -> None:
        try:
            require_decoder(folder, name)
        except BaseModelError as error:
            raise BaseModelError(
                _("{name} cannot answer with a label's word, because it writes no text", name=name), where=error.where,
                do=_("set classify.head to linear, or take one of these: {names}", names=", ".join(suited("chat"))),
                command="tunewright train DATA classify.head=linear",
            ) from None  # fmt: skip

    def codec(self, folder: Path, recipe: Recipe, labels: Sequence[str] = ()) -> LabelTokenCodec:
        classify = recipe.classify
        if classify.multi_label:
            raise RecipeError(
                _("a label's word is one answer, and classify.multi_label asks for several"),
                where="classify.multi_label", do=_("set classify.head to linear"),
                command="tunewright train DATA classify.multi_label=true classify.head=linear",
            )  # fmt: skip
        stored = _stored(folder)
        prompts = tuple(stored.get("prompts", (PROMPT, PAIR_PROMPT)))
        if classify.prompt is not None:
            _check_prompt(classify.prompt)
            prompts = (classify.prompt, classify.prompt)
        template, notes = _template(folder, recipe.data.chat_template)
        names = tuple(labels) or tuple(stored.get("labels", ()))
        words = classify.words or stored.get("words", {})
        return LabelTokenCodec(template, names, words, prompts, recipe.data.truncation_side, notes)

    def objective(self, model: Any, codec: Codec) -> Objective:
        return LabelLoss(self.logits(model, codec))

    def logits(self, model: Any, codec: Codec) -> TokenLogits:
        assert isinstance(codec, LabelTokenCodec)
        return TokenLogits(model, codec.label_ids)

    def question(self, chat: Chat, codec: Codec) -> Question | None:
        assert isinstance(codec, LabelTokenCodec)
        last = chat.last_answer()
        if last is None:
            return None
        text, pair = codec.given(chat)
        row = codec.render_many([chat])[0][0]
        return Question(row.ids[:-1].tolist(), text if pair is None else f"{text}\n{pair}", chat.messages[last].content)

    def given(self, chat: Chat) -> tuple[str, str | None]:
        return given(chat)

    def wanted(self, chat: Chat, labels: Sequence[str]) -> tuple[int, ...]:
        return wanted(chat, labels)


class LabelTokenCodec:
    """labels: names in the order of their numbers; empty before they are known, and then nothing can be rendered.
    words: what is answered for each.  label_ids: the first token of each word.  prompts: for one text, and for two.
    side: from which end a text that is too long is cut.

    Raises RecipeError for a prompt without its text, a word that is empty or of no label, and two labels that begin
    with the same token.
    """

    def __init__(
        self, template: ChatTemplate, labels: tuple[str, ...], words: Mapping[str, str], prompts: tuple[str, str],
        side: str, own_notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        _check_words(words, labels)
        self.template, self.labels, self.prompts, self.side = template, labels, prompts, side
        self.words = tuple(words.get(label, label) for label in labels)
        self.label_ids: tuple[int, ...] = ()
        self._before = 0  # tokens of an answer that the template writes before the word itself
        if labels:
            self._place_words()
        self.notes = (*own_notes, *self._notes())
        decides = (template.sha256, prompts, side, labels, sorted(words.items()))  # words before labels are known, too
        self.sha256 = hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    @property
    def reads_clock(self) -> bool:
        return self.template.reads_clock

    def given(self, chat: Chat) -> tuple[str, str | None]:
        return given(chat)

    def wanted(self, chat: Chat) -> tuple[int, ...]:
        return wanted(chat, self.labels)

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        """One row to each chat that has a label: its prompt, and the label's token."""
        asked = [self._asked(chat, *given(chat)) if _is_labelled(chat) else None for chat in chats]
        rows = iter(self.template.render_many([chat for chat in asked if chat is not None]))
        return [[] if chat is None else [self._ended(next(rows)[-1], chat)] for chat in asked]

    def size(self, row: Rendered) -> int:
        return row.length

    def cut(self, chat: Chat, rows: Sequence[Rendered], most: int) -> Cut:
        """The text (of two, the longer one first) loses characters at one end until the whole fits. What is left is
        written as a text that was never longer, so no token of the prompt changes."""
        low, high = 0, sum(len(text) for text in given(chat) if text)  # characters that fit, and that do not
        if self._shortened(chat, 0).length > most:
            raise RecipeError(
                _("the prompt without its text takes more than {most} tokens", most=most), where="data.max_length",
                do=_("raise data.max_length, or shorten classify.prompt"),
                command="tunewright recipe explain data.max_length",
            )  # fmt: skip
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._shortened(chat, middle).length <= most else (low, middle)
        if not low:
            return Cut((), 0)
        row = self._shortened(chat, low)
        return Cut((row,), sum(r.length for r in rows) - row.length)

    def specials_in(self, text: str) -> list[str]:
        return self.template.specials_in(text)

    def adds_system(self) -> str | None:
        return self.template.adds_system()

    def pieces(self, row: Rendered) -> list[str]:
        return self.template.pieces(row)

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return self.template.decode(ids, skip_special)

    def save(self, folder: Path) -> None:
        """Tokenizer and template, and beside them labels, words and prompts: a run knows them without its data."""
        self.template.save(folder)
        words = dict(zip(self.labels, self.words, strict=True))
        rundir.write_json(folder / SAVED, {"labels": list(self.labels), "words": words, "prompts": list(self.prompts)})
        if not (folder / GENERATION).exists():  # where a template looks for the tokens that end an answer
            rundir.write_json(folder / GENERATION, {"eos_token_id": list(self.template.stop_ids)})

    # -- rows ----------------------------------------------------------------------------------------------------

    def _asked(self, chat: Chat, text: str, pair: str | None) -> Chat:
        """The conversation that is trained: system message, prompt, word."""
        prompt = self.prompts[pair is not None]
        if ("{pair}" in prompt) != (pair is not None):
            what = _("the row has two texts, and classify.prompt has no place for {pair}", pair="{pair}")
            if pair is None:
                what = _("the row has one text, and classify.prompt asks for {pair}", pair="{pair}")
            raise DataError(what, where=str(chat.origin), do=_("change classify.prompt, or data.columns"))
        values = {"text": text, "pair": pair or "", "labels": ", ".join(self.words)}
        question = Message("user", _FIELD.sub(lambda found: values.get(found[1], found[0]), prompt))
        system = [message for message in chat.messages[:1] if message.role == "system"]
        answer = Message("assistant", self.words[self.wanted(chat)[0]], learn=True)
        return Chat((*system, question, answer), chat.origin)

    def _ended(self, row: Rendered, asked: Chat) -> Rendered:
        """A row of chat training, ended behind the first token of the label's word, which alone is learned. asked: what
        was rendered."""
        end = int(row.learn.argmax()) + self._before + 1
        if int(row.ids[end - 1]) != self.label_ids[self.words.index(asked.messages[-1].content)]:
            raise BaseModelError(
                _("the base's chat template writes the label of this row unlike those of others"),
                where=str(row.origin), do=_("take another base, or data.chat_template=plain"),
            )  # fmt: skip
        learn = np.zeros(end, dtype=np.bool_)
        learn[-1] = True
        return Rendered(row.ids[:end].copy(), learn, row.origin)

    def _shortened(self, chat: Chat, characters: int) -> Rendered:
        """The row of ``chat`` with only so many characters of its texts."""
        text, pair = given(chat)
        first = characters
        if pair is not None:  # the longer one gives first, then both alike
            first = min(len(text), max(characters - len(pair), characters // 2))
            pair = _end(pair, characters - first, self.side)
        asked = self._asked(chat, _end(text, first, self.side), pair)
        return self._ended(self.template.render_many([asked])[0][-1], asked)

    # -- words ---------------------------------------------------------------------------------------------------

    def _place_words(self) -> None:
        """Where in an answer its word begins, and which token it begins with.

        A template may write something before every answer (an empty ``<think>`` block); the words begin behind it.
        """
        origin = Origin(_("the words of the labels"), 0, 0)
        asked = [(Message("user", "A"), Message("assistant", word, learn=True)) for word in self.words]
        rows = [some[-1] for some in self.template.render_many([Chat(messages, origin) for messages in asked])]
        starts = [int(row.learn.argmax()) for row in rows]
        prompt = self.template.text(asked[0][:1], prompt=True)
        before = self.template.text([asked[0][0], Message("assistant", _MARK)]).partition(_MARK)[0]
        opening = len(before) - len(prompt) if before.startswith(prompt) else 0
        # The least of all: where one word's space is a token of its own and another's is not, the space is what the
        # first of them begins with, or the prompt of the other would hold a piece of its answer.
        pieces = [self.template.pieces(row)[start:] for row, start in zip(rows, starts, strict=True)]
        self._before = min(_within(some, opening) for some in pieces)
        self.label_ids = tuple(int(row.ids[start + self._before]) for row, start in zip(rows, starts, strict=True))
        known: dict[int, int] = {}
        for number, token in enumerate(self.label_ids):
            if token in known:
                raise self._same_token(known[token], number)
            known[token] = number

    def _same_token(self, one: int, other: int) -> RecipeError:
        token = self.template.decode([self.label_ids[one]])
        pair = {"one": self.labels[one], "other": self.labels[other], "token": token}
        return RecipeError(
            _("the labels {one!r} and {other!r} begin with the same token, {token!r}, and could not be told apart",
              **pair),
            where="classify.words",
            do=_("give words that begin differently, such as classify.words={example}", example=self._example()),
            command="tunewright train DATA classify.head=linear",
        )  # fmt: skip

    def _example(self) -> str:
        letters = [f"{label}: {chr(ord('A') + number)}" for number, label in enumerate(self.labels[:26])]
        return "{" + ", ".join(letters[:3]) + (", …}" if len(letters) > 3 else "}")

    def _notes(self) -> Iterator[str]:
        parts = [
            (label, self.template.decode([token]))
            for label, word, token in zip(self.labels, self.words, self.label_ids, strict=True)
            if self.template.decode([token]).strip() != word.strip()
        ]
        if parts:
            shown = ", ".join(f"{token!r} for {label!r}" for label, token in parts[:4])
            yield _("labels are told apart by the first token of their words: {tokens}", tokens=shown)


def _within(pieces: Sequence[str], length: int) -> int:
    """How many of the first tokens lie wholly within the first ``length`` characters."""
    count = place = 0
    while place < length and count < len(pieces) and place + len(pieces[count]) <= length:
        place += len(pieces[count])
        count += 1
    return count


def _end(text: str, characters: int, side: str) -> str:
    """``text`` cut at ``side`` to so many characters."""
    return text[:characters] if side == "right" else text[len(text) - characters :]


def _is_labelled(chat: Chat) -> bool:
    return chat.last_answer() is not None


def _check_prompt(prompt: str) -> None:
    fields = _FIELD.findall(prompt)
    unknown = [name for name in fields if name not in ("text", "pair", "labels")]
    if unknown:
        what = _("classify.prompt has a field {{{name}}} that nothing fills in", name=unknown[0])
    elif "text" not in fields:
        what = _("classify.prompt has no {text}, so the model would not see the text", text="{text}")
    else:
        return
    raise RecipeError(
        what, where="classify.prompt", do=_("use {fields}", fields="{text}, {pair}, {labels}"),
        command="tunewright recipe explain classify.prompt",
    )  # fmt: skip


def _check_words(words: Mapping[str, str], labels: Sequence[str]) -> None:
    for label in words:
        if labels and label not in labels:
            near = difflib.get_close_matches(label, labels, n=1)
            known = _("labels are: {names}", names=", ".join(labels))
            raise RecipeError(
                _("classify.words has a word for {label!r}, which is no label", label=label), where="classify.words",
                do=_("did you mean {near!r}?", near=near[0]) if near else known,
                command="tunewright recipe explain classify.words",
            )  # fmt: skip
    for label in labels or words:
        if not words.get(label, label).strip():
            raise RecipeError(
                _("the word for the label {label!r} is empty", label=label), where="classify.words",
                do=_("give a word that the model can answer with"), command="tunewright recipe explain classify.words",
            )  # fmt: skip


def _template(folder: Path, wanted: str | None) -> tuple[ChatTemplate, tuple[str, ...]]:
    """What the prompt is written with, and what a person should know about it. A run's folder has its own."""
    if wanted is not None or (folder / SAVED).exists():
        template = ChatTemplate.from_folder(folder, wanted)
        return template, template.notes[:1] if wanted else ()
    note = _("the prompt is plain text and the label's word follows behind a space (no chat template is used)")
    files = BaseFiles.read(folder)
    encoder = Encoder(files.files[TOKENIZER], files.special_texts())
    opening = "".join(map(encoder.text_of, encoder.opening))  # what the base sees before every text
    first = "{{- " + json.dumps(opening, ensure_ascii=False) + " }}\n" if opening else ""
    return ChatTemplate.from_folder(folder, first + PLAIN_TEXT), (note,)


def _stored(folder: Path) -> dict[str, Any]:
    path = folder / SAVED
    return dict(rundir.read_json(path)) if path.exists() else {}
