"""``/v1/embeddings``: texts as vectors of length one."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tunewright.serve.errors import bad, parsed, too_long, unsupported
from tunewright.serve.protocol import MOST_INPUTS, EmbeddingRequest
from tunewright.serve.service import Service, off_loop, received
from tunewright.serve.together import unless_gone
from tunewright.text import _


async def embeddings(request: Request) -> Response:
    service: Service = request.app.service
    asked = parsed(EmbeddingRequest, await received(request))
    texts = _texts(asked.input)
    return JSONResponse(await unless_gone(_vectors(service, request, asked, texts), request.receive))


async def _vectors(service: Service, request: Request, asked: EmbeddingRequest, texts: list[str]) -> dict[str, Any]:
    with service.gate.admit() as ticket:
        served = await service.model(asked.model, request)
        if served.gives != "vectors":
            raise bad(
                _("The model `{name}` gives no vectors; serve a base that only reads, such as minilm-l6.",
                  name=served.name), "model", "unsupported_model",
            )  # fmt: skip
        encoder = served.engine
        if asked.dimensions is not None and asked.dimensions != encoder.size:
            raise unsupported(
                "dimensions", _("The vectors of `{name}` have {size} numbers, and cannot be shortened.",
                                name=served.name, size=encoder.size),
            )  # fmt: skip
        rows = await off_loop(encoder.read, texts)
        for number, row in enumerate(rows):
            if len(row) > encoder.context:
                raise too_long(encoder.context, len(row), f"input[{number}]")
        read = sum(map(len, rows))
        service.count_prompt(served, read)
        async with ticket.place():
            found = await service.workers.ask(served.name, rows, lambda some, _wanted: encoder.vectors(some))
    data = [
        {"object": "embedding", "index": number, "embedding": _written(vector, asked.encoding_format)}
        for number, vector in enumerate(found)
    ]
    usage = {"prompt_tokens": read, "total_tokens": read}
    return {"object": "list", "data": data, "model": asked.model, "usage": usage}


def _written(vector: Any, form: str | None) -> Any:
    numbers = np.asarray(vector, dtype="<f4")
    return base64.b64encode(numbers.tobytes()).decode("ascii") if form == "base64" else numbers.tolist()


def _texts(value: Any) -> list[str]:
    """Raises ApiError 400; token ids are refused, because clients send those of another tokenizer."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_INPUTS:
        raise bad(
            _("Invalid value for 'input': a text or a list of 1 to {most} texts is expected.", most=MOST_INPUTS),
            "input", "invalid_type",
        )  # fmt: skip
    if any(not isinstance(one, str) for one in found):
        raise unsupported(
            "input", _("This server reads texts, not token ids: ids of another tokenizer would be other words here. "
                       "(LangChain: check_embedding_ctx_length=False.)"),
        )  # fmt: skip
    if any(not one.strip() for one in found):
        raise bad(_("'{param}' holds a text without any character.", param="input"), "input", "invalid_value")
    return list(found)
