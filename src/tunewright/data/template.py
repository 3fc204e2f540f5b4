"""A base's own chat template: conversations to token ids with a learn mask, and prompts to the same ids.

Which text is learned comes from the messages, never from searching for marker strings: it is the difference between
the conversation up to an answer with the generation prompt, and the conversation with that answer, and it counts only
if the first is a true prefix of the second. (Templates with ``{% generation %}`` marks say it themselves.) The text is
cut at these borders before it is tokenised, so that no token spans one, and training sees the same ids as inference:

    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n | Hello!<|im_end|> | \\n
    context, and the prompt at inference                     | learned          | context
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tunewright import rundir
from tunewright.data.basefiles import KEPT, TEMPLATE, BaseFiles
from tunewright.data.fit import Cut, cut
from tunewright.data.jinja import Program, Span, TemplateRefusal
from tunewright.data.template_choice import choose, read
from tunewright.data.thinking import THINK, Marks, Said, apart, is_typed, split_thinking
from tunewright.data.tokens import PROBE, SHIELD, Encoder
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.text import _

_NOWHERE = Origin("", 0, 0)
LEARN_ANSWERS = "\x00answers"  # makes another hash of the same template
_BATCH = 1024  # rows tokenised at once: enough to keep the cores busy, little enough to hold


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of text that is tokenised alone. turn: index of the message it answers with, None for context.
    thought: it is the reasoning before that answer."""

    text: str
    turn: int | None = None
    thought: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """One row to be: its parts in order, and whether its last turn may be given a stop token it lacks."""

    parts: tuple[_Part, ...]
    origin: Origin


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
        try:
            self._program = Program(self.source, names)
        except jinja2.TemplateError as error:
            raise BaseModelError(_("the chat template is broken: {error}", error=error), where=files.where) from None
        self.sha256 = files.digest(self.source if learn_thinking else self.source + LEARN_ANSWERS)
        eos = names.get("eos_token")
        self.eos_id = self._encoder.find(eos) if eos else None
        self.knows_thinking = self._probe_thinking()
        self.generation_prompt = self._probe_prompt()
        self.marks = self._probe_marks()
        self._drops_thinking = not self.knows_thinking and not self._probe_typed()
        end = self._probe_end()
        stops = [end, *files.stop_ids(), self.eos_id]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(token for token in stops if token is not None))
        if not self.stop_ids:
            raise BaseModelError(
                _("neither the base's configuration nor its template says which token ends an answer"),
                where=files.where,
                do=_("add eos_token_id to generation_config.json"),
            )
        self._ends_turns = end is not None
        self._stops = np.array(sorted(self.stop_ids), dtype=np.int32)
        self.rewrites_history = self._probe_rewriting()
        self.notes: tuple[str, ...] = tuple(self._notes())

    @classmethod
    def from_folder(cls, folder: Path, template: str | None = None, learn_thinking: bool = True) -> ChatTemplate:
        """template: another in place of the base's own, as ``data.chat_template`` says it: a name, a file, or a
        template's text. Raises BaseModelError, or RecipeError for a file that cannot be read."""
        return cls(BaseFiles.read(Path(folder)), None if template is None else read(template), learn_thinking)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChatTemplate, (self._files, self._wanted, self.learn_thinking)

    # -- what others ask -----------------------------------------------------------------------------------------

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
        return self._program.reads_clock

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
        return self._write(messages, tools, prompt, _NOWHERE).replace(SHIELD, "")

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """(T,) ids of the conversation with the generation prompt: what a model answers to.

        The same ids as those that precede this answer in a training row. Raises DataError if the template refuses.
        """
        if not messages:
            raise DataError(_("a prompt needs at least one message"))
        parts = self._prompt_parts([apart(message, self.marks) for message in messages], tools, _NOWHERE)
        return [token for ids in self._encoder.encode_parts([[part.text for part in parts]])[0] for token in ids]

    def render(self, chat: Chat) -> list[Rendered]:
        """One row, or one for each learned answer if the template rewrites earlier turns. See ``render_many``."""
        return self.render_many([chat])[0]

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        """For each chat its rows: ids (T,) int32 and learn (T,) bool. A chat with nothing to learn gives no row.

        Raises DataError if the template refuses a conversation, BaseModelError if what is learned cannot be told.
        """
        rendered: list[list[Rendered]] = []
        for start in range(0, len(chats), _BATCH):
            rows = [self._rows(self._thoughts_apart(chat)) for chat in chats[start : start + _BATCH]]
            ids = iter(self._encoder.encode_parts([[part.text for part in row.parts] for some in rows for row in some]))
            rendered += [[self._assemble(row, next(ids), self.learn_thinking) for row in some] for some in rows]
        return rendered

    def size(self, row: Rendered) -> int:
        return row.length

    def cut(self, chat: Chat, rows: Sequence[Rendered], most: int) -> Cut:
        """The oldest turns go first; system message and answers stay, with their reasoning whether learned or not."""
        if self.learn_thinking:
            return cut(rows, most, self.head_ids(chat))
        whole = self._rows(self._thoughts_apart(chat))
        encoded = self._encoder.encode_parts([[part.text for part in row.parts] for row in whole])
        keep = [self._assemble(row, ids, True).learn for row, ids in zip(whole, encoded, strict=True)]
        return cut(rows, most, self.head_ids(chat), keep)

    def head_ids(self, chat: Chat) -> list[int]:
        """Ids that every conversation with this system message begins with, up to the user's own words."""
        system = chat.messages[:1] if chat.messages and chat.messages[0].role == "system" else ()
        try:
            texts = [
                self._program.run(self._plain([*system, Message("user", probe)]), chat.tools).text for probe in "AZ"
            ]
        except TemplateRefusal:
            return []
        shared = 0
        while shared < min(map(len, texts)) and texts[0][shared] == texts[1][shared]:
            shared += 1
        return self._encoder.encode(texts[0][:shared])

    def adds_system(self) -> str | None:
        """Text that the template puts before a conversation by itself (a system prompt nobody wrote), if it does."""
        try:
            first = self._run([Message("user", PROBE)]).partition(PROBE)[0]
            later = self._run([Message("user", "A"), Message("assistant", "B"), Message("user", PROBE)])
        except TemplateRefusal:
            return None
        wrapper = later.partition("B")[2].partition(PROBE)[0]
        try:
            whole = self._run([Message("system", PROBE), Message("user", "A")])
            before, _found, after = whole.partition(PROBE)
            after = after.partition("A")[0]
            if _found and first.startswith(before) and first.endswith(after) and len(first) > len(before) + len(after):
                return first[len(before) : len(first) - len(after)].strip() or None
        except TemplateRefusal:
            pass  # no system role: look at what stands before the first user's turn but not before later ones
        while first and wrapper and first[-1] == wrapper[-1]:
            first, wrapper = first[:-1], wrapper[:-1]
        for special in self._encoder.special:
            first = first.replace(special, "\n")
        lines = [line.strip() for line in first.splitlines()]
        extra = "\n".join(line for line in lines if line and line not in ("system", "developer"))
        return extra if len(extra.split()) > 1 else None

    def save(self, folder: Path) -> None:
        """The tokenizer's and the template's files as the base has them, byte for byte; a template that is not the
        base's own is written where transformers and every later verb look for it first."""
        other = self._choice.note is not None
        for name in KEPT:
            if name in self._files.files and not (name == TEMPLATE and other):
                rundir.write_bytes(folder / name, self._files.files[name])
        if other:
            rundir.write_text(folder / TEMPLATE, self.source)

    # -- messages to text ----------------------------------------------------------------------------------------

    def _plain(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Messages as the plain values that templates read, with typed special tokens broken up."""
        shield = self._encoder.shield
        plain: list[dict[str, Any]] = []
        for message in messages:
            entry: dict[str, Any] = {"role": message.role, "content": shield(message.content)}
            if message.thinking is not None:
                thinking = shield(message.thinking)
                if self.knows_thinking:
                    entry |= {"reasoning_content": thinking, "thinking": thinking}
                elif not self._drops_thinking:
                    entry["content"] = self.marks.before(thinking) + entry["content"]
            if message.name is not None:
                entry["name"] = shield(message.name)
            if message.tool_calls:
                entry["tool_calls"] = [self._shielded(_with_arguments(call)) for call in message.tool_calls]
            if message.tool_call_id is not None:
                entry["tool_call_id"] = shield(message.tool_call_id)
            plain.append(entry)
        return plain

    def _shielded(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._encoder.shield(value)
        if isinstance(value, Mapping):
            return {str(key): self._shielded(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._shielded(item) for item in value]
        return value

    def _run(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """For probes: no shield, and the template's refusal as it is."""
        plain = [
            {"role": m.role, "content": m.content}
            | ({} if m.thinking is None else {"reasoning_content": m.thinking, "thinking": m.thinking})
            for m in messages
        ]
        return self._program.run(plain, (), prompt).text

    def _write(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], prompt: bool, origin: Origin
    ) -> str:
        return self._writing(messages, tools, prompt, origin)[0]

    def _writing(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        prompt: bool,
        origin: Origin,
        probe: bool = False,
    ) -> tuple[str, tuple[Span, ...]]:
        """probe: a mark stands behind the last message's text."""
        try:
            plain = self._plain(messages)
            if probe:
                plain[-1]["content"] += PROBE
            rendering = self._program.run(plain, self._shielded(list(tools)), prompt)
        except TemplateRefusal as refusal:
            raise DataError(
                _("the base's chat template refuses this conversation: {refusal}", refusal=str(refusal)),
                where=str(origin) if origin is not _NOWHERE else None,
                do=_(
                    "change the conversation (roles may have to alternate), or choose another base"
                ),
            ) from None
        except DataError as error:
            error.where = error.where or (str(origin) if origin is not _NOWHERE else None)
            raise
        return rendering.text, rendering.marks

    # -- borders -------------------------------------------------------------------------------------------------

    def _before(self, chat: Chat, turn: int) -> str:
        """The text that precedes the answer at index ``turn``: what a model would be asked with."""
        if turn:
            return self._write(chat.messages[:turn], chat.tools, True, chat.origin)
        # A conversation that opens with the assistant: the prompt is what stands before a probe in its place.
        opening = replace(chat.messages[0], content=PROBE, thinking=None, tool_calls=())
        try:
            plain = [{"role": opening.role, "content": opening.content}]
            text = self._program.run(plain, self._shielded(list(chat.tools))).text.partition(PROBE)[0]
        except TemplateRefusal as refusal:
            raise DataError(
                _(
                    "the base's chat template refuses a conversation that opens with the assistant: {refusal}",
                    refusal=str(refusal),
                ),
                where=str(chat.origin),
                do=_("give the conversation a first user message, or choose another base"),
            ) from None
        found = text.rfind(self.generation_prompt)
        return text[: found + len(self.generation_prompt)] if found >= 0 else text

    def _borders(self, chat: Chat, text: str, upto: int) -> dict[int, Span]:
        """For each answer before message ``upto`` its place in ``text``, where its prompt and itself are prefixes."""
        spans: dict[int, Span] = {}
        for turn in range(upto):
            if chat.messages[turn].role != "assistant":
                continue
            before = self._before(chat, turn)
            if not text.startswith(before):
                continue
            last = turn + 1 == len(chat.messages)
            whole = text if last else self._write(chat.messages[: turn + 1], chat.tools, False, chat.origin)
            if text.startswith(whole) and len(whole) >= len(before):
                spans[turn] = (len(before), len(whole))
        return spans

    def _prompt_parts(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], origin: Origin
    ) -> list[_Part]:
        chat = Chat(tuple(messages), origin, tuple(tools))
        text, marks = self._writing(chat.messages, chat.tools, True, origin)
        answers = any(message.role == "assistant" for message in chat.messages)
        spans = self._prompt_borders(chat, text) if answers else {}
        return self._with_thoughts(self._parts(chat, text, spans, marks, ()), chat)

    def _prompt_borders(self, chat: Chat, text: str) -> dict[int, Span]:
        """As ``_borders``, for a text that goes on after the last message."""
        longer = Chat((*chat.messages, Message("user", "")), chat.origin, chat.tools)
        return self._borders(longer, text, len(chat.messages))

    def _rows(self, chat: Chat) -> list[_Row]:
        learned = [i for i, message in enumerate(chat.messages) if message.role == "assistant" and message.learn]
        if not learned:
            return []
        added = self._drops_thinking and any(chat.messages[turn].thinking is not None for turn in learned)
        if not added and (self._ends_turns or learned == [len(chat.messages) - 1]):
            text, marks = self._writing(chat.messages, chat.tools, False, chat.origin)
            spans = self._borders(chat, text, len(chat.messages))
            if all(turn in spans for turn in learned):
                parts = self._with_thoughts(self._parts(chat, text, spans, marks, learned), chat)
                return [_Row(tuple(parts), chat.origin)]
        return [self._row_of_turn(chat, turn) for turn in learned]

    def _row_of_turn(self, chat: Chat, turn: int) -> _Row:
        """Only this answer is learned, behind exactly the prompt that inference would give."""
        part = Chat(chat.messages[: turn + 1], chat.origin, chat.tools)
        text, marks = self._writing(part.messages, part.tools, False, part.origin)
        before = self._before(part, turn)
        context = self._prompt_parts(part.messages[:turn], part.tools, part.origin) if turn else [_Part(before)]
        thinks = part.messages[turn].thinking is not None
        if text.startswith(before) and not (thinks and self._drops_thinking):
            answer = self._parts(part, text, {turn: (len(before), len(text))}, marks, [turn])
            return _Row(tuple(self._with_thoughts([*context, *answer[1:]], part)), chat.origin)
        behind = self._behind_thinking(part, turn, before, text)
        if behind is not None:
            return _Row((*context, *behind), chat.origin)
        if marks:
            start, end = marks[-1]
            return _Row((_Part(text[:start]), _Part(text[start:end], turn), _Part(text[end:])), chat.origin)
        raise BaseModelError(
            _(
                "what this base's chat template writes before an answer is not how its generation prompt ends, "
                "so that the learned text cannot be told for certain"
            ),
            where=f"{self._files.where}; {chat.origin}, message {turn + 1}",
            do=_("use another base, or a template with generation marks"),
        )

    def _parts(
        self, chat: Chat, text: str, spans: Mapping[int, Span], marks: Sequence[Span], learned: Sequence[int]
    ) -> tuple[_Part, ...]:
        if not self._program.has_marks:
            return tuple(_cut(text, spans, learned))
        parts: list[_Part] = []
        place = 0
        for turn, (start, end) in spans.items():
            inside = [(max(start, a), min(end, b)) for a, b in marks if a < end and b > start]
            if turn in learned and not inside:
                raise BaseModelError(
                    _("the chat template's generation marks leave an answer out"),
                    where=f"{self._files.where}; {chat.origin}, message {turn + 1}",
                    do=_("mend the template's marks, or use another base"),
                )
            parts.append(_Part(text[place:start]))
            place = start
            for a, b in inside:
                parts += [_Part(text[place:a]), _Part(text[a:b], turn if turn in learned else None)]
                place = b
            parts.append(_Part(text[place:end]))
            place = end
        parts.append(_Part(text[place:]))
        return (parts[0], *(part for part in parts[1:] if part.text))

    # -- reasoning -----------------------------------------------------------------------------------------------

    def _thoughts_apart(self, chat: Chat) -> Chat:
        """Reasoning that stands in an answer's text is reasoning. Raises DataError where it has no end but must."""
        messages = tuple(apart(message, self.marks) for message in chat.messages)
        for number, message in enumerate(messages, start=1):
            if self.learn_thinking or not (message.learn and is_typed(message)):
                continue
            if not split_thinking(message.content).finished:
                raise DataError(
                    _("the reasoning in this answer is opened with {mark} and never ends", mark=THINK.open),
                    where=_("{origin}, message {number}", origin=str(chat.origin), number=number),
                    do=_("close it with {mark}, or learn it with data.learn_thinking=true", mark=THINK.close),
                )
        return replace(chat, messages=messages)

    def _with_thoughts(self, parts: Sequence[_Part], chat: Chat) -> list[_Part]:
        """The same text with reasoning in parts of its own, so that its ids do not depend on what is learned."""
        text = "".join(part.text for part in parts)
        starts = {}
        for turn, message in enumerate(chat.messages):
            if message.role != "assistant" or message.thinking is None:
                continue
            before = self._around(chat, turn, message.thinking)[0]
            if before and text.startswith(before):
                starts[turn] = len(before)
            if self.learn_thinking or not any(part.turn == turn for part in parts):
                continue
            if turn not in starts or before == self._around(chat, turn, None)[0]:  # the reasoning stands elsewhere
                raise self._no_border(chat.origin, turn)
        return list(_cut_thoughts(parts, starts))

    def _behind_thinking(self, chat: Chat, turn: int, before: str, text: str) -> list[_Part] | None:
        """The answer of the last turn where the template does not write its reasoning but the prompt may open it; None
        if the template's text is not of that kind. text: the conversation as the template writes it."""
        thinking = chat.messages[turn].thinking
        opened = bool(self.marks.open) and before.rstrip().endswith(self.marks.open)
        bare = before.rstrip()[: -len(self.marks.open)] if opened else before
        head, tail = self._around(chat, turn, None)
        if head != bare or not text.startswith(head) or not text.endswith(tail) or len(text) < len(head + tail):
            return None
        thought = self.marks.before(self._encoder.shield(thinking or ""))
        if opened:  # an empty block is what reasoning models know for none
            thought = thought.removeprefix(f"{self.marks.open}\n") if thinking else f"\n{self.marks.close}\n\n"
        answer = text[len(head) :]
        return [_Part(thought, turn, thought=thinking is not None), _Part(answer, turn)]

    def _around(self, chat: Chat, turn: int, thinking: str | None) -> tuple[str, str]:
        """What stands before and after the text of the answer at ``turn``, as the conversation's last message."""
        last = replace(chat.messages[turn], content="", thinking=thinking)
        text, _marks = self._writing([*chat.messages[:turn], last], chat.tools, False, chat.origin, probe=True)
        before, _found, after = text.rpartition(PROBE)
        return before, after

    def _no_border(self, origin: Origin, turn: int) -> BaseModelError:
        return BaseModelError(
            _("where reasoning ends and the answer begins cannot be told from what this base's chat template writes"),
            where=f"{self._files.where}; {origin}, message {turn + 1}",
            do=_("learn both with data.learn_thinking=true, or use another base"),
        )

    # -- text to ids ---------------------------------------------------------------------------------------------

    def _assemble(self, row: _Row, encoded: Sequence[Sequence[int]], learn_thinking: bool) -> Rendered:
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

    # -- probes, once, when a template is loaded -----------------------------------------------------------------

    def _probe_thinking(self) -> bool:
        try:
            return PROBE in self._run([Message("user", "A"), Message("assistant", "B", thinking=PROBE)])
        except TemplateRefusal:
            return False

    def _probe_typed(self) -> bool:
        """Does reasoning that stands in an answer's text stay there?"""
        try:
            return PROBE in self._run([Message("user", "A"), Message("assistant", THINK.before(PROBE) + "B")])
        except TemplateRefusal:
            return False

    def _probe_marks(self) -> Marks:
        """What the template writes around reasoning; ``<think>`` where it has no place for it."""
        opened = self.generation_prompt.rstrip().endswith(THINK.open)
        if not self.knows_thinking:
            return replace(THINK, opened=opened)
        whole = self._run([Message("user", "A"), Message("assistant", "B", thinking=PROBE)])
        before, _found, after = whole.partition(PROBE)
        close = after.partition("B")[0].strip()
        prompt = self._run([Message("user", "A")], prompt=True)
        inside = before[len(prompt) :].strip() if before.startswith(prompt) else ""
        if inside and close:
            return Marks(inside, close, False)
        return replace(THINK, opened=opened) if close in (THINK.close, "") else Marks("", close, before == prompt)

    def _probe_prompt(self) -> str:
        try:
            without = self._run([Message("user", "A")])
            with_prompt = self._run([Message("user", "A")], prompt=True)
        except TemplateRefusal as refusal:
            raise BaseModelError(
                _("the chat template fails on the simplest conversation: {refusal}", refusal=refusal),
                where=self._files.where,
            ) from None
        return with_prompt[len(without) :] if with_prompt.startswith(without) else ""

    def _probe_end(self) -> int | None:
        """The special token that the template writes after an answer; None if it writes none."""
        try:
            tail = self._run([Message("user", "A"), Message("assistant", PROBE)]).rpartition(PROBE)[2]
        except TemplateRefusal:
            return None
        ids = self._encoder.encode(tail)
        special = {self._encoder.id_of(text) for text in self._encoder.special} | set(self._files.stop_ids())
        return next((token for token in ids if token in special), None)

    def _probe_rewriting(self) -> bool:
        chat = Chat(
            (
                Message("user", "A"),
                Message("assistant", "B", learn=True, thinking="C" if self.knows_thinking else None),
                Message("user", "D"),
                Message("assistant", "E", learn=True),
            ),
            _NOWHERE,
        )
        try:
            return len(self._rows(chat)) > 1
        except (DataError, BaseModelError):
            return False

    def _notes(self) -> Iterator[str]:
        if self._choice.note is not None:
            yield self._choice.note
        if self.rewrites_history:
            yield _(
                "this template rewrites earlier turns, so that each learned answer becomes a training row of its own"
            )
        if self._drops_thinking:
            yield _("this template drops reasoning; it is learned as <think> … </think> before the answer all the same")
        elif not self.knows_thinking:
            yield _("this template has no place for reasoning; it is written as <think> … </think> before the answer")
        if self.marks.opened:
            yield _("this template's prompt opens the reasoning, so that an answer without any begins by closing it")
        if self.reads_clock:
            yield _("this template writes the date of the day into every conversation")
        if not self._ends_turns:
            yield _("this template writes no end after an answer; the end-of-sequence token is added and learned")


def _cut(text: str, spans: Mapping[int, Span], learned: Sequence[int]) -> Iterator[_Part]:
    place = 0
    for turn, (start, end) in sorted(spans.items()):
        if start < place:
            continue
        yield _Part(text[place:start])
        yield _Part(text[start:end], turn if turn in learned else None)
        place = end
    if place < len(text) or not spans:
        yield _Part(text[place:])


def _cut_thoughts(parts: Sequence[_Part], starts: Mapping[int, int]) -> Iterator[_Part]:
    """starts: for each answer with reasoning, the place in the whole text where it begins."""
    place = 0
    for part in parts:
        end = place + len(part.text)
        begins = starts.get(part.turn, place) if part.turn is not None else place
        for cut_at in sorted(at for at in starts.values() if place < at < end):
            yield replace(part, text=part.text[place - end : cut_at - end], thought=cut_at <= begins)
            place = cut_at
        yield replace(part, text=part.text[place - end :] if place < end else "", thought=end <= begins and place < end)
        place = end


def _with_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object. OpenAI's form writes them as JSON in a string; templates do not."""
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return dict(call)
    return {
        **call,
        "function": {**function, "arguments": arguments if isinstance(arguments, dict) else function["arguments"]},
    }
