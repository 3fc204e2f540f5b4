"""Programs that nobody here wrote, as their users call them."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict
from tests.serve.conftest import Server
from tests.serve.tooled import CALL, TOOL

QUESTION = "What is the river number 0 called?"

theirs = pytest.mark.filterwarnings("ignore")  # warnings of a client's own, when it is imported or let go


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What these clients leave to the garbage collector (an event loop, connections) is collected here: in a later test
    it would be that test's warning, and so its failure."""
    yield
    asyncio.set_event_loop(None)
    gc.collect()


@pytest.fixture
def answer(server: Server) -> str:
    """What the model says to the question, by OpenAI's client."""
    with server.client() as client:
        done = client.chat.completions.create(
            model="town-1", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=8
        )
    return done.choices[0].message.content or ""


def test_curl(server: Server, answer: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    body = {"model": "town-1", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 8}
    command = ["curl", "-sS", "--fail", f"{server.url}/chat/completions", "-H", "Content-Type: application/json", "-d"]
    done = subprocess.run([*command, json.dumps(body)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == answer
    stream = subprocess.run(
        [*command, json.dumps(body | {"stream": True}), "-N"], capture_output=True, text=True, timeout=60, check=True
    )
    events = stream.stdout.strip().split("\n\n")
    assert events[-1] == "data: [DONE]" and all(event.startswith("data: ") for event in events)


def test_langchain(server: Server, answer: str) -> None:
    langchain = pytest.importorskip("langchain_openai")
    model = langchain.ChatOpenAI(
        model="town-1", base_url=server.url, api_key="none", temperature=0, max_tokens=8, max_retries=0
    )
    assert model.invoke(QUESTION).content == answer
    assert "".join(chunk.content for chunk in model.stream(QUESTION)) == answer
    tooled = langchain.ChatOpenAI(model="tools-1", base_url=server.url, api_key="none", temperature=0, max_retries=0)
    calls = tooled.bind_tools([TOOL]).invoke("What is number 3?").tool_calls
    assert [(call["name"], call["args"]) for call in calls] == [(CALL["name"], CALL["arguments"])]
    # Without the last argument it sends the token ids of another tokenizer, which are refused.
    reader = langchain.OpenAIEmbeddings(
        model="reader", base_url=server.url, api_key="none", check_embedding_ctx_length=False
    )
    assert len(reader.embed_query("the river")) == len(reader.embed_documents(["the bridge", "a"])[1]) == 32


@theirs
def test_litellm(server: Server, answer: str) -> None:
    litellm = pytest.importorskip("litellm")
    asked: dict[str, Any] = {
        "model": "openai/town-1", "api_base": server.url, "api_key": "none", "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "user", "content": QUESTION}], "num_retries": 0,
    }  # fmt: skip
    done = litellm.completion(**asked)
    assert done.choices[0].message.content == answer and done.usage.completion_tokens == 8
    chunks = list(litellm.completion(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
    with pytest.raises(litellm.NotFoundError, match="does not exist"):
        litellm.completion(**asked | {"model": "openai/gpt-9"})
    litellm.in_memory_llm_clients_cache.flush_cache()  # its connections


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")  # else a tiny model adds properties until its tokens are spent
    kind: Literal["river", "bridge"]


@theirs
def test_instructor(server: Server) -> None:
    instructor = pytest.importorskip("instructor")
    with server.client() as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
        found = client.chat.completions.create(
            model="town-1", response_model=Place, messages=[{"role": "user", "content": QUESTION}], temperature=0,
            max_tokens=100, max_retries=0,
        )  # fmt: skip
    assert isinstance(found, Place)
