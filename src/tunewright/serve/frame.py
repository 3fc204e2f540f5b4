"""What surrounds every request: its number, its key, the size of its body, its errors and its numbers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewright.serve.errors import ApiError, any_error
from tunewright.serve.service import NOTES, Notes, Service
from tunewright.serve.together import ClientGone
from tunewright.text import _

OPEN = ("/", "/health")  # asked without a key: whether the server lives, and the page that asks for one
PATHS = (
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/classify",
    "/health",
    "/metrics",
    "/snippets",
)
READ_ON, READ_ON_SECONDS = 64 * 2**20, 10  # bytes of a body that is too large, and for how long
GONE = 499  # how proxies call a client that did not wait
_log = logging.getLogger("tunewright.serve")


class Frame:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, service: Service, hosts: frozenset[str] | None = None) -> None:
        """hosts: names under which the server may be asked, None for any (``server.hosts_of``)."""
        self.app, self.service, self.hosts = app, service, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["app"] = self  # where endpoints find the service, and why the router raises what it refuses
        noted = scope[NOTES] = Notes(f"req_{secrets.token_hex(16)}", time.monotonic())
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, noted)
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, _Limited(receive, self.service.limits.body), sending)
        except ClientGone:
            status = GONE
        except Exception as error:
            answer = _refused(scope, error) if isinstance(error, HTTPException) else any_error(error)
            if answer.status >= 500:
                _log.error("%s %s", noted.id, _("failed"), exc_info=error)
            if not status:
                if answer.status == 413:
                    await _let_it_end(scope, receive)
                with contextlib.suppress(OSError):
                    await answer.response(scope, receive, sending)
        finally:
            self._count(scope, status, noted)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = (headers.get("host") or "").lower()
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self.hosts is not None and name not in self.hosts:
            # A page of another site that a name server led here: without a key it could read all answers.
            raise ApiError(403, _("This server answers to its own address alone. Start it with a key to be reached "
                                  "under the name {host}.", host=name or "?"), code="unknown_host")  # fmt: skip
        if scope["path"] not in OPEN:
            self.service.keys.who(headers.get("authorization"))
        told = headers.get("content-length", "")
        if told.isdecimal() and int(told) > self.service.limits.body:
            raise too_large(self.service.limits.body)

    def _count(self, scope: Scope, status: int, noted: Notes) -> None:
        path = scope["path"]
        path = path if path in PATHS else "/v1/models/{model}" if path.startswith("/v1/models/") else "other"
        metrics = self.service.metrics
        metrics.requests.labels(path, str(status or 500), noted.model).inc()
        metrics.seconds.labels(path).observe(time.monotonic() - noted.begun)


def _refused(scope: Scope, error: HTTPException) -> ApiError:
    """Paths that are none, and methods that a path does not have, in OpenAI's words."""
    method, path = scope["method"], scope["path"]
    message, code = str(error.detail), None
    if error.status_code == 404:
        message, code = _("Invalid URL ({method} {path})", method=method, path=path), "unknown_url"
    elif error.status_code == 405:
        message, code = _("Not allowed to {method} on {path}.", method=method, path=path), "method_not_supported"
    return ApiError(error.status_code, message, code=code, headers=error.headers)


async def _let_it_end(scope: Scope, receive: Receive) -> None:
    """Reads on for a while what a client sends too much, and keeps none of it: most clients read no answer before they
    have sent all, and would see a broken connection in its place."""
    if Headers(scope=scope).get("expect"):  # it asks first
        return
    left = READ_ON
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_ON_SECONDS):
            more = True
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)


class _Limited:
    """A body that is read no further than ``most`` bytes, whatever its length was said to be."""

    def __init__(self, receive: Receive, most: int) -> None:
        self.receive, self.most, self.read = receive, most, 0

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self.receive()
        self.read += len(message.get("body", b""))
        if self.read > self.most:
            raise too_large(self.most)
        return message


def too_large(most: int) -> ApiError:
    return ApiError(
        413, _("The request is larger than {most} bytes.", most=most), code="request_too_large",
        headers={"connection": "close"},
    )  # fmt: skip


def _add_headers(message: Message, noted: Notes) -> None:
    spent = int(1000 * (time.monotonic() - noted.begun))
    message["headers"] = [
        *message.get("headers", []),
        (b"x-request-id", noted.id.encode()),
        (b"openai-processing-ms", str(spent).encode()),
        (b"openai-version", b"2020-10-01"),
    ]
