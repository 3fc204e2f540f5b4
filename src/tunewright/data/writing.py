"""A base's own chat template at work: conversations as text, and what the template does, found out by asking it.

A template is foreign code and says nothing about itself, so it is run on small conversations when it is loaded: has it
a place for reasoning, what stands before an answer, what ends one. What a person typed stays text: special tokens in it
are broken up by a shield before the template sees them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jinja2

from tunewright.data.basefiles import BaseFiles
from tunewright.data.jinja import Program, Rendering, TemplateRefusal
from tunewright.data.thinking import THINK, Marks
from tunewright.data.tokens import PROBE, Encoder
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Message, Origin
from tunewright.text import _

NOWHERE = Origin("", 0, 0)  # of conversations that no file holds


class Writer:
    """Writes conversations with one base's template.

    generation_prompt: what the template writes where an answer is asked for.  marks: what stands around the reasoning.
    knows_thinking: the template has a place for reasoning.  drops_thinking: it has none, and takes it out of an
    answer's text too.  end: the special token that it writes after an answer; None if it writes none.
    has_marks: it says itself, with ``{% generation %}``, what the model writes.
    """

    def __init__(self, files: BaseFiles, encoder: Encoder, source: str) -> None:
        """Raises BaseModelError for a template that is broken, or fails on the simplest conversation."""
        self.where = files.where
        self._encoder = encoder
        try:
            self._program = Program(source, files.named_tokens())
        except jinja2.TemplateError as error:
            raise BaseModelError(_("the chat template is broken: {error}", error=error), where=files.where) from None
        self.has_marks = self._program.has_marks
        self.reads_clock = self._program.reads_clock
        self.knows_thinking = self._probe_thinking()
        self.generation_prompt = self._probe_prompt()
        self.marks = self._probe_marks()
        self.drops_thinking = not self.knows_thinking and not self._probe_typed()
        self.end = self._probe_end(files.stop_ids())

    # -- messages to text ------------------------------------------------------------------------------------------

    def write(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        prompt: bool = False,
        origin: Origin = NOWHERE,
        probe: bool = False,
    ) -> Rendering:
        """The conversation as the template writes it, still shielded. prompt: with what stands before the next answer.
        probe: a mark stands behind the last message's text. Raises DataError, at ``origin``, if the template refuses.
        """
        try:
            plain = self._plain(messages)
            if probe:
                plain[-1]["content"] += PROBE
            return self._program.run(plain, self._shielded(list(tools)), prompt)
        except TemplateRefusal as refusal:
            raise DataError(
                _("the base's chat template refuses this conversation: {refusal}", refusal=str(refusal)),
                where=str(origin) if origin is not NOWHERE else None,
                do=_("change the conversation (roles may have to alternate), or choose another base"),
            ) from None
        except DataError as error:
            error.where = error.where or (str(origin) if origin is not NOWHERE else None)
            raise

    def thought(self, thinking: str) -> str:
        """Reasoning as it stands before an answer where the template has no place for it."""
        return self.marks.before(self._encoder.shield(thinking))

    def before(self, chat: Chat, turn: int) -> str:
        """The text that precedes the answer at index ``turn``: what a model would be asked with."""
        if turn:
            return self.write(chat.messages[:turn], chat.tools, True, chat.origin).text
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

    def around(self, chat: Chat, turn: int, thinking: str | None) -> tuple[str, str]:
        """What stands before and after the text of the answer at ``turn``, as the conversation's last message."""
        last = replace(chat.messages[turn], content="", thinking=thinking)
        text = self.write([*chat.messages[:turn], last], chat.tools, False, chat.origin, probe=True).text
        before, _found, after = text.rpartition(PROBE)
        return before, after

    def head(self, chat: Chat) -> str:
        """What every conversation with this system message begins with, up to the user's own words."""
        system = chat.messages[:1] if chat.messages and chat.messages[0].role == "system" else ()
        try:
            texts = [
                self._program.run(self._plain([*system, Message("user", probe)]), chat.tools).text for probe in "AZ"
            ]
        except TemplateRefusal:
            return ""
        shared = 0
        while shared < min(map(len, texts)) and texts[0][shared] == texts[1][shared]:
            shared += 1
        return texts[0][:shared]

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
                elif not self.drops_thinking:
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

    # -- what the template does ------------------------------------------------------------------------------------

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

    def _run(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """For probes: no shield, and the template's refusal as it is."""
        plain = [
            {"role": m.role, "content": m.content}
            | ({} if m.thinking is None else {"reasoning_content": m.thinking, "thinking": m.thinking})
            for m in messages
        ]
        return self._program.run(plain, (), prompt).text

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
                where=self.where,
            ) from None
        return with_prompt[len(without) :] if with_prompt.startswith(without) else ""

    def _probe_end(self, stops: Sequence[int]) -> int | None:
        try:
            tail = self._run([Message("user", "A"), Message("assistant", PROBE)]).rpartition(PROBE)[2]
        except TemplateRefusal:
            return None
        ids = self._encoder.encode(tail)
        special = {self._encoder.id_of(text) for text in self._encoder.special} | set(stops)
        return next((token for token in ids if token in special), None)


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
