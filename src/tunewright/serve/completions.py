"""``/v1/completions``: a text is gone on with as it is; no template is written around it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tunewright.infer.live import Ask, Served
from tunewright.serve import outputs
from tunewright.serve.errors import any_error, bad, parsed, unsupported
from tunewright.serve.limits import Ticket
from tunewright.serve.logprobs import Spelling
from tunewright.serve.protocol import CompletionRequest
from tunewright.serve.service import Job, Service, asks, choices, notes, off_loop, received, require_writer
from tunewright.serve.streams import Piece
from tunewright.serve.together import EventStream, merged, unless_gone
from tunewright.text import _

PATH = "v1/completions"
USUAL_TOKENS = 16  # OpenAI's own

Prompt = str | tuple[int, ...]


async def completions(request: Request) -> Response:
    service: Service = request.app.service
    asked = parsed(CompletionRequest, await received(request))
    prompts = _prompts(asked.prompt)
    if asked.stream_options is not None and not asked.stream:
        raise bad(_("'stream_options' is only for streams."), "stream_options", "invalid_value")
    if asked.echo and asked.logprobs is not None:
        raise unsupported("echo", _("'echo' and 'logprobs' cannot be used together on this server."))
    choices(service, asked, len(prompts))
    if asked.stream:
        return EventStream(_events(service, request, asked, prompts), lambda error: any_error(error).body)
    return JSONResponse(await unless_gone(_whole(service, request, asked, prompts), request.receive))


def _prompts(value: Any) -> list[Prompt]:
    """A text, a list of texts, ids, or a list of lists of ids. Raises ApiError 400."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(one, str) for one in value):
            return list(value)
        if _are_ids(value):
            return [tuple(value)]
        if all(isinstance(one, list) and one and _are_ids(one) for one in value):
            return [tuple(one) for one in value]
    raise bad(
        _("Invalid value for 'prompt': a text, a list of texts, a list of token ids or a list of such lists is "
          "expected."), "prompt", "invalid_type",
    )  # fmt: skip


def _are_ids(value: Sequence[Any]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in value)


# -- what is asked -------------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """prompts: ids of each.  asks: ``n`` to each prompt, one after the other.  echoes: text before each answer."""

    served: Served
    prompts: list[list[int]]
    asks: list[Ask] = field(default_factory=list)
    echoes: list[str] = field(default_factory=list)


async def _plan(service: Service, request: Request, asked: CompletionRequest, prompts: Sequence[Prompt]) -> _Plan:
    served = await service.model(asked.model, request)
    require_writer(served, PATH)
    count = asked.n or 1
    ids = await off_loop(_ids, served, asked, prompts)
    echoes = [""] * len(prompts) * count
    if asked.echo:
        texts = [one if isinstance(one, str) else served.codec.decode(one) for one in prompts]
        echoes = [text for text in texts for _number in range(count)]
    if served.gives == "outputs":
        return _Plan(served, ids, [], echoes)
    most = USUAL_TOKENS if asked.max_tokens is None else asked.max_tokens
    made = [ask for one in ids for ask in asks(service, served, asked, one, most, "prompt", asked.logprobs)]
    return _Plan(served, ids, made, echoes)


def _ids(served: Served, asked: CompletionRequest, prompts: Sequence[Prompt]) -> list[list[int]]:
    if served.gives == "outputs":
        outputs.require_search(asked)
        if any(not isinstance(one, str) for one in prompts):
            raise unsupported("prompt", _("This model reads texts, not token ids."))
        return [outputs.prompt_of(served, str(one), "prompt") for one in prompts]
    codec: Any = served.codec
    found = [codec.text_ids(one) if isinstance(one, str) else list(one) for one in prompts]
    for prompt, ids in zip(prompts, found, strict=True):
        if not ids:
            raise bad(_("The prompt is empty."), "prompt", "invalid_value")
        if not isinstance(prompt, str) and not all(0 <= token < codec.vocabulary for token in ids):
            raise bad(
                _("Invalid value for 'prompt': token ids of this model are below {size}.", size=codec.vocabulary),
                "prompt", "invalid_value",
            )  # fmt: skip
    return found


