"""``/v1/chat/completions``."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tunewright.data.template import ChatTemplate
from tunewright.errors import DataError
from tunewright.infer.live import Ask, Served
from tunewright.serve import outputs
from tunewright.serve.calls import Forms, forced, forms_of
from tunewright.serve.errors import any_error, bad, of_ours, parsed, unsupported
from tunewright.serve.limits import Ticket
from tunewright.serve.logprobs import Spelling
from tunewright.serve.messages import messages_of, source_of, tools_of
from tunewright.serve.parts import Part, Parts
from tunewright.serve.protocol import ChatRequest
from tunewright.serve.service import (
    Job,
    Service,
    asks,
    choices,
    grammar_of,
    keep_of,
    notes,
    off_loop,
    received,
    require_writer,
    wrong_endpoint,
)
from tunewright.serve.streams import Piece
from tunewright.serve.together import EventStream, merged, unless_gone
from tunewright.text import _

PATH = "v1/chat/completions"


async def chat(request: Request) -> Response:
    service: Service = request.app.service
    asked = parsed(ChatRequest, await received(request))
    _require_sense(asked)
    choices(service, asked)
    if asked.stream:
        return EventStream(_events(service, request, asked), lambda error: any_error(error).body)
    return JSONResponse(await unless_gone(_whole(service, request, asked), request.receive))


def _require_sense(asked: ChatRequest) -> None:
    if asked.top_logprobs is not None and not asked.logprobs:
        raise bad(_("'logprobs' must be true where 'top_logprobs' is given."), "top_logprobs", "invalid_value")
    if asked.stream_options is not None and not asked.stream:
        raise bad(_("'stream_options' is only for streams."), "stream_options", "invalid_value")
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise bad(_("Give 'max_tokens' or 'max_completion_tokens', not both."), "max_tokens", "invalid_value")


# -- what is asked -------------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """asks: one to each choice; none for a model that searches for its output.  forms: of calls, where tools were
    given.  source: what such a model reads."""

    served: Served
    prompt: list[int]
    asks: list[Ask] = field(default_factory=list)
    forms: Forms | None = None
    held: bool = False  # by a grammar, which leaves no room for reasoning


async def _plan(service: Service, request: Request, asked: ChatRequest) -> _Plan:
    served = await service.model(asked.model, request)
    require_writer(served, PATH)
    tools, must_call = tools_of(asked.tools, asked.tool_choice)
    held = await off_loop(grammar_of, asked.response_format)
    if served.gives == "outputs":
        return _Plan(served, await off_loop(_source, served, asked, bool(tools), held))
    codec = served.codec
    if not served.chats or not isinstance(codec, ChatTemplate):
        raise wrong_endpoint(served.name, PATH, "v1/completions")
    forms = None
    if tools:
        if held is not None:
            raise unsupported("tools", _("'tools' and 'response_format' cannot be used together on this server."))
        forms = await off_loop(forms_of, codec)
        if forms is None:
            raise unsupported("tools", _("The template of `{name}` does not know tools.", name=served.name))
        if must_call:
            held = await off_loop(_forced, forms, tools, codec)
    try:
        prompt = await off_loop(codec.prompt_ids, messages_of(asked.messages, served), tools)
    except DataError as error:  # the template's own rules, such as roles that take turns
        raise bad(of_ours(error).message, "messages", "invalid_value") from None
    most = asked.max_completion_tokens if asked.max_tokens is None else asked.max_tokens
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    made = asks(service, served, asked, prompt, most, "messages", logprobs, held)
    return _Plan(served, prompt, made, forms, held is not None)


def _forced(forms: Forms, tools: list[dict[str, Any]], codec: ChatTemplate) -> str:
    try:
        return forced(forms, tools, codec)
    except DataError as error:
        raise bad(of_ours(error).message, "tools", "invalid_schema") from None


def _source(served: Served, asked: ChatRequest, has_tools: bool, held: str | None) -> list[int]:
    outputs.require_search(asked)
    if has_tools or held is not None:
        raise unsupported("tools" if has_tools else "response_format")
    return outputs.prompt_of(served, source_of(asked.messages), "messages")


# -- what is said --------------------------------------------------------------------------------------------------


@dataclass
class _Voice:
    """One choice while it is written. reasoning: tokens of it so far."""

    parts: Parts
    spelling: Spelling
    tokens: int = 0
    reasoning: int = 0
    finish: str | None = None

    def hear(self, piece: Piece) -> list[Part]:
        found = self.parts.feed(piece.text, piece.end is not None)
        if found and all(part.kind == "reasoning" for part in found):
            self.reasoning += piece.tokens - self.tokens
        self.tokens = piece.tokens
        if piece.end is not None:
            self.finish = "tool_calls" if self.parts.called else piece.end
        return found


def _voices(plan: _Plan, asked: ChatRequest) -> list[_Voice]:
    codec = plan.served.codec
    marks = codec.marks if isinstance(codec, ChatTemplate) and not plan.held else None
    return [
        _Voice(Parts(marks, plan.forms, asked.parallel_tool_calls is False), Spelling(codec))
        for _number in range(max(1, len(plan.asks)))
    ]


def _sources(
    service: Service, request: Request, asked: ChatRequest, plan: _Plan, ticket: Ticket
) -> list[AsyncIterator[Piece]]:
    service.count_prompt(plan.served, len(plan.prompt))
    if plan.served.gives == "outputs":
        most = asked.max_completion_tokens if asked.max_tokens is None else asked.max_tokens
        return [outputs.output(service, plan.served, plan.prompt, most, asked.stop, ticket)]
    keep = keep_of(plan.served, plan.forms)
    begun = notes(request).begun
    return [service.write(Job(plan.served, ask, asked.stop, begun, keep), ticket) for ask in plan.asks]


async def _whole(service: Service, request: Request, asked: ChatRequest) -> dict[str, Any]:
    with service.gate.admit(asked.n or 1) as ticket:
        plan = await _plan(service, request, asked)
        voices = _voices(plan, asked)
        said: list[list[Part]] = [[] for _voice in voices]
        logprobs: list[list[dict[str, Any]]] = [[] for _voice in voices]
        async with aclosing(merged(_sources(service, request, asked, plan, ticket))) as pieces:  # type: ignore[type-var]
            async for number, piece in pieces:
                said[number] += voices[number].hear(piece)
                if asked.logprobs:
                    logprobs[number] += voices[number].spelling.chat(piece.steps)
    made = [
        {
            "index": number,
            "message": _message(parts),
            "logprobs": {"content": logprobs[number], "refusal": None} if asked.logprobs else None,
            "finish_reason": voices[number].finish,
        }
        for number, parts in enumerate(said)
    ]
    return _head("chat.completion", asked) | {"choices": made, "usage": _usage(plan, voices)}


def _message(parts: list[Part]) -> dict[str, Any]:
    def joined(kind: str) -> str:
        return "".join(part.text for part in parts if part.kind == kind)

    calls = [part.call for part in parts if part.kind == "call"]
    content = joined("content")
    message: dict[str, Any] = {
        "role": "assistant", "content": None if calls and not content else content, "refusal": None, "annotations": [],
    }  # fmt: skip
    if reasoning := joined("reasoning"):
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


async def _events(service: Service, request: Request, asked: ChatRequest) -> AsyncIterator[dict[str, Any]]:
    with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    head = _head("chat.completion.chunk", asked) | ({"usage": None} if with_usage else {})

    def chunk(number: int, delta: dict[str, Any], finish: str | None = None, scored: Any = None) -> dict[str, Any]:
        logprobs = {"content": scored, "refusal": None} if scored else None
        return head | {"choices": [{"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}

    with service.gate.admit(asked.n or 1) as ticket:
        plan = await _plan(service, request, asked)
        voices = _voices(plan, asked)
        begun: set[int] = set()
        scored: list[list[dict[str, Any]]] = [[] for _voice in voices]
        calls = [0 for _voice in voices]
        async with aclosing(merged(_sources(service, request, asked, plan, ticket))) as pieces:  # type: ignore[type-var]
            async for number, piece in pieces:
                if number not in begun:
                    begun.add(number)
                    yield chunk(number, {"role": "assistant", "content": "", "refusal": None})
                if asked.logprobs:
                    scored[number] += voices[number].spelling.chat(piece.steps)
                for part in voices[number].hear(piece):
                    yield chunk(number, _delta(part, calls, number), scored=scored[number])
                    scored[number] = []
                if voices[number].finish:
                    yield chunk(number, {}, voices[number].finish, scored[number])
    if with_usage:
        yield head | {"choices": [], "usage": _usage(plan, voices)}


def _delta(part: Part, calls: list[int], number: int) -> dict[str, Any]:
    if part.call is not None:
        calls[number] += 1
        return {"tool_calls": [{"index": calls[number] - 1, **part.call}]}
    return {"reasoning_content" if part.kind == "reasoning" else "content": part.text}


def _head(kind: str, asked: ChatRequest) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
    }


def _usage(plan: _Plan, voices: list[_Voice]) -> dict[str, Any]:
    prompt, written = len(plan.prompt), sum(voice.tokens for voice in voices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "completion_tokens_details": {"reasoning_tokens": sum(voice.reasoning for voice in voices)},
    }
