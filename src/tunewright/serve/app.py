"""The routes, and nothing else."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tunewright.serve import models, pages
from tunewright.serve.chat import chat
from tunewright.serve.classify import classify
from tunewright.serve.completions import completions
from tunewright.serve.embeddings import embeddings
from tunewright.serve.errors import ApiError
from tunewright.serve.frame import Frame
from tunewright.serve.service import Service
from tunewright.text import _


def application(service: Service, hosts: frozenset[str] | None = None) -> ASGIApp:
    """hosts: see ``frame.Frame``."""
    routes = [
        Route("/", page),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/v1/models", models.listed),
        Route("/v1/models/{model:path}", models.one),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/classify", classify, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _refused, ApiError: _told}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.service = service
    return Frame(app, service, hosts)


async def page(request: Request) -> Response:
    html, headers = pages.page()
    return HTMLResponse(html, headers=headers)


async def health(request: Request) -> Response:
    gate = request.app.state.service.gate
    return JSONResponse({"status": "ok", "running": gate.running, "waiting": gate.waiting})


async def metrics(request: Request) -> Response:
    content, kind = request.app.state.service.metrics.page()
    return Response(content, media_type=kind)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response


async def _refused(request: Request, error: Exception) -> Response:
    """Paths that are none, and methods that a path does not have, in OpenAI's words."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        message = _("Not allowed to {method} on {path}.", method=request.method, path=request.url.path)
    elif error.status_code == 404:
        message = _("Invalid URL ({where})", where=where)
    else:
        message = str(error.detail)
    code = {404: "unknown_url", 405: "method_not_supported"}.get(error.status_code)
    return ApiError(error.status_code, message, code=code, headers=error.headers).response
