"""Conversations cut into the stretches of text that are tokenised alone: which are learned, which are context.

Which text is learned comes from the messages, never from searching for marker strings: it is the difference between
the conversation up to an answer with the generation prompt, and the conversation with that answer, and it counts only
if the first is a true prefix of the second. (Templates with ``{% generation %}`` marks say it themselves.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewright.data.jinja import Rendering, Span
from tunewright.data.thinking import THINK, apart, is_typed, split_thinking
from tunewright.data.writing import NOWHERE, Writer
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Message, Origin
from tunewright.text import _


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text that is tokenised alone. turn: index of the message it answers with, None for context.
    thought: it is the reasoning before that answer."""

    text: str
    turn: int | None = None
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row to be: its parts in order, and where it is from."""

    parts: tuple[Part, ...]
    origin: Origin


class Borders:
    """Where answers, and the reasoning before them, begin and end in what ``writer`` writes.

    learn_thinking: reasoning may stand in one part with its answer where the template does not tell them apart.
    """

    def __init__(self, writer: Writer, learn_thinking: bool) -> None:
        self._writer = writer
        self._learn_thinking = learn_thinking

    def rows(self, chat: Chat) -> list[Row]:
        """One row, or one for each learned answer if the template rewrites earlier turns; none if nothing is learned.

        Raises DataError if the template refuses the conversation, BaseModelError if what is learned cannot be told.
        """
        chat = self._thoughts_apart(chat)
        learned = [i for i, message in enumerate(chat.messages) if message.role == "assistant" and message.learn]
        if not learned:
            return []
        added = self._writer.drops_thinking and any(chat.messages[turn].thinking is not None for turn in learned)
        if not added and (self._writer.end is not None or learned == [len(chat.messages) - 1]):
            written = self._writer.write(chat.messages, chat.tools, False, chat.origin)
            spans = self._borders(chat, written.text, len(chat.messages))
            if all(turn in spans for turn in learned):
                parts = self._with_thoughts(self._parts(chat, written, spans, learned), chat)
                return [Row(tuple(parts), chat.origin)]
        return [self._row_of_turn(chat, turn) for turn in learned]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Part]:
        """The conversation with the generation prompt, in the parts that precede this answer in a training row."""
        marks = self._writer.marks
        return self._prompt_parts(Chat(tuple(apart(message, marks) for message in messages), NOWHERE, tuple(tools)))

    # -- answers ---------------------------------------------------------------------------------------------------

    def _borders(self, chat: Chat, text: str, upto: int) -> dict[int, Span]:
        """For each answer before message ``upto`` its place in ``text``, where its prompt and itself are prefixes."""
        spans: dict[int, Span] = {}
        for turn in range(upto):
            if chat.messages[turn].role != "assistant":
                continue
            before = self._writer.before(chat, turn)
            if not text.startswith(before):
                continue
            last = turn + 1 == len(chat.messages)
            whole = text if last else self._writer.write(chat.messages[: turn + 1], chat.tools, False, chat.origin).text
            if text.startswith(whole) and len(whole) >= len(before):
                spans[turn] = (len(before), len(whole))
        return spans

    def _prompt_parts(self, chat: Chat) -> list[Part]:
        written = self._writer.write(chat.messages, chat.tools, True, chat.origin)
        answers = any(message.role == "assistant" for message in chat.messages)
        spans = self._prompt_borders(chat, written.text) if answers else {}
        return self._with_thoughts(self._parts(chat, written, spans, ()), chat)

    def _prompt_borders(self, chat: Chat, text: str) -> dict[int, Span]:
        """As ``_borders``, for a text that goes on after the last message."""
        longer = Chat((*chat.messages, Message("user", "")), chat.origin, chat.tools)
        return self._borders(longer, text, len(chat.messages))

    def _row_of_turn(self, chat: Chat, turn: int) -> Row:
        """Only this answer is learned, behind exactly the prompt that inference would give."""
        part = Chat(chat.messages[: turn + 1], chat.origin, chat.tools)
        written = self._writer.write(part.messages, part.tools, False, part.origin)
        text = written.text
        before = self._writer.before(part, turn)
        context = self._prompt_parts(replace(part, messages=part.messages[:turn])) if turn else [Part(before)]
        thinks = part.messages[turn].thinking is not None
        if text.startswith(before) and not (thinks and self._writer.drops_thinking):
            answer = self._parts(part, written, {turn: (len(before), len(text))}, [turn])
            return Row(tuple(self._with_thoughts([*context, *answer[1:]], part)), chat.origin)
        behind = self._behind_thinking(part, turn, before, text)
        if behind is not None:
            return Row((*context, *behind), chat.origin)
        if written.marks:
            start, end = written.marks[-1]
            return Row((Part(text[:start]), Part(text[start:end], turn), Part(text[end:])), chat.origin)
        raise BaseModelError(
            _(
                "what this base's chat template writes before an answer is not how its generation prompt ends, "
                "so that the learned text cannot be told for certain"
            ),
            where=f"{self._writer.where}; {chat.origin}, message {turn + 1}",
            do=_("use another base, or a template with generation marks"),
        )

    def _parts(
        self, chat: Chat, written: Rendering, spans: Mapping[int, Span], learned: Sequence[int]
    ) -> tuple[Part, ...]:
        text = written.text
        if not self._writer.has_marks:
            return tuple(_cut(text, spans, learned))
        parts: list[Part] = []
        place = 0
        for turn, (start, end) in spans.items():
            inside = [(max(start, a), min(end, b)) for a, b in written.marks if a < end and b > start]
            if turn in learned and not inside:
                raise BaseModelError(
                    _("the chat template's generation marks leave an answer out"),
                    where=f"{self._writer.where}; {chat.origin}, message {turn + 1}",
                    do=_("mend the template's marks, or use another base"),
                )
            parts.append(Part(text[place:start]))
            place = start
            for a, b in inside:
                parts += [Part(text[place:a]), Part(text[a:b], turn if turn in learned else None)]
                place = b
            parts.append(Part(text[place:end]))
            place = end
        parts.append(Part(text[place:]))
        return (parts[0], *(part for part in parts[1:] if part.text))

    # -- reasoning -------------------------------------------------------------------------------------------------

    def _thoughts_apart(self, chat: Chat) -> Chat:
        """Reasoning that stands in an answer's text is reasoning. Raises DataError where it has no end but must."""
        messages = tuple(apart(message, self._writer.marks) for message in chat.messages)
        for number, message in enumerate(messages, start=1):
            if self._learn_thinking or not (message.learn and is_typed(message)):
                continue
            if not split_thinking(message.content).finished:
                raise DataError(
                    _("the reasoning in this answer is opened with {mark} and never ends", mark=THINK.open),
                    where=_("{origin}, message {number}", origin=str(chat.origin), number=number),
                    do=_("close it with {mark}, or learn it with data.learn_thinking=true", mark=THINK.close),
                )
        return replace(chat, messages=messages)

    def _with_thoughts(self, parts: Sequence[Part], chat: Chat) -> list[Part]:
        """The same text with reasoning in parts of its own, so that its ids do not depend on what is learned."""
        text = "".join(part.text for part in parts)
        around = self._writer.around
        starts = {}
        for turn, message in enumerate(chat.messages):
            if message.role != "assistant" or message.thinking is None:
                continue
            before = around(chat, turn, message.thinking)[0]
            if before and text.startswith(before):
                starts[turn] = len(before)
            if self._learn_thinking or not any(part.turn == turn for part in parts):
                continue
            if turn not in starts or before == around(chat, turn, None)[0]:  # the reasoning stands elsewhere
                raise self._no_border(chat.origin, turn)
        return list(_cut_thoughts(parts, starts))

    def _behind_thinking(self, chat: Chat, turn: int, before: str, text: str) -> list[Part] | None:
        """The answer of the last turn where the template does not write its reasoning but the prompt may open it; None
        if the template's text is not of that kind. text: the conversation as the template writes it."""
        thinking, marks = chat.messages[turn].thinking, self._writer.marks
        opened = bool(marks.open) and before.rstrip().endswith(marks.open)
        bare = before.rstrip()[: -len(marks.open)] if opened else before
        head, tail = self._writer.around(chat, turn, None)
        if head != bare or not text.startswith(head) or not text.endswith(tail) or len(text) < len(head + tail):
            return None
        thought = self._writer.thought(thinking or "")
        if opened:  # an empty block is what reasoning models know for none
            thought = thought.removeprefix(f"{marks.open}\n") if thinking else f"\n{marks.close}\n\n"
        answer = text[len(head) :]
        return [Part(thought, turn, thought=thinking is not None), Part(answer, turn)]

    def _no_border(self, origin: Origin, turn: int) -> BaseModelError:
        return BaseModelError(
            _("where reasoning ends and the answer begins cannot be told from what this base's chat template writes"),
            where=f"{self._writer.where}; {origin}, message {turn + 1}",
            do=_("learn both with data.learn_thinking=true, or use another base"),
        )


def _cut(text: str, spans: Mapping[int, Span], learned: Sequence[int]) -> Iterator[Part]:
    place = 0
    for turn, (start, end) in sorted(spans.items()):
        if start < place:
            continue
        yield Part(text[place:start])
        yield Part(text[start:end], turn if turn in learned else None)
        place = end
    if place < len(text) or not spans:
        yield Part(text[place:])


def _cut_thoughts(parts: Sequence[Part], starts: Mapping[int, int]) -> Iterator[Part]:
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
