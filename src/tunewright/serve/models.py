"""``/v1/models``: what can be asked for."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tunewright.infer.live import Card
from tunewright.serve.errors import no_model
from tunewright.serve.service import Service


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


def _entry(card: Card) -> dict[str, Any]:
    """OpenAI's four, and what only we say under a name of our own."""
    ours = {"base": card.base, "gives": card.gives, "engine": card.engine}
    return {"id": card.name, "object": "model", "created": card.created, "owned_by": "tunewright", "tunewright": ours}
