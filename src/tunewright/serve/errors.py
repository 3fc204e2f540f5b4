"""What goes wrong, in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}`` on every path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from tunewright.errors import DataError, TunewrightError
from tunewright.text import _

TYPES = {401: "invalid_request_error", 429: "rate_limit_error"}  # else by hundreds


class ApiError(Exception):
    """status: of HTTP.  param: the part of the request that it is about.  code: for programs."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def unreadable(why: str) -> ApiError:
    return bad(_("We could not parse the JSON body of your request: {why}.", why=why))


def unsupported(param: str, why: str | None = None) -> ApiError:
    message = why or _("Unsupported parameter: '{param}' is not supported with this model.", param=param)
    return bad(message, param, "unsupported_parameter")


def no_model(name: str) -> ApiError:
    message = _("The model `{name}` does not exist or you do not have access to it.", name=name)
    return ApiError(404, message, code="model_not_found")


def too_long(context: int, given: int, param: str) -> ApiError:
    part = "messages" if param == "messages" else "input" if param == "input" else "prompt"
    message = _(
        "This model's maximum context length is {context} tokens. However, your {part} resulted in {given} tokens. "
        "Please reduce the length of the {part}.",
        context=context, part=part, given=given,
    )  # fmt: skip
    return bad(message, param, "context_length_exceeded")


def of_ours(error: TunewrightError) -> ApiError:
    """An error of ours as the client should see it: what it sent is its own fault, all else is the server's."""
    parts = [error.what, error.do] if error.do else [error.what]
    message = "; ".join(part.rstrip(".") for part in parts) + "."
    if isinstance(error, DataError):
        return bad(message)
    return ApiError(500, message, code=type(error).__name__, headers={"x-should-retry": "false"})


def any_error(error: BaseException) -> ApiError:
    """Every exception as an answer."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TunewrightError):
        return of_ours(error)
    return ApiError(500, _("The server had an error while processing your request. Its log has the details."))


# -- what pydantic found -------------------------------------------------------------------------------------------

M = TypeVar("M", bound=BaseModel)
_NAME = re.compile(r"[a-z_]+")
_TAGS = {"str", "int", "float", "bool", "list", "dict", "none"}  # which of a union's types was tried


def parsed(model: type[M], body: Mapping[str, Any]) -> M:
    """The request as ``model``. Raises ApiError 400 that names the first part that is wrong."""
    try:
        return model.model_validate_json(json.dumps(body))  # in which a strict model takes objects for its parts
    except ValidationError as error:
        _refuse(error)


def _refuse(error: ValidationError) -> NoReturn:
    errors = error.errors(include_url=False, include_context=True)
    # A name that nobody knows explains the others; of a union's types, the one that got furthest, and of those one that
    # was the right type.
    first = max(
        errors, key=lambda one: (one["type"] == "extra_forbidden", len(one["loc"]), not one["type"].endswith("_type"))
    )
    if first["type"] == "json_invalid":  # pydantic's reader goes less deep than Python's
        raise unreadable(_("it is nested too deeply"))
    param = _place(first["loc"])
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, ApiError):
        raise raised from None
    if first["type"] == "extra_forbidden":
        raise bad(_("Unrecognized request argument supplied: {name}", name=param), param, "unknown_parameter")
    if first["type"] == "missing":
        raise bad(_("Missing required parameter: '{name}'.", name=param), param, "missing_required_parameter")
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    why = first["msg"].removeprefix("Value error, ")
    raise bad(_("Invalid value for '{name}': {why}.", name=param, why=why), param, code)


def _place(loc: tuple[int | str, ...]) -> str:
    """``("messages", 0, "content")`` as ``messages[0].content``."""
    found = ""
    for part in loc:
        if isinstance(part, int):
            found += f"[{part}]"
        elif _NAME.fullmatch(part) and part not in _TAGS:
            found += f".{part}" if found else part
        elif not found:
            found = part
    return found
