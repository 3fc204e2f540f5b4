"""The routes, and nothing else."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from tunewright.serve import models, pages
from tunewright.serve.chat import chat
from tunewright.serve.classify import classify
from tunewright.serve.completions import completions
from tunewright.serve.embeddings import embeddings
from tunewright.serve.frame import Frame
from tunewright.serve.service import Service


def application(service: Service, hosts: frozenset[str] | None = None) -> ASGIApp:
    """hosts: see ``frame.Frame``."""
    routes = [
        Route("/", page),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/snippets", models.snippets_of),
        Route("/v1/models", models.listed),
        Route("/v1/models/{model:path}", models.one),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/classify", classify, methods=["POST"]),
    ]
    return Frame(Router(routes, redirect_slashes=False), service, hosts)


async def page(request: Request) -> Response:
    html, headers = pages.page()
    return HTMLResponse(html, headers=headers)


async def health(request: Request) -> Response:
    gate = request.app.service.gate
    return JSONResponse({"status": "ok", "running": gate.running, "waiting": gate.waiting})


async def metrics(request: Request) -> Response:
    content, kind = request.app.service.metrics.page()
    return Response(content, media_type=kind)
