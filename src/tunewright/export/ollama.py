"""The Modelfile that Ollama reads beside a GGUF file.

Ollama writes prompts with a template in Go's language. Without one in the Modelfile it compares the template inside
the file with those it ships and takes the nearest, which need not be the run's. So the run's own is written, as what
stands before, between and behind the turns; and it is tried on conversations whether that is all the template does.
A template that does more is refused: llama.cpp reads the run's own out of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from tunewright.data.template import ChatTemplate
from tunewright.errors import DataError, RunError
from tunewright.example import Message
from tunewright.text import _

FILE = "Modelfile"
_SYSTEM, _ASKED, _SAID, _AGAIN = "Qsysx", "Quserx", "Qsaidx", "Qagainx"


@dataclass(frozen=True)
class Turns:
    """What a template writes around contents. system: before a system message.  after_system: between it and the
    first user message.  start: before the first user message where there is no system message.  answer: between a
    user's message and an answer.  ask: between an answer and the next message.  prompt: behind the last message."""

    system: str
    after_system: str
    start: str
    answer: str
    ask: str
    prompt: str

    def write(self, messages: Sequence[Message]) -> str:
        """A prompt of an optional system message and alternating turns, as the Go template writes it."""
        text, turns = self.start, list(messages)
        if turns[0].role == "system":
            text = self.system + turns.pop(0).content + self.after_system
        for number, message in enumerate(turns):
            last = number == len(turns) - 1
            behind = self.ask if message.role == "assistant" else self.prompt if last else self.answer
            text += message.content + behind
        return text

    def go(self) -> str:
        """The same in Go's template language, as Ollama gives it ``System`` and ``Messages``."""
        user = self.answer
        if self.prompt != self.answer:
            user = "{{ if eq (len (slice $.Messages $i)) 1 }}" + self.prompt + "{{ else }}" + self.answer + "{{ end }}"
        system = "{{ if .System }}" + self.system + "{{ .System }}" + self.after_system + "{{ else }}" + self.start
        return (
            system + "{{ end }}{{ range $i, $_ := .Messages }}{{ if eq .Role \"user\" }}{{ .Content }}" + user
            + "{{ else if eq .Role \"assistant\" }}{{ .Content }}" + self.ask + "{{ end }}{{ end }}"
        )  # fmt: skip


def turns_of(template: ChatTemplate, opening: str, where: str) -> Turns:
    """opening: text of the token that Ollama itself puts before every prompt, empty where it does not.

    Raises RunError for a template that does more than to write around contents.
    """
    try:
        found = _split(template, opening)
        same = found is not None and all(found.write(one) == _written(template, one, opening) for one in _trials())
    except DataError:  # the template refuses a system message, or alternates otherwise
        found, same = None, False
    if found is None or not same or any(mark in text for text in astuple(found) for mark in ("{{", "}}", '"""')):
        raise RunError(
            _("the run's chat template does more than Ollama's templates can say exactly"), where=where,
            do=_("export the run as gguf and serve it with llama.cpp, which reads the run's own template in the file"),
            command="tunewright export --to gguf",
        )  # fmt: skip
    return found


def modelfile(name: str, turns: Turns, stops: Sequence[str], system: str | None, about: Sequence[str]) -> str:
    """name: of the GGUF file beside it.  system: that the run was trained with.  about: lines of comment.

    Nothing is said about sampling: how an answer is drawn is for who asks.
    """
    lines = [f"# {line}" for line in about]
    lines += [f"FROM ./{name}", f'TEMPLATE """{turns.go()}"""']
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    if system:
        if '"""' in system:
            raise RunError(
                _("the run's system message has three quotation marks in a row, which a Modelfile cannot hold"),
                where="data.system", do=_("export the run as gguf"), command="tunewright export --to gguf",
            )  # fmt: skip
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _split(template: ChatTemplate, opening: str) -> Turns | None:
    with_system = _written(template, [
        Message("system", _SYSTEM), Message("user", _ASKED), Message("assistant", _SAID), Message("user", _AGAIN),
    ], opening)  # fmt: skip
    without = _written(template, [Message("user", _ASKED)], opening)
    if without.count(_ASKED) != 1 or any(with_system.count(one) != 1 for one in (_SYSTEM, _ASKED, _SAID, _AGAIN)):
        return None
    system, rest = with_system.split(_SYSTEM)
    after_system, _mark, rest = rest.partition(_ASKED)
    answer, _mark, rest = rest.partition(_SAID)
    ask, _mark, prompt = rest.partition(_AGAIN)
    return Turns(system, after_system, without.split(_ASKED)[0], answer, ask, prompt)


def _written(template: ChatTemplate, messages: Sequence[Message], opening: str) -> str:
    text = template.text(messages, prompt=True)
    return text.removeprefix(opening) if opening else text


def _trials() -> list[list[Message]]:
    """Prompts of one to three questions, with and without a system message, with all that a content may hold."""
    contents = ["Who are you?", "你好，我是谁？\n\nTwo lines.", "a {{ b }} %} c", "x", "1 < 2 && 'y'"]
    found = []
    for questions in (1, 2, 3):
        for system in (None, "Be brief.\nAnswer in verse."):
            turns = [Message("system", system)] if system else []
            for number in range(2 * questions - 1):
                turns.append(Message("assistant" if number % 2 else "user", contents[number]))
            found.append(turns)
    return found
