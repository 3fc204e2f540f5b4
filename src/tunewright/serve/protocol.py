"""What clients may ask, as types. A parameter that nobody knows is refused, and so is one that is known and would
change the answer if it were left out; docs/serve.md has the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tunewright.serve.errors import bad, unreadable
from tunewright.text import _

MOST_STOPS = 4
MOST_INPUTS = 2048


class Asked(BaseModel):
    """The base of all requests: nothing is converted from another type, nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(_("a text or a list of texts is expected"))
    if len(found) > MOST_STOPS or not all(found):
        raise ValueError(_("at most {most} texts, none of them empty, are expected", most=MOST_STOPS))
    return tuple(found)


def _default_only(*allowed: Any) -> AfterValidator:
    """A parameter that is known, and taken only where it changes nothing."""

    def check(value: Any) -> Any:
        if value is None or any(value == one and type(value) is not bool for one in allowed):
            return None
        raise ValueError(_("this server does not do that; leave the parameter out"))

    return AfterValidator(check)


Int = Annotated[int, BeforeValidator(_whole)]
Stops = Annotated[Any, BeforeValidator(_stops)]
Temperature = Annotated[float, Field(ge=0, le=2)] | None
TopP = Annotated[float, Field(ge=0, le=1)] | None
Seed = Annotated[Int, Field(ge=-(2**63), le=2**63 - 1)] | None
Choices = Annotated[Int, Field(ge=1, le=128)] | None
Refused = Annotated[Any, _default_only()]
Penalty = Annotated[Any, _default_only(0)]
Bias = Annotated[Any, _default_only({})]
TextOnly = Annotated[Any, _default_only(["text"])]
Suffix = Annotated[Any, _default_only("")]
OneOf = Annotated[Any, _default_only(0, 1)]  # the best of one is that one


class StreamOptions(Asked):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # ours has none: lengths of pieces are not hidden


class Common(Asked):
    """What chat and completions share."""

    model: str
    temperature: Temperature = None
    top_p: TopP = None
    n: Choices = None
    stop: Stops = ()
    seed: Seed = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    logit_bias: Bias = None
    user: Any = None


class Function(Asked):
    name: Annotated[str, Field(min_length=1)]
    arguments: str


class ToolCall(Asked):
    id: str | None = None
    type: Literal["function"] = "function"
    function: Function
    index: Int | None = None  # clients that gather a stream send it back


class ChatMessage(Asked):
    """refusal, annotations: come back with answers that a client repeats, and say nothing here."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Refused = None
    function_call: Refused = None


class FunctionTool(Asked):
    """name: as OpenAI has them; any other could end a call in its middle."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Asked):
    type: Literal["function"]
    function: FunctionTool


class JsonSchema(Asked):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Asked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Common):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    # Taken, and without meaning here.
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    # Known, and refused where they would change the answer.
    modalities: TextOnly = None
    audio: Refused = None
    prediction: Refused = None
    web_search_options: Refused = None
    functions: Refused = None
    function_call: Refused = None
    moderation: Refused = None
    reasoning_effort: Refused = None
    verbosity: Refused = None


class CompletionRequest(Common):
    prompt: Any
    max_tokens: Annotated[Int, Field(ge=0)] | None = None
    logprobs: Annotated[Int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: OneOf = None
    suffix: Suffix = None


class EmbeddingRequest(Asked):
    model: str
    input: Any
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Int, Field(ge=1)] | None = None
    user: Any = None


class Pair(Asked):
    text: str
    text_pair: str | None = None


class ClassifyRequest(Asked):
    model: str
    input: str | Pair | Annotated[list[str | Pair], Field(min_length=1, max_length=MOST_INPUTS)]
    user: Any = None


# -- the body ------------------------------------------------------------------------------------------------------


def body_of(content: bytes, content_type: str | None) -> Mapping[str, Any]:
    """The JSON object of a request. Raises ApiError 400."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        # Also what keeps a page of another site from asking: without this type a browser asks us first.
        raise bad(_("Send the body as JSON, with the header 'Content-Type: application/json'."))
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # half a character cannot be tokenised
    except (ValueError, RecursionError) as error:
        why = str(error).splitlines()[0] if isinstance(error, ValueError) else _("it is nested too deeply")
        raise unreadable(why) from None
    if not isinstance(found, dict):
        raise unreadable(_("it is no object"))
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(_("{name} is no JSON", name=name))
