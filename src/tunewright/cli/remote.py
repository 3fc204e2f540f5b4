"""The conversation of ``tunewright chat --url``: with any endpoint that speaks as OpenAI's does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from tunewright.cli.loop import Loop
from tunewright.errors import InputError
from tunewright.settings import secret
from tunewright.text import _

SECONDS = 600  # that an endpoint may be silent
HELP = "tunewright chat --help"


@dataclass(frozen=True)
class Endpoint:
    """url: up to and with ``/v1``.  key: shown as a bearer's, if there is one."""

    url: str
    key: str | None = None

    def models(self) -> list[str]:
        """Names of what can be talked to; our own servers say which do more than that. Raises InputError."""
        with self._open("models", None) as reply:
            try:
                data = [(str(one["id"]), one.get("tunewright") or {}) for one in json.load(reply)["data"]]
                return [name for name, ours in data if ours.get("chats", True)]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise self._no_endpoint() from None

    def stream(self, asked: dict[str, Any]) -> Iterator[tuple[str, bool]]:
        """The answer in pieces, each with whether it is reasoning. Raises InputError."""
        with self._open("chat/completions", asked | {"stream": True}) as reply:
            for line in reply:
                data = line.decode("utf-8", "replace").strip()
                if not data.startswith("data:") or data == "data: [DONE]":
                    continue
                try:
                    event = json.loads(data.removeprefix("data:"))
                except ValueError:
                    raise self._no_endpoint() from None
                if event.get("error"):
                    raise self._refused(_said(event))
                for choice in event.get("choices") or []:
                    delta = choice.get("delta") or {}
                    for name in ("reasoning_content", "content"):
                        if delta.get(name):
                            yield str(delta[name]), name != "content"

    def _open(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "tunewright"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(f"{self.url.rstrip('/')}/{path}", data, headers)
            if request.type not in ("http", "https"):
                raise ValueError(_("it begins with neither http:// nor https://"))
            if not request.host:
                raise ValueError(_("it names no machine"))
            return urllib.request.urlopen(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                raise self._answered(error.code, error.read()) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            why = getattr(error, "reason", error)
            raise InputError(
                _("nothing answers there: {why}", why=getattr(why, "strerror", None) or why), where=self.url,
                do=_("start the server, or look at the address"), command="tunewright serve",
            ) from None  # fmt: skip
        except ValueError as error:
            raise InputError(_("this is no address: {why}", why=error), where=self.url, command=HELP) from None

    def _answered(self, status: int, content: bytes) -> InputError:
        try:
            said = _said(json.loads(content))
        except ValueError:
            said = ""
        if status == 401:
            return InputError(
                _("the endpoint asks for a key: {said}", said=said or status), where=self.url,
                do=_("put it into the environment, and name it"), command="tunewright chat --url URL --key-env NAME",
            )  # fmt: skip
        if not said:
            return self._no_endpoint(status)
        return self._refused(said)

    def _refused(self, said: str) -> InputError:
        return InputError(_("the endpoint refuses: {said}", said=said), where=self.url, command=HELP)

    def _no_endpoint(self, status: int | None = None) -> InputError:
        return InputError(
            _("what answers there speaks otherwise than OpenAI's API (status {status})", status=status or 200),
            where=self.url, do=_("give the address up to /v1"), command=HELP,
        )  # fmt: skip


def _said(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message") if isinstance(error, dict) else error or "")


@dataclass(frozen=True)
class Voice:
    """One of an endpoint's models."""

    endpoint: Endpoint
    model: str


def connected(url: str, model: str | None, key_env: str | None) -> Voice:
    """key_env: where in the environment the key is. Raises InputError for an endpoint or a model that is not there."""
    key = secret(key_env) if key_env else None
    if key_env and key is None:
        raise InputError(_("the environment has no {name}", name=key_env), where="--key-env", command=HELP)
    endpoint = Endpoint(url, key)
    names = endpoint.models()
    if not names or (model is not None and model not in names):
        what = _("the endpoint has no model {name!r}", name=model) if names else _("the endpoint has no model")
        raise InputError(
            what, where=url, do=_("its models: {names}", names=", ".join(names)) if names else None, command=HELP
        )
    return Voice(endpoint, model or names[0])


class RemoteTalk(Loop):
    """The conversation so far is sent with every question; reasoning is shown, and not sent again."""

    def __init__(self, voice: Voice, system: str | None, temperature: float, top_p: float, max_new_tokens: int) -> None:
        self.voice = voice
        self.opening = [{"role": "system", "content": system}] if system else []
        self.options = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        self.past: list[dict[str, str]] = []

    def start_over(self) -> None:
        self.past.clear()

    def once(self, message: str) -> None:
        asked = [*self.past, {"role": "user", "content": message}]
        answer = ""
        body = {"model": self.voice.model, "messages": [*self.opening, *asked], **self.options}
        for piece, is_thinking in self.voice.endpoint.stream(body):
            click.echo(click.style(piece, dim=True) if is_thinking else piece, nl=False)
            answer += "" if is_thinking else piece
        click.echo()
        self.past = [*asked, {"role": "assistant", "content": answer}]
