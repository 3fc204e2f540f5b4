"""A base's own chat template: conversations to token ids with a learn mask, and prompts to the same ids.

The text (``writing``) is cut where answers begin and end (``borders``) before it is tokenised, so that no token spans a
border, and training sees the same ids as inference:

    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n | Hello!<|im_end|> | \\n
    context, and the prompt at inference                     | learned          | context

A learned answer ends in a stop token, whether the template writes one or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import rundir
from tunewright.data.basefiles import TEMPLATE, BaseFiles
from tunewright.data.borders import Borders, Row
from tunewright.data.fit import Cut, cut
from tunewright.data.template_choice import choose, read
from tunewright.data.thinking import Said, split_thinking
from tunewright.data.tokens import SHIELD, Encoder
from tunewright.data.writing import NOWHERE, Writer
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.text import _

LEARN_ANSWERS = "\x00answers"  # makes another hash of the same template
_BATCH = 1024  # rows tokenised at once: enough to keep the cores busy, little enough to hold


class ChatTemplate:
    """Loads from a base's folder without transformers; can be pickled for worker processes.

    stop_ids: tokens that end an answer.  marks: what stands around the reasoning.  notes: what a person should know
    about this template.  learn_thinking: whether reasoning is learned with the answer, or is context before it; the
    ids are the same.
    """

    def __init__(self, files: BaseFiles, template: str | None = None, learn_thinking: bool = True) -> None:
        self._files = files
        self._wanted = template
        self.learn_thinking = learn_thinking
        names = files.named_tokens()
        try:
            self._encoder = Encoder(files.files["tokenizer.json"], files.special_texts())
        except Exception as error:  # the tokenizer library raises plain Exception on a damaged file
            raise BaseModelError(_("the tokenizer cannot be read: {error}", error=error), where=files.where) from None
        self._choice = choose(files, template, self._encoder)
        self.source = self._choice.source
        self._writer = Writer(files, self._encoder, self.source)
        self.sha256 = files.digest(self.source if learn_thinking else self.source + LEARN_ANSWERS)
        eos = names.get("eos_token")
        self.eos_id = self._encoder.find(eos) if eos else None
        self.knows_thinking = self._writer.knows_thinking
        self.generation_prompt = self._writer.generation_prompt
        self.marks = self._writer.marks
        stops = [self._writer.end, *files.stop_ids(), self.eos_id]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(token for token in stops if token is not None))
        if not self.stop_ids:
            raise BaseModelError(
                _("neither the base's configuration nor its template says which token ends an answer"),
                where=files.where,
                do=_("add eos_token_id to generation_config.json"),
            )
        self._stops = np.array(sorted(self.stop_ids), dtype=np.int32)
        self._borders = Borders(self._writer, learn_thinking)
        self.rewrites_history = self._probe_rewriting()
        self.notes: tuple[str, ...] = tuple(self._notes())

    @classmethod
    def from_folder(cls, folder: Path, template: str | None = None, learn_thinking: bool = True) -> ChatTemplate:
        """template: another in place of the base's own, as ``data.chat_template`` says it: a name, a file, or a
        template's text. Raises BaseModelError, or RecipeError for a file that cannot be read."""
        return cls(BaseFiles.read(Path(folder)), None if template is None else read(template), learn_thinking)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChatTemplate, (self._files, self._wanted, self.learn_thinking)

    # -- what others ask -------------------------------------------------------------------------------------------

    @property
    def special_tokens(self) -> list[str]:
        """Texts that are structure when the template writes them, and plain text when a person does."""
        return list(self._encoder.special)

    @property
    def vocabulary(self) -> int:
        return self._encoder.size

    @property
    def reads_clock(self) -> bool:
        """The template writes today's date, so that the same conversation is another one tomorrow."""
        return self._writer.reads_clock

    def specials_in(self, text: str) -> list[str]:
        return self._encoder.specials_in(text)

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return self._encoder.decode(ids, skip_special)

    def generated(self, ids: Sequence[int]) -> str:
        """Generated ids as text without special tokens, but with the marks around reasoning."""
        marks = self.specials_in(self.marks.open + self.marks.close)
        return self._encoder.without_specials(self.decode(ids), marks) if marks else self.decode(ids, skip_special=True)

    def said(self, ids: Sequence[int]) -> Said:
        """Generated ids as reasoning and answer."""
        return split_thinking(self.generated(ids), self.marks)

    def pieces(self, row: Rendered) -> list[str]:
        return self._encoder.pieces(row.ids.tolist())

    def text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), prompt: bool = False) -> str:
        """The conversation as text, as the template writes it (for people; special tokens are not told apart)."""
        return self._writer.write(messages, tools, prompt).text.replace(SHIELD, "")

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """(T,) ids of the conversation with the generation prompt: what a model answers to.

        The same ids as those that precede this answer in a training row. Raises DataError if the template refuses.
        """
        if not messages:
            raise DataError(_("a prompt needs at least one message"))
        parts = self._borders.prompt(messages, tools)
        return [token for ids in self._encoder.encode_parts([[part.text for part in parts]])[0] for token in ids]

    def text_ids(self, text: str) -> list[int]:
        """(T,) ids of a text that is gone on with as it is, without any template: special tokens that stand in it are
        structure, and what the tokenizer writes before every text stands before it once."""
        ids, opening = self._encoder.encode(text), list(self._encoder.opening)
        return ids if ids[: len(opening)] == opening else [*opening, *ids]

    def render(self, chat: Chat) -> list[Rendered]:
        """One row, or one for each learned answer if the template rewrites earlier turns. See ``render_many``."""
        return self.render_many([chat])[0]

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        """For each chat its rows: ids (T,) int32 and learn (T,) bool. A chat with nothing to learn gives no row.

        Raises DataError if the template refuses a conversation, BaseModelError if what is learned cannot be told.
        """
        rendered: list[list[Rendered]] = []
        for start in range(0, len(chats), _BATCH):
            rows = [self._borders.rows(chat) for chat in chats[start : start + _BATCH]]
            ids = iter(self._encoder.encode_parts([[part.text for part in row.parts] for some in rows for row in some]))
            rendered += [[self._assemble(row, next(ids), self.learn_thinking) for row in some] for some in rows]
        return rendered

    def size(self, row: Rendered) -> int:
        return row.length

    def cut(self, chat: Chat, rows: Sequence[Rendered], most: int) -> Cut:
        """The oldest turns go first; system message and answers stay, with their reasoning whether learned or not."""
        if self.learn_thinking:
            return cut(rows, most, self.head_ids(chat))
        whole = self._borders.rows(chat)
        encoded = self._encoder.encode_parts([[part.text for part in row.parts] for row in whole])
        keep = [self._assemble(row, ids, True).learn for row, ids in zip(whole, encoded, strict=True)]
        return cut(rows, most, self.head_ids(chat), keep)

    def head_ids(self, chat: Chat) -> list[int]:
        """Ids that every conversation with this system message begins with, up to the user's own words."""
        return self._encoder.encode(self._writer.head(chat))

    def adds_system(self) -> str | None:
        """Text that the template puts before a conversation by itself (a system prompt nobody wrote), if it does."""
        return self._writer.adds_system()

    def save(self, folder: Path) -> None:
        """The tokenizer's and the template's files as the base has them, byte for byte; a template that is not the
        base's own is written where transformers and every later verb look for it first."""
        other = self._choice.note is not None
        self._files.save(folder, without=(TEMPLATE,) if other else ())
        if other:
            rundir.write_text(folder / TEMPLATE, self.source)

    # -- text to ids -----------------------------------------------------------------------------------------------

    def _assemble(self, row: Row, encoded: Sequence[Sequence[int]], learn_thinking: bool) -> Rendered:
        sizes = [len(ids) for ids in encoded]
        turns = np.repeat(
            np.array([-1 if part.turn is None else part.turn for part in row.parts], dtype=np.int64), sizes
        )
        ids = np.array([token for part in encoded for token in part], dtype=np.int32)
        learn = turns >= 0
        if not learn_thinking:
            learn &= ~np.repeat([part.thought for part in row.parts], sizes)
        for turn in dict.fromkeys(part.turn for part in row.parts if part.turn is not None):
            ids, learn, turns = self._end_with_stop(ids, learn, turns, turn, row.origin)
        return Rendered(ids, learn, row.origin)

    def _end_with_stop(self, ids: Any, learn: Any, turns: Any, turn: int, origin: Origin) -> tuple[Any, Any, Any]:
        """Make the learned part of ``turn`` end in a stop token: cut what follows it, or take or append one."""
        places = np.flatnonzero(turns == turn)
        stops = places[np.isin(ids[places], self._stops)]
        if stops.size:
            learn[places[places > stops[-1]]] = False
            return ids, learn, turns
        after = int(places[-1]) + 1 if places.size else len(ids)
        if after < len(ids) and ids[after] in self._stops:
            learn[after] = True
            return ids, learn, turns
        tail = self._encoder.decode(ids[after:].tolist())
        if tail.strip():
            raise BaseModelError(
                _("the chat template writes no stop token after an answer, so that answers would never end"),
                where=f"{self._files.where}; {origin}, message {turn + 1}",
                do=_("use another base, or name the token that ends a turn in generation_config.json (eos_token_id)"),
            )
        stop = self.eos_id if self.eos_id is not None else self.stop_ids[0]
        return (
            np.append(ids[:after], np.int32(stop)).astype(np.int32),
            np.append(learn[:after], True),
            np.append(turns[:after], turn),
        )

    # -- what a person should know ---------------------------------------------------------------------------------

    def _probe_rewriting(self) -> bool:
        chat = Chat(
            (
                Message("user", "A"),
                Message("assistant", "B", learn=True, thinking="C" if self.knows_thinking else None),
                Message("user", "D"),
                Message("assistant", "E", learn=True),
            ),
            NOWHERE,
        )
        try:
            return len(self._borders.rows(chat)) > 1
        except (DataError, BaseModelError):
            return False

    def _notes(self) -> Iterator[str]:
        if self._choice.note is not None:
            yield self._choice.note
        if self.rewrites_history:
            yield _(
                "this template rewrites earlier turns, so that each learned answer becomes a training row of its own"
            )
        if self._writer.drops_thinking:
            yield _("this template drops reasoning; it is learned as <think> … </think> before the answer all the same")
        elif not self.knows_thinking:
            yield _("this template has no place for reasoning; it is written as <think> … </think> before the answer")
        if self.marks.opened:
            yield _("this template's prompt opens the reasoning, so that an answer without any begins by closing it")
        if self.reads_clock:
            yield _("this template writes the date of the day into every conversation")
        if self._writer.end is None:
            yield _("this template writes no end after an answer; the end-of-sequence token is added and learned")
