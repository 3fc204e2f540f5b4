"""The conversation of ``tunewright chat``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from tunewright import rundir
from tunewright.cli.screen import Screen
from tunewright.example import Message
from tunewright.infer.engine import Engine
from tunewright.text import _
from tunewright.train import run as story


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
            return [Voice(base, story.open_base(base), None, [])]
        folder = rundir.find(run)
        engine, recipe = story.open_engine(folder)
        voices = [Voice(_("tuned"), engine, recipe.data.system, [])]
        if compare:
            plain, _recipe = story.open_engine(folder, tuned=False)
            voices.insert(0, Voice(_("base"), plain, recipe.data.system, []))
        return voices


class Talk:
    def __init__(self, voices: Sequence[Voice], options: Options) -> None:
        self.voices, self.options = voices, options

    def once(self, message: str) -> None:
        for voice in self.voices:
            self._answer(voice, message)

    def loop(self) -> None:
        click.echo(_("Ask something. An empty line ends, /new starts over."), err=True)
        while True:
            try:
                message = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return
            if not message:
                return
            if message == "/new":
                for voice in self.voices:
                    voice.past.clear()
                continue
            self.once(message)

    def _answer(self, voice: Voice, message: str) -> None:
        system = self.options.system or voice.system
        opening = [Message("system", system)] if system else []
        voice.past.append(Message("user", message))
        if len(self.voices) > 1:
            click.echo(f"{voice.name}: ", nl=False)
        prompt = voice.engine.template.prompt_ids([*opening, *voice.past])
        pieces: list[str] = []
        options = self.options
        for piece in voice.engine.stream(prompt, options.max_new_tokens, options.temperature, options.top_p):
            shown = piece if pieces else piece.lstrip()
            if shown:
                pieces.append(shown)
                click.echo(shown, nl=False)
        click.echo()
        voice.past.append(Message("assistant", "".join(pieces)))
