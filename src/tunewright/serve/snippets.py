"""The lines that call a served model from a shell and from Python, with its real name in them: what ``train`` and
``serve`` print, and what the page shows. Needs no package of the extra ``serve``."""

from __future__ import annotations

import json
import shlex

from tunewright.infer.live import Card
from tunewright.text import _

URL = "http://127.0.0.1:8000/v1"  # where `tunewright serve` listens unless told otherwise
KEY = "TUNEWRIGHT_KEY"  # the variable that holds a key in what is shown
LONGEST = 80  # characters of a question that is shown in a line


def question(texts: list[str]) -> str | None:
    """A question of the person's own data that fits into a line, if there is one."""
    return next((text for text in texts if 0 < len(text) <= LONGEST and "\n" not in text), None)


def gives_of(card: Card) -> str:
    """As the functions below take it."""
    return "likelihood" if card.gives == "answers" and not card.chats else card.gives


def curl(name: str, gives: str, asked: str | None = None, url: str = URL, key: bool = False) -> str:
    """gives: ``answers``, ``outputs``, ``labels``, ``vectors``; ``likelihood`` of a model that goes on with a text.
    asked: None takes any question.  key: the server asks for one."""
    path, body = _call(name, gives, asked)
    lines = [f"curl {url}/{path}", *([f'-H "Authorization: Bearer ${KEY}"'] if key else [])]
    lines += ['-H "Content-Type: application/json"', f"-d {shlex.quote(_json(body))}"]
    return " \\\n  ".join(lines)


def python(name: str, gives: str, asked: str | None = None, url: str = URL, key: bool = False) -> str:
    """The same through the official client; labels, which it does not know, through plain HTTP."""
    path, body = _call(name, gives, asked)
    secret = f'os.environ["{KEY}"]' if key else '"none"'
    head = "import os\n\n" if key else ""
    if gives == "labels":
        headers = f', headers={{"Authorization": "Bearer " + {secret}}}' if key else ""
        return f'{head}import httpx\n\nprint(httpx.post("{url}/{path}", json={_json(body)}{headers}).json()["data"])'
    given = ", ".join(f"{key_word}={_json(value)}" for key_word, value in body.items())
    client = f'{head}from openai import OpenAI\n\nclient = OpenAI(base_url="{url}", api_key={secret})\n'
    if gives == "vectors":
        return f"{client}print(client.embeddings.create({given}).data[0].embedding)"
    if gives == "likelihood":
        return f"{client}print(client.completions.create({given}).choices[0].text)"
    return f"{client}answer = client.chat.completions.create({given})\nprint(answer.choices[0].message.content)"


def _call(name: str, gives: str, asked: str | None) -> tuple[str, dict[str, object]]:
    text = asked or (_("Who are you?") if gives == "answers" else _("What a fine day."))
    if gives == "labels":
        return "classify", {"model": name, "input": text}
    if gives == "vectors":
        return "embeddings", {"model": name, "input": text}
    if gives == "likelihood":
        return "completions", {"model": name, "prompt": text, "max_tokens": 64}
    return "chat/completions", {"model": name, "messages": [{"role": "user", "content": text}]}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
