"""Which rows make a step: a pure function of (seed, epoch, step), so that a resumed run needs no memory of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from tunewright.example import Rendered


class Steps(Sequence[list[Rendered]]):
    """All steps of a training in their order; item ``i`` is the list of rows of step ``i``.

    rows: training rows, each once an epoch.  replay: general rows, of which each epoch takes
    ``round(share * len(rows))`` in turn.  A step has ``batch_size`` rows, the last of an epoch what is left.
    epochs may be a fraction.

    >>> [len(step) for step in Steps(list("abcde"), batch_size=2, epochs=2, seed=0)]
    [2, 2, 1, 2, 2, 1]
    """

    def __init__(
        self,
        rows: Sequence[Rendered],
        batch_size: int,
        epochs: float,
        seed: int,
        max_steps: int | None = None,
        replay: Sequence[Rendered] = (),
        share: float = 0.0,
    ) -> None:
        self.rows, self.replay = rows, replay
        self.batch_size, self.seed = batch_size, seed
        self.extra = round(share * len(rows)) if replay else 0
        self.per_epoch = math.ceil((len(rows) + self.extra) / batch_size)
        self.total = max(1, math.ceil(epochs * self.per_epoch))
        if max_steps is not None:
            self.total = min(self.total, max_steps)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, step: int) -> list[Rendered]:  # type: ignore[override]  # no slices
        if not 0 <= step < self.total:
            raise IndexError(step)
        epoch, place = divmod(step, self.per_epoch)
        chosen = self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return [self._row(int(index), epoch) for index in chosen]

    def lengths(self, step: int) -> list[int]:
        """Tokens of each row of a step, without making the rows."""
        epoch, place = divmod(step, self.per_epoch)
        chosen = self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        own, extra = self._all_lengths
        return [own[i] if i < len(own) else extra[self._turn(i, epoch)] for i in map(int, chosen)]

    @cached_property
    def _all_lengths(self) -> tuple[list[int], list[int]]:
        return [row.length for row in self.rows], [row.length for row in self.replay]

    def epoch_after(self, step: int) -> float:
        """Epochs finished when ``step`` steps are done."""
        return step / self.per_epoch

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows) + self.extra)

    def _row(self, index: int, epoch: int) -> Rendered:
        if index < len(self.rows):
            return self.rows[index]
        return self.replay[self._turn(index, epoch)]

    def _turn(self, index: int, epoch: int) -> int:
        """Which general row stands at a place behind the training rows: they take turns over the epochs."""
        return (epoch * self.extra + index - len(self.rows)) % len(self.replay)


def shares(rows: Sequence[Rendered], count: int) -> list[list[Rendered]]:
    """The rows of one step dealt out to ``count`` processes, about as many tokens to each; a process may get none.

    The longest first, each to whoever has least, so that the result depends on nothing but the arguments.
    """
    dealt: list[list[Rendered]] = [[] for _ in range(count)]
    tokens = [0] * count
    for row in sorted(rows, key=lambda row: -row.length):
        least = tokens.index(min(tokens))
        dealt[least].append(row)
        tokens[least] += row.length
    return dealt
