"""Models that write a text from another, asked through completions and chat. They search with beams: nothing is drawn,
and the output comes at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from tunewright.infer.engine import Generation
from tunewright.infer.live import End, Served
from tunewright.infer.predict import Options, Predictor
from tunewright.serve.errors import bad, too_long
from tunewright.serve.limits import Ticket
from tunewright.serve.protocol import Common
from tunewright.serve.rows import chats_of
from tunewright.serve.service import Service
from tunewright.serve.streams import Piece, StopStrings
from tunewright.text import _

MOST = 1024  # tokens of an output, unless its run was measured with more


def require_search(asked: Common) -> None:
    """Raises ApiError 400 for parameters that would have to change how an output is found."""
    for name, plain in (
        ("temperature", (None, 0, 1)),
        ("top_p", (None, 1)),
        ("n", (None, 1)),
        ("logprobs", (None, False)),
    ):
        value = getattr(asked, name, None)
        if value not in plain or (name == "logprobs" and value is not None and value is not False):
            raise bad(
                _("Unsupported value: '{name}' does not support {value} with this model, which searches for its output "
                  "with beams.", name=name, value=value), name, "unsupported_value",
            )  # fmt: skip


def prompt_of(served: Served, source: str, param: str) -> list[int]:
    """The ids of ``source`` as a training row has them. Raises ApiError 400 for one that is too long or blank."""
    opened = served.opened
    question = opened.task.question(chats_of(opened, [(source, None)], param)[0], served.codec)
    prompt = list(question.prompt)
    most = Predictor(opened, Options()).most
    if len(prompt) > most:
        raise too_long(most, len(prompt), param)
    return prompt


async def output(
    service: Service, served: Served, prompt: Sequence[int], most: int | None, stops: Sequence[str], ticket: Ticket
) -> AsyncIterator[Piece]:
    """The output as one piece. most: tokens that it may have."""
    new = _tokens(service, served, most)

    def answer(prompts: Sequence[Sequence[int]], wanted: Callable[[], bool]) -> list[Generation]:
        found: list[Generation] = served.engine.generate(prompts, new, wanted=wanted)
        return found

    async with ticket.place():
        done: Generation = (await service.workers.ask(served.name, [prompt], answer, new))[0]
    stopping = StopStrings(stops)
    text = stopping.add(done.text)
    text = text if stopping.found else text + stopping.rest()
    end: End = "stop" if stopping.found or done.stopped else "length"
    service.metrics.tokens.labels("written", served.name).inc(len(done.ids))
    yield Piece(text, (), len(done.ids), end)


def _tokens(service: Service, served: Served, most: int | None) -> int:
    """That an output may have. A T5 has no last position, so that a client's number alone would bound nothing."""
    usual = Predictor(served.opened, Options()).new
    limits = [one for one in (most, service.limits.new_tokens) if one is not None]
    return min(Predictor(served.opened, Options(max_new_tokens=min(limits))).new, max(MOST, usual)) if limits else usual
