"""Twenty questions of general knowledge that a base may know and a tuned model must still know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

FILE = "general.yaml"


@dataclass(frozen=True, slots=True)
class GeneralQuestion:
    """An answer is right when one of ``accept`` (regular expressions, case ignored) is found in it."""

    question: str
    accept: tuple[str, ...]

    def right(self, answer: str) -> bool:
        return any(re.search(pattern, answer, re.IGNORECASE) for pattern in self.accept)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its prompt as token ids, made by the caller with the base's template."""

    question: GeneralQuestion
    prompt: Sequence[int]


def parse_general(text: str) -> list[GeneralQuestion]:
    """A YAML list of ``{question, accept: [pattern, …]}``."""
    return [GeneralQuestion(str(row["question"]), tuple(row["accept"])) for row in yaml.safe_load(text) or []]


@cache
def _bundled() -> tuple[GeneralQuestion, ...]:
    return tuple(parse_general(files("tunewright.evaluate").joinpath(FILE).read_text(encoding="utf-8")))


def load_general() -> list[GeneralQuestion]:
    """The bundled questions."""
    return list(_bundled())
