"""What every engine can do. Evaluation, serving and chat are handed an engine and name none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunewright.data.template import ChatTemplate
from tunewright.example import Rendered

# Called with how many items are finished since the last call.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Generation:
    """ids: what was generated, the stop token excluded.  text: the answer.  stopped: the model ended by itself within
    the limit.  thinking: the reasoning before the answer, if there is any.  finished: False where reasoning was begun
    and no answer followed."""

    ids: tuple[int, ...]
    text: str
    stopped: bool
    thinking: str | None = None
    finished: bool = True

    @property
    def whole(self) -> str:
        """Reasoning and answer, where it does not matter in which of them something stands."""
        return f"{self.thinking}\n\n{self.text}".strip() if self.thinking else self.text


@dataclass(frozen=True, slots=True)
class Score:
    """How well given tokens were predicted: loss is summed in nats over ``tokens`` learned tokens, ``correct`` of
    which were the model's first choice."""

    loss: float
    tokens: int
    correct: int


@dataclass(frozen=True, slots=True)
class Choices:
    """prompt: ids that come before every answer.  options: ids of each answer; at least one id each."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        return max(map(len, self.options))


class Engine(Protocol):
    template: ChatTemplate

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Generation]:
        """Greedy answers in the order of ``prompts``, batched by length."""
        ...

    def stream(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0
    ) -> Iterator[str]:
        """The answer piece by piece; greedy at temperature 0."""
        ...

    def choose(self, questions: Sequence[Choices], progress: Progress | None = None) -> list[tuple[float, ...]]:
        """Log-likelihood in nats of each option of each question, summed over the option's tokens."""
        ...

    def score(self, rows: Sequence[Rendered], progress: Progress | None = None) -> list[Score]:
        """Loss and accuracy on the learned tokens of each row, in the order of ``rows``."""
        ...
