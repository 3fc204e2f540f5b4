"""``/v1/classify``: labels with probabilities. OpenAI has nothing like it, so the form is ours."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tunewright.example import Rendered
from tunewright.infer.live import Served
from tunewright.serve.errors import ApiError, bad, parsed, too_long
from tunewright.serve.protocol import ClassifyRequest, Pair
from tunewright.serve.rows import Given, chats_of
from tunewright.serve.service import Service, off_loop, received
from tunewright.serve.together import unless_gone
from tunewright.text import _


async def classify(request: Request) -> Response:
    service: Service = request.app.service
    asked = parsed(ClassifyRequest, await received(request))
    return JSONResponse(await unless_gone(_labels(service, request, asked), request.receive))


async def _labels(service: Service, request: Request, asked: ClassifyRequest) -> dict[str, Any]:
    with service.gate.admit() as ticket:
        served = await service.model(asked.model, request)
        if served.gives != "labels":
            raise bad(
                _("The model `{name}` chooses no labels; it was not trained for the task classify.", name=served.name),
                "model", "unsupported_model",
            )  # fmt: skip
        rows: list[Rendered] = await off_loop(_rows, served, _given(asked))
        read = sum(served.codec.size(row) for row in rows)
        service.count_prompt(served, read)
        async with ticket.place():
            chances = await service.workers.ask(
                served.name, rows, lambda some, _wanted: served.engine.probabilities(some).tolist()
            )
    multi = served.opened.recipe.classify.multi_label
    return {
        "id": f"classify-{secrets.token_hex(12)}",
        "object": "list",
        "model": asked.model,
        "data": [_entry(number, served.labels, found, multi) for number, found in enumerate(chances)],
        "usage": {"prompt_tokens": read, "total_tokens": read},
    }


def _given(asked: ClassifyRequest) -> list[Given]:
    inputs: Sequence[str | Pair] = asked.input if isinstance(asked.input, list) else [asked.input]
    return [(one, None) if isinstance(one, str) else (one.text, one.text_pair) for one in inputs]


def _rows(served: Served, given: Sequence[Given]) -> list[Rendered]:
    """As `tunewright predict` writes them: what is too long is cut only where the run was trained on cut rows."""
    recipe = served.opened.recipe
    chats = chats_of(served.opened, given, "input")
    most = recipe.data.max_length
    rows = []
    for chat, rendered in zip(chats, served.codec.render_many(chats), strict=True):
        size = served.codec.size(rendered[-1])
        if size > most and recipe.data.too_long == "truncate":
            rendered = list(served.codec.cut(chat, rendered, most).rows)
        elif size > most:
            raise _too_long(most, size, chat.origin.row)
        if not rendered:
            raise _too_long(most, size, chat.origin.row)
        rows.append(rendered[-1])
    return rows


def _too_long(most: int, size: int, row: int) -> ApiError:
    return too_long(most, size, f"input[{row - 1}]")


def _entry(number: int, labels: Sequence[str], chances: Sequence[float], multi: bool) -> dict[str, Any]:
    each = {label: round(chance, 6) for label, chance in zip(labels, chances, strict=True)}
    entry: dict[str, Any] = {"object": "classification", "index": number, "probabilities": each}
    if multi:
        return entry | {"labels": [label for label, chance in zip(labels, chances, strict=True) if chance >= 0.5]}
    best = max(range(len(chances)), key=chances.__getitem__)
    return entry | {"label": labels[best], "probability": each[labels[best]]}
