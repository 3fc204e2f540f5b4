"""How much at once: places at the engine, a line of those who wait, and a clear answer to everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from tunewright.serve.errors import ApiError
from tunewright.text import _

MOST_SECONDS = 60  # that a client is told to wait: OpenAI's own does not wait longer than 120


@dataclass(frozen=True, slots=True)
class Limits:
    """body: bytes of a request.  running: answers written at the same time.  waiting: answers that wait for a place;
    more are refused with 429.  choices: ``n``, and prompts times ``n`` of completions.  new_tokens: of one answer; None
    is what the context leaves."""

    body: int = 8 * 2**20
    running: int = 32
    waiting: int = 128
    choices: int = 32
    new_tokens: int | None = None


class Gate:
    """running, waiting: answers at this moment.  seconds: that a place was taken lately, on average."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = self.waiting = 0
        self.seconds = 1.0
        self._places = asyncio.Semaphore(limits.running)

    @contextlib.contextmanager
    def admit(self, answers: int = 1) -> Iterator[Ticket]:
        """Room in the line for a request that wants so many answers. Raises ApiError 429 with Retry-After."""
        most = self.limits.running + self.limits.waiting
        busy = self.running + self.waiting
        if busy and busy + answers > most:
            raise self._full(answers)
        self.waiting += answers
        ticket = Ticket(self, answers)
        try:
            yield ticket
        finally:
            self.waiting -= ticket.left
            ticket.left = 0

    def _full(self, answers: int) -> ApiError:
        ahead = self.running + self.waiting + answers - self.limits.running - self.limits.waiting
        wait = min(MOST_SECONDS, max(1, math.ceil(self.seconds * ahead / self.limits.running)))
        message = _(
            "Rate limit reached: {running} answers are being written and {waiting} wait. Please try again in {wait}s.",
            running=self.running, waiting=self.waiting, wait=wait,
        )  # fmt: skip
        return ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": str(wait)})


class Ticket:
    """left: answers of the request that have not begun."""

    def __init__(self, gate: Gate, left: int) -> None:
        self.gate, self.left = gate, left

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place at the engine, in the order of asking."""
        gate = self.gate
        async with gate._places:
            if self.left:
                self.left -= 1
                gate.waiting -= 1
            gate.running += 1
            begin = time.monotonic()
            try:
                yield
            finally:
                gate.running -= 1
                gate.seconds += 0.2 * (time.monotonic() - begin - gate.seconds)
