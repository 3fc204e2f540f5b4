"""The lines that call a served model from a shell and from Python, with its real name in them."""

from __future__ import annotations

import json
import shlex

URL = "http://127.0.0.1:8000/v1"  # where `tunewright serve` listens unless told otherwise
KEY = "TUNEWRIGHT_KEY"  # the variable that holds a key in what is shown
QUESTION = "Who are you?"
LONGEST = 80  # characters of a question that is shown in a line


def question(texts: list[str]) -> str:
    """A question of the person's own data that fits into a line, or any."""
    return next((text for text in texts if 0 < len(text) <= LONGEST and "\n" not in text), QUESTION)


def curl(name: str, gives: str, asked: str = QUESTION, url: str = URL, key: bool = False) -> str:
    """gives: ``answers``, ``outputs``, ``labels``, ``vectors``; ``likelihood`` of a model that goes on with a text."""
    path, body = _call(name, gives, asked)
    lines = [f"curl {url}/{path}", *([f'-H "Authorization: Bearer ${KEY}"'] if key else [])]
    lines += ['-H "Content-Type: application/json"', f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"]
    return " \\\n  ".join(lines)


def python(name: str, gives: str, asked: str = QUESTION, url: str = URL, key: bool = False) -> str:
    """The same through the official client; labels, which it does not know, through plain HTTP."""
    path, body = _call(name, gives, asked)
    secret = f'os.environ["{KEY}"]' if key else '"none"'
    given = json.dumps(body, ensure_ascii=False)
    head = "import os\n\n" if key else ""
    if gives == "labels":
        headers = f', headers={{"Authorization": "Bearer " + {secret}}}' if key else ""
        return f'{head}import httpx\n\nprint(httpx.post("{url}/{path}", json={given}{headers}).json()["data"])'
    client = f'{head}from openai import OpenAI\n\nclient = OpenAI(base_url="{url}", api_key={secret})\n'
    if gives == "vectors":
        return f"{client}print(client.embeddings.create(**{given}).data[0].embedding)"
    if gives == "likelihood":
        return f"{client}print(client.completions.create(**{given}).choices[0].text)"
    return f"{client}answer = client.chat.completions.create(**{given})\nprint(answer.choices[0].message.content)"


def _call(name: str, gives: str, asked: str) -> tuple[str, dict[str, object]]:
    if gives == "labels":
        return "classify", {"model": name, "input": asked}
    if gives == "vectors":
        return "embeddings", {"model": name, "input": asked}
    if gives == "likelihood":
        return "completions", {"model": name, "prompt": asked, "max_tokens": 64}
    return "chat/completions", {"model": name, "messages": [{"role": "user", "content": asked}]}
