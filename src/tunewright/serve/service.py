"""What all endpoints share: the fleet, the limits, the numbers; and how a request becomes answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from tunewright.data.template import ChatTemplate
from tunewright.errors import DataError
from tunewright.infer import grammar
from tunewright.infer.live import Ask, Fleet, LiveEngine, Served
from tunewright.serve.calls import Forms
from tunewright.serve.errors import ApiError, bad, no_model, of_ours, too_long
from tunewright.serve.keys import Keys
from tunewright.serve.limits import Gate, Limits, Ticket
from tunewright.serve.metrics import Metrics
from tunewright.serve.protocol import Common, ResponseFormat, body_of
from tunewright.serve.streams import Detokenizer, Piece, pieces
from tunewright.serve.workers import Workers
from tunewright.text import _

SMALLEST_NUCLEUS = 1e-9  # `top_p: 0` is the likeliest token alone
NOTES = "tunewright"  # the scope's entry for what is noted of a request while it is answered


class Service:
    """fleet: what is served.  keys: who may ask; none means everybody who reaches the port."""

    def __init__(self, fleet: Fleet, limits: Limits | None = None, keys: Keys | None = None) -> None:
        self.fleet, self.limits, self.keys = fleet, limits or Limits(), keys or Keys()
        self.gate = Gate(self.limits)
        self.metrics = Metrics(self.gate)
        self.workers = Workers()

    async def model(self, name: str, request: Request) -> Served:
        """Raises ApiError 404 for a name that nothing has."""
        if all(card.name != name for card in self.fleet.cards()):
            raise no_model(name)
        notes(request).model = name
        return await self.fleet.get(name)

    # -- writing ---------------------------------------------------------------------------------------------------

    async def write(self, job: Job, ticket: Ticket) -> AsyncIterator[Piece]:
        """One answer, as soon as there is a place for it."""
        async with ticket.place():
            detokenizer = Detokenizer(job.served.codec, job.keep)
            engine: LiveEngine = job.served.engine
            found = pieces(engine.answer(job.ask), detokenizer, job.stop, self._first(job))
            tokens = 0
            try:
                async with aclosing(found) as made:  # type: ignore[type-var]  # it is a generator
                    async for piece in made:
                        tokens = piece.tokens
                        yield piece
            finally:
                self.metrics.tokens.labels("written", job.served.name).inc(tokens)

    def count_prompt(self, served: Served, tokens: int) -> None:
        self.metrics.tokens.labels("prompt", served.name).inc(tokens)

    def _first(self, job: Job) -> Any:
        name = job.served.name
        return lambda: self.metrics.first_token.labels(name).observe(time.monotonic() - job.begun)


@dataclass(frozen=True, slots=True)
class Job:
    """One answer that is to be written. begun: when its request came, by the monotonic clock.  keep: special tokens
    that are a part of what is said."""

    served: Served
    ask: Ask
    stop: tuple[str, ...]
    begun: float
    keep: tuple[str, ...] = ()


@dataclass
class Notes:
    """begun: when the request came, by the monotonic clock.  model: what it named, once it is known to exist."""

    id: str
    begun: float
    model: str = ""


def notes(request: Request) -> Notes:
    found: Notes = request.scope[NOTES]
    return found


async def received(request: Request) -> Mapping[str, Any]:
    return body_of(await request.body(), request.headers.get("content-type"))


def asks(
    service: Service, served: Served, asked: Common, prompt: Sequence[int], most: int | None, param: str,
    logprobs: int | None = None, held: str | None = None,
) -> list[Ask]:  # fmt: skip
    """``n`` asks of one prompt. most: tokens wanted at most; what does not fit is left out, and the answer then says
    that it ended by ``length``.  held: the grammar. Raises ApiError 400 for a prompt that fills the context."""
    context = served.engine.context
    room = context - len(prompt)
    if room < 1:
        raise too_long(context, len(prompt), param)
    wanted = [room, most, service.limits.new_tokens]
    new = min(one for one in wanted if one is not None)
    nucleus = 1.0 if asked.top_p is None else max(asked.top_p, SMALLEST_NUCLEUS)
    temperature = 1.0 if asked.temperature is None else asked.temperature
    return [
        Ask(
            tuple(prompt), new, served.stops, served.adapter, temperature, nucleus, _seed(asked.seed, number), logprobs,
            held,
        )
        for number in range(choices(service, asked))
    ]  # fmt: skip


def choices(service: Service, asked: Common, prompts: int = 1) -> int:
    """``n``. Raises ApiError 400 for more answers than a request may have."""
    count = asked.n or 1
    if count * prompts > service.limits.choices:
        raise bad(
            _("This server writes at most {most} answers to a request.", most=service.limits.choices), "n",
            "invalid_value",
        )  # fmt: skip
    return count


def _seed(seed: int | None, number: int) -> int | None:
    """Each of ``n`` answers draws differently; the range is that of torch's generators."""
    return None if seed is None else (seed + number) % 2**63


def grammar_of(wanted: ResponseFormat | None) -> str | None:
    """Raises ApiError 400 for a schema that cannot be followed."""
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_schema" and wanted.json_schema is None:
        name = "response_format.json_schema"
        raise bad(_("Missing required parameter: '{name}'.", name=name), name, "missing_required_parameter")
    schema = None if wanted.json_schema is None else wanted.json_schema.schema_
    try:
        return grammar.any_object() if schema is None else grammar.from_schema(schema)
    except DataError as error:
        raise bad(of_ours(error).message, "response_format", "invalid_schema") from None


def require_writer(served: Served, path: str) -> None:
    """Raises ApiError 400 for a model that writes no text."""
    where = {"labels": "v1/classify", "vectors": "v1/embeddings"}.get(served.gives)
    if where is not None:
        raise wrong_endpoint(served.name, path, where)


def wrong_endpoint(name: str, path: str, where: str) -> ApiError:
    message = _("The model `{name}` is not supported in the {path} endpoint. Did you mean to use {where}?",
                name=name, path=path, where=where)  # fmt: skip
    return bad(message, "model", "unsupported_model")


def keep_of(served: Served, forms: Forms | None) -> tuple[str, ...]:
    """Special tokens that say where reasoning and calls begin and end."""
    codec = served.codec
    if not isinstance(codec, ChatTemplate):
        return ()
    marks = [codec.marks.open, codec.marks.close, *((forms.open, forms.close) if forms else ())]
    return tuple(mark for mark in marks if mark)


async def off_loop(function: Any, *args: Any) -> Any:
    """Templates and tokenizers may take long on a long text; others go on meanwhile."""
    return await asyncio.to_thread(function, *args)
