"""Engines that answer one call at a time: a thread for each, and requests that wait together answered as one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

MOST = 256  # items of a batch

Answer = Callable[[Sequence[Any], Callable[[], bool]], Sequence[Any]]


@dataclass(eq=False)
class _Wish:
    items: Sequence[Any]
    key: Any
    answer: Answer
    done: asyncio.Future[list[Any]]


@dataclass
class _Line:
    wishes: deque[_Wish] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Workers:
    """A line for each engine, by name."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    async def ask(self, name: str, items: Sequence[Any], answer: Answer, key: Any = None) -> list[Any]:
        """One result to each item. key: only requests with the same one may share a call of ``answer``.

        answer: is given items, and a function that says whether anybody still waits for them. A call that takes long
        asks it, and raises what it likes when nobody does: a thread cannot be ended from outside.
        """
        line = self._lines.setdefault(name, _Line())
        wish = _Wish(items, key, answer, asyncio.get_running_loop().create_future())
        line.wishes.append(wish)
        if line.task is None or line.task.done():
            line.task = asyncio.create_task(_work(line))
        try:
            return await wish.done
        finally:
            if wish in line.wishes:  # its client left before its turn came
                line.wishes.remove(wish)


async def _work(line: _Line) -> None:
    while line.wishes:
        together = [line.wishes.popleft()]
        count = len(together[0].items)
        while line.wishes and line.wishes[0].key == together[0].key and count + len(line.wishes[0].items) <= MOST:
            together.append(line.wishes.popleft())
            count += len(together[-1].items)
        items = [item for wish in together for item in wish.items]
        try:
            wanted = partial(_is_wanted, together)
            found: list[Any] | Exception = list(await asyncio.to_thread(together[0].answer, items, wanted))
        except Exception as error:
            found = error
        place = 0
        for wish in together:
            size = len(wish.items)
            if not wish.done.done():
                if isinstance(found, Exception):
                    wish.done.set_exception(found)
                else:
                    wish.done.set_result(found[place : place + size])
            place += size


def _is_wanted(together: Sequence[_Wish]) -> bool:
    return any(not wish.done.done() for wish in together)  # a client that leaves cancels what it waits for
