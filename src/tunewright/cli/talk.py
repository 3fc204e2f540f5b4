"""The conversation of ``tunewright chat``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import click

from tunewright import rundir
from tunewright.cli.loop import Loop
from tunewright.cli.screen import Screen
from tunewright.data.thinking import split_thinking, stretches
from tunewright.example import Message
from tunewright.infer.engine import Engine
from tunewright.infer.open import Opened, open_base, open_run
from tunewright.text import _


@dataclass(frozen=True)
class Options:
    max_new_tokens: int
    temperature: float
    top_p: float
    system: str | None


@dataclass
class Voice:
    """One model that answers. system: the system message it was trained with."""

    name: str
    engine: Engine
    system: str | None
    past: list[Message]


def open_voices(run: str | None, base: str | None, compare: bool) -> list[Voice]:
    screen = Screen()
    with screen.doing(_("Loading"), 0):
        if base:
            return [Voice(base, open_base(base), None, [])]
        folder = rundir.find(run)
        tuned = open_run(folder)
        tuned.require_chat(folder)
        voices = [_voice(_("tuned"), tuned)]
        if compare:
            voices.insert(0, _voice(_("base"), open_run(folder, tuned=False)))
        return voices


def _voice(name: str, opened: Opened) -> Voice:
    return Voice(name, opened.engine, opened.recipe.data.system, [])


class Talk(Loop):
    def __init__(self, voices: Sequence[Voice], options: Options) -> None:
        self.voices, self.options = voices, options

    def once(self, message: str) -> None:
        for voice in self.voices:
            self._answer(voice, message)

    def start_over(self) -> None:
        for voice in self.voices:
            voice.past.clear()

    def _answer(self, voice: Voice, message: str) -> None:
        system = self.options.system or voice.system
        opening = [Message("system", system)] if system else []
        voice.past.append(Message("user", message))
        if len(self.voices) > 1:
            click.echo(f"{voice.name}: ", nl=False)
        prompt = voice.engine.template.prompt_ids([*opening, *voice.past])
        options, marks = self.options, voice.engine.template.marks
        answer = ""
        stream = voice.engine.stream(prompt, options.max_new_tokens, options.temperature, options.top_p)
        for piece, is_thinking in stretches(stream, marks):
            shown = piece if answer else piece.lstrip()
            answer += shown
            click.echo(click.style(shown, dim=True) if is_thinking else shown, nl=False)
        click.echo()
        said = split_thinking(answer, replace(marks, opened=False))
        voice.past.append(Message("assistant", said.answer, thinking=said.thinking))
