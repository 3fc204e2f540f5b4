"""A conversation, whoever answers: what a person types, line by line."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod

import click

from tunewright.text import _


class Loop(ABC):
    @abstractmethod
    def once(self, message: str) -> None:
        """Asks, and prints what is answered."""

    @abstractmethod
    def start_over(self) -> None:
        """Forgets what was said."""

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
                self.start_over()
                continue
            self.once(message)