def _sources(
    service: Service, request: Request, asked: CompletionRequest, plan: _Plan, ticket: Ticket
) -> list[AsyncIterator[Piece]]:
    service.count_prompt(plan.served, sum(map(len, plan.prompts)))
    if asked.max_tokens == 0:
        return [_nothing() for _choice in plan.echoes]
    if plan.served.gives == "outputs":
        return [
            outputs.output(service, plan.served, prompt, asked.max_tokens, asked.stop, ticket)
            for prompt in plan.prompts
        ]
    begun = notes(request).begun
    return [service.write(Job(plan.served, ask, asked.stop, begun), ticket) for ask in plan.asks]


async def _nothing() -> AsyncIterator[Piece]:
    yield Piece("", (), 0, "length")


# -- what is written -----------------------------------------------------------------------------------------------


@dataclass
class _Choice:
    number: int
    spelling: Spelling
    echo: str
    logprobs: bool
    tokens: int = 0

    def body(self, piece: Piece) -> dict[str, Any]:
        """The choice as this piece adds to it."""
        text, self.echo = self.echo + piece.text, ""
        scored = self.spelling.completion(piece.steps, piece.places) if self.logprobs else None
        self.tokens = piece.tokens
        return {"index": self.number, "text": text, "logprobs": scored, "finish_reason": piece.end}


def _choices(plan: _Plan, asked: CompletionRequest) -> list[_Choice]:
    return [
        _Choice(number, Spelling(plan.served.codec), echo, asked.logprobs is not None)
        for number, echo in enumerate(plan.echoes)
    ]


async def _whole(
    service: Service, request: Request, asked: CompletionRequest, prompts: Sequence[Prompt]
) -> dict[str, Any]:
    with service.gate.admit(len(prompts) * (asked.n or 1)) as ticket:
        plan = await _plan(service, request, asked, prompts)
        made = _choices(plan, asked)
        bodies: list[list[dict[str, Any]]] = [[] for _choice in made]
        async with aclosing(merged(_sources(service, request, asked, plan, ticket))) as pieces:  # type: ignore[type-var]
            async for number, piece in pieces:
                bodies[number].append(made[number].body(piece))
    return _head(asked) | {"choices": [_joined(parts) for parts in bodies], "usage": _usage(plan, made)}


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    scored = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    logprobs = {key: [item for one in scored for item in one[key]] for key in scored[0]} if scored else None
    return parts[-1] | {"text": "".join(part["text"] for part in parts), "logprobs": logprobs}


async def _events(
    service: Service, request: Request, asked: CompletionRequest, prompts: Sequence[Prompt]
) -> AsyncIterator[dict[str, Any]]:
    with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    head = _head(asked) | ({"usage": None} if with_usage else {})
    with service.gate.admit(len(prompts) * (asked.n or 1)) as ticket:
        plan = await _plan(service, request, asked, prompts)
        made = _choices(plan, asked)
        async with aclosing(merged(_sources(service, request, asked, plan, ticket))) as pieces:  # type: ignore[type-var]
            async for number, piece in pieces:
                yield head | {"choices": [made[number].body(piece)]}
    if with_usage:
        yield head | {"choices": [], "usage": _usage(plan, made)}


def _head(asked: CompletionRequest) -> dict[str, Any]:
    name = f"cmpl-{secrets.token_hex(12)}"
    return {"id": name, "object": "text_completion", "created": int(time.time()), "model": asked.model}


def _usage(plan: _Plan, made: Sequence[_Choice]) -> dict[str, int]:
    prompt, written = sum(map(len, plan.prompts)), sum(choice.tokens for choice in made)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
