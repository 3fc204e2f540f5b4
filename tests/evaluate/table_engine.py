"""An engine that answers from a table: prompt ids in, a known answer out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunewright.example import Rendered
from tunewright.infer.engine import Generation, Progress, Score


@dataclass
class TableEngine:
    """answers: text to each prompt, keyed by its first id.  losses: summed loss to each row, keyed by its line."""

    answers: Mapping[int, str]
    losses: Mapping[int, float]
    stops: bool = True
    calls: list[tuple[str, int]] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Generation]:
        self.calls.append(("generate", max_new_tokens))
        if progress:
            progress(len(prompts))
        return [Generation((1,), self.answers[p[0]], self.stops) for p in prompts]

    def stream(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0
    ) -> Iterator[str]:
        yield self.answers[prompt[0]]

    def score(self, rows: Sequence[Rendered], progress: Progress | None = None) -> list[Score]:
        self.calls.append(("score", len(rows)))
        if progress:
            progress(len(rows))
        return [Score(self.losses[r.origin.line], r.learned, r.learned // 2) for r in rows]
