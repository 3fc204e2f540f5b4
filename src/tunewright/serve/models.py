"""``/v1/models``: what can be asked for."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tunewright.infer.live import Card
from tunewright.serve import snippets
from tunewright.serve.errors import no_model
from tunewright.serve.service import Service

ADDRESS = "{url}"


async def listed(request: Request) -> Response:
    service: Service = request.app.service
    return JSONResponse({"object": "list", "data": [_entry(card) for card in service.fleet.cards()]})


async def one(request: Request) -> Response:
    service: Service = request.app.service
    name = request.path_params["model"]
    card = next((card for card in service.fleet.cards() if card.name == name), None)
    if card is None:
        raise no_model(name)
    return JSONResponse(_entry(card))


async def snippets_of(request: Request) -> Response:
    """For the page: lines that call each model. Where its address goes stands ``{url}``: only a browser knows it."""
    service: Service = request.app.service
    return JSONResponse({card.name: _snippets(card, bool(service.keys)) for card in service.fleet.cards()})


def _snippets(card: Card, key: bool) -> dict[str, str]:
    gives = snippets.gives_of(card)
    return {
        "curl": snippets.curl(card.name, gives, url=ADDRESS, key=key),
        "python": snippets.python(card.name, gives, url=ADDRESS, key=key),
    }


def _entry(card: Card) -> dict[str, Any]:
    """OpenAI's four, and what only we say under a name of our own."""
    ours = {"base": card.base, "gives": card.gives, "chats": card.chats, "engine": card.engine}
    return {"id": card.name, "object": "model", "created": card.created, "owned_by": "tunewright", "tunewright": ours}
