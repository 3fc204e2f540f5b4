"""Several streams as one, and a response that ends when its client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """Nobody is there any more to be answered."""


async def merged(sources: Sequence[AsyncIterator[T]]) -> AsyncIterator[tuple[int, T]]:
    """What ``sources`` give, in the order of its coming, each with the number of its source. All are closed when the
    reader stops, or one of them fails."""
    queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue()

    async def drain(number: int, source: AsyncIterator[T]) -> None:
        try:
            async with aclosing(source) as items:  # type: ignore[type-var]  # they are generators
                async for item in items:
                    queue.put_nowait((number, item))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(drain(number, source)) for number, source in enumerate(sources)]
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        await ended(*tasks)


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels them and waits until they have cleaned up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def unless_gone(work: Awaitable[T], receive: Receive) -> T:
    """The result of ``work``. Raises ClientGone if the client leaves before, with ``work`` cancelled."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientGone
    finally:
        await ended(doing, gone)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events. The first one is waited for before the status is sent, so that what fails before it is an
    error like any other; a later failure is an event with ``error``.

    events: a generator of JSON values.  failed: an exception as the body of its error.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[dict[str, Any]], failed: Callable[[Exception], dict[str, Any]]) -> None:
        self.events, self.failed = events, failed
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(self._send(send), receive)

    async def _send(self, send: Send) -> None:
        started = False
        async with aclosing(self.events) as events:  # type: ignore[type-var]  # it is a generator
            try:
                async for event in events:
                    if not started:
                        headers = self.raw_headers
                        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
                        started = True
                    await send({"type": "http.response.body", "body": event_of(event), "more_body": True})
            except Exception as error:
                if not started:
                    raise
                await send({"type": "http.response.body", "body": event_of(self.failed(error)), "more_body": True})
        await send({"type": "http.response.body", "body": DONE, "more_body": False})


def event_of(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
