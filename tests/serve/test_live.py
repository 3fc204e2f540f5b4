"""A server under load, and with clients that leave: nothing is lost, nothing is kept; what is asked is what was
trained."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from tests.serve.conftest import House, Server, housed, serving
from tests.serve.test_errors import get, post

from tunewright.data.load import find, load
from tunewright.data.template import ChatTemplate
from tunewright.infer.serving import open_fleet
from tunewright.recipe.schema import Data
from tunewright.rundir import RunDir
from tunewright.serve import keys, outputs
from tunewright.serve.keys import Keys
from tunewright.serve.limits import Limits

Open = Callable[..., House]
ASK: dict[str, Any] = {"model": "town-1", "temperature": 0, "messages": [{"role": "user", "content": "What is it?"}]}


def base_of(house: House) -> str:
    return house.watched.cards()[-1].name


def long(house: House) -> dict[str, Any]:
    """A request that takes as long as the context allows: the base never learned to stop."""
    return ASK | {"model": base_of(house)}


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_endpoints_ids_are_the_training_ids(house: Open, tiny_run: Path) -> None:
    """The proof of ``verify``, live: of every training row, what reaches the engine is what the row begins with."""
    made = house()
    codec = ChatTemplate.from_folder(tiny_run / "adapter")
    data = Data(train=[str(tiny_run.parents[1] / "town.jsonl")])
    chats = load(data, *find(data)).chats
    with openai.OpenAI(base_url=made.url, api_key="none", max_retries=0) as client:
        for chat in chats:
            asked: Any = [{"role": m.role, "content": m.content} for m in chat.messages[:-1]]
            client.chat.completions.create(model=tiny_run.name, messages=asked, max_tokens=1)
    rows = [some[0] for some in codec.render_many(chats)]
    assert len(rows) == len(made.watched.asked) == 24
    for row, ask in zip(rows, made.watched.asked, strict=True):
        assert list(ask.prompt) == row.ids[: int(row.learn.argmax())].tolist()
        assert int(row.ids[row.learn][-1]) in ask.stops and ask.adapter == tiny_run.name


def test_overload_is_told_to_wait_and_the_others_are_served(house: Open) -> None:
    made = house(Limits(running=1, waiting=1))
    asked = long(made)
    post(f"{made.url}/chat/completions", asked | {"max_tokens": 1})  # loaded

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _n: post(f"{made.url}/chat/completions", asked), range(8)))
    statuses = sorted(status for status, _content, _headers in done)
    assert statuses[0] == 200 and statuses[-1] == 429 and set(statuses) == {200, 429}
    for status, content, headers in done:
        if status == 429:
            assert 1 <= int(headers["retry-after"]) <= 60 and content["error"]["code"] == "rate_limit_exceeded"
    assert (made.service.gate.running, made.service.gate.waiting) == (0, 0)
    with openai.OpenAI(base_url=made.url, api_key="none", max_retries=0) as client:
        assert client.chat.completions.create(**ASK, max_tokens=2).choices


def test_a_request_that_could_never_fit_in_is_served_alone(house: Open) -> None:
    made = house(Limits(running=2, waiting=0))
    status, content, _headers = post(f"{made.url}/chat/completions", ASK | {"n": 5, "max_tokens": 2})
    assert status == 200 and len(content["choices"]) == 5
    assert (made.service.gate.running, made.service.gate.waiting) == (0, 0)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_frees_its_place(house: Open, streamed: bool) -> None:
    made = house(Limits(running=2, waiting=0))
    post(f"{made.url}/chat/completions", long(made) | {"max_tokens": 1})  # loaded
    begun = len(made.watched.read)
    connection = http.client.HTTPConnection(made.root.removeprefix("http://"), timeout=30)
    body = json.dumps(long(made) | {"stream": streamed, "n": 2})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    until(lambda: sum(made.watched.read[begun:]) > 2)
    assert made.service.gate.running == 2
    if streamed:
        connection.getresponse().read(10)
    connection.sock.close() if connection.sock else None
    connection.close()
    until(lambda: made.service.gate.running == 0)
    read = list(made.watched.read)
    assert sum(read[begun:]) < 800  # of nearly 1,000 that two whole answers have
    time.sleep(0.1)
    assert made.watched.read == read  # and nobody goes on
    until(lambda: b'status="499"' in get(f"{made.root}/metrics")[1])


def test_a_client_that_leaves_the_line_is_forgotten(house: Open) -> None:
    made = house(Limits(running=1, waiting=4))
    post(f"{made.url}/chat/completions", long(made) | {"max_tokens": 1})
    first = threading.Thread(target=post, args=(f"{made.url}/chat/completions", long(made)))
    first.start()
    until(lambda: made.service.gate.running == 1)
    connection = http.client.HTTPConnection(made.root.removeprefix("http://"), timeout=30)
    connection.request("POST", "/v1/chat/completions", json.dumps(long(made)), {"Content-Type": "application/json"})
    until(lambda: made.service.gate.waiting == 1)
    connection.close()
    until(lambda: made.service.gate.waiting == 0)
    first.join()
    assert len(made.watched.asked) == 2  # the one that left was never asked


def test_an_engine_that_fails_is_an_error_and_no_end(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    made = house()
    served = asyncio.run(made.watched.fleet.get("town-1"))
    monkeypatch.setattr(served.engine.adapters, "folders", {"town-1": Path("/nowhere")})
    status, content, headers = post(f"{made.url}/chat/completions", ASK)
    assert status == 500 and "adapter cannot be read" in content["error"]["message"]
    assert headers["x-should-retry"] == "false"
    status, content, _headers = post(f"{made.url}/chat/completions", ASK | {"stream": True})
    assert status == 500 and content["error"]["type"] == "server_error"
    assert post(f"{made.url}/chat/completions", long(made) | {"max_tokens": 2})[0] == 200


def test_an_engine_that_breaks_in_the_middle_says_so_in_the_stream(house: Open) -> None:
    made = house()
    made.watched.fails_at = 4
    asked = ASK | {"messages": [{"role": "user", "content": "What is the river number 0 called?"}]}  # a trained row
    with openai.OpenAI(base_url=made.url, api_key="none", max_retries=0) as client:
        seen = []
        with pytest.raises(openai.APIError, match="the engine broke"):
            for chunk in client.chat.completions.create(**asked, stream=True):
                seen.append(chunk)
    assert len(seen) > 2
    until(lambda: made.service.gate.running == 0)


# -- outputs that are searched for -----------------------------------------------------------------------------------


@pytest.fixture
def writer(pair_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A server of a model whose outputs end at their limit alone."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(pair_run.parents[1] / "cache"))
    fleet = open_fleet([RunDir(pair_run)])
    engine = asyncio.run(fleet.get(pair_run.name)).engine
    monkeypatch.setitem(engine.settings, "eos_token_id", [10_000])
    with housed(fleet) as made:
        yield made


WRITE: dict[str, Any] = {"model": "pairs-1", "prompt": "salt 3"}


def test_an_output_is_bounded_whatever_is_asked_for(writer: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MOST", 300)
    for asked, written in ((10**9, 300), (270, 270), (None, 256)):
        _status, content, _headers = post(f"{writer.url}/completions", WRITE | {"max_tokens": asked})
        assert content["usage"]["completion_tokens"] == written
        assert content["choices"][0]["finish_reason"] == "length"


def test_an_output_whose_client_leaves_frees_the_model(writer: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MOST", 10**6)  # which would take hours
    connection = http.client.HTTPConnection(writer.root.removeprefix("http://"), timeout=30)
    body = json.dumps(WRITE | {"max_tokens": 10**6})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    until(lambda: writer.service.gate.running == 1)
    time.sleep(0.3)  # it is being written
    connection.close()
    assert post(f"{writer.url}/completions", WRITE | {"max_tokens": 2})[1]["usage"]["completion_tokens"] == 2


# -- keys ------------------------------------------------------------------------------------------------------------


def test_keys_keep_others_out(house: Open, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key, second = keys.create(file, "one"), keys.create(file, "two")
    assert key.startswith("sk-tw-") and key not in file.read_text() and file.stat().st_mode & 0o777 == 0o600
    made = house(keys=Keys(file, ("in-the-environment",)))
    for good in (key, second, "in-the-environment"):
        assert get(f"{made.url}/models", Authorization=f"Bearer {good}")[0] == 200
    with openai.OpenAI(base_url=made.url, api_key=f"{key}x", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key" and key not in str(caught.value)
    status, content, headers = get(f"{made.url}/models")
    assert status == 401 and headers["www-authenticate"] == "Bearer"
    assert b"You didn't provide an API key" in content
    for wrong in ("Basic abc", "Bearer", "Bearer \xe9"):
        assert get(f"{made.url}/models", Authorization=wrong)[0] == 401
    assert get(f"{made.root}/health")[0] == 200 and get(f"{made.root}/metrics")[0] == 401
    assert get(f"{made.url}/models", Authorization=f"Bearer {key}", Host="my.example")[0] == 200

    told = json.loads(file.read_text())
    file.write_text(json.dumps({"keys": [one for one in told["keys"] if one["name"] != "one"]}))
    assert get(f"{made.url}/models", Authorization=f"Bearer {key}")[0] == 401  # taken away while it runs
    assert get(f"{made.url}/models", Authorization=f"Bearer {second}")[0] == 200


def test_a_body_that_is_too_large_is_refused(house: Open) -> None:
    made = house(Limits(body=1000))
    assert post(f"{made.url}/chat/completions", ASK | {"max_tokens": 1})[0] == 200
    status, content, _headers = post(f"{made.url}/chat/completions", ASK | {"user": "x" * 1000})
    assert status == 413 and content["error"]["code"] == "request_too_large"
    connection = http.client.HTTPConnection(made.root.removeprefix("http://"), timeout=30)
    pieces = (b" " * 300 for _number in range(9))  # of which nobody said the length
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", pieces, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    large = b"x" * 5_000_000  # of which most is still under way when the answer is known
    connection.request("POST", "/v1/chat/completions", large, headers)
    assert connection.getresponse().status == 413
    connection.close()


def test_answers_are_no_longer_than_the_server_allows(house: Open) -> None:
    made = house(Limits(new_tokens=3))
    _status, content, _headers = post(f"{made.url}/chat/completions", long(made) | {"max_tokens": 50})
    assert content["usage"]["completion_tokens"] == 3 and content["choices"][0]["finish_reason"] == "length"


# -- the process -----------------------------------------------------------------------------------------------------


def test_ending_finishes_what_runs(in_home: Path, tmp_path: Path) -> None:
    """The last run is served where none is named; told to end, the server answers what it has begun, and ends."""
    home = in_home
    with serving(cwd=home, cache=home / "cache") as server:
        assert server.models[0]["id"] == "town-1"
        base = server.models[-1]["id"]
        with server.client() as client:
            stream = client.chat.completions.create(**ASK | {"model": base}, stream=True)
            next(stream)
            server.process.send_signal(signal.SIGTERM)
            ends = [chunk.choices[0].finish_reason for chunk in stream]
        assert ends[-1] in ("stop", "length")
        assert server.process.wait(30) == 0


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_requests(server: Server) -> None:
    process = psutil.Process(server.process.pid)

    def ask(number: int) -> int:
        more: dict[str, Any] = {"max_tokens": 3}
        if number % 3 == 0:
            more |= {"stream": True}
        if number % 5 == 0:
            more |= {"response_format": {"type": "json_object"}, "temperature": 1}
        if number % 7 == 0:
            return post(f"{server.url}/classify", {"model": "texts-1", "input": f"the river {number}"})[0]
        if number % 11 == 0:
            return post(f"{server.url}/embeddings", {"model": "reader", "input": f"the river {number}"})[0]
        body = json.dumps(ASK | more).encode()
        connection = http.client.HTTPConnection(re.sub("^http://", "", server.root), timeout=60)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply.status

    def asked(count: int) -> int:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(count))) == {200}
        return int(process.memory_info().rss)

    asked(400)  # kernels and caches
    before = asked(200)
    after = asked(2000)
    assert after - before < 8e6, (before, after)
