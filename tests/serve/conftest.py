"""Real servers on loopback: one process for all that only asks, and one in this process whose engine can be watched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from tests.encoders import write_encoder
from tests.serve.tooled import train_tools
from tests.tiny import environment

from tunewright.errors import TunewrightError
from tunewright.infer.live import Ask, Card, Served, Step
from tunewright.infer.serving import open_fleet
from tunewright.rundir import RunDir
from tunewright.serve import server as listening
from tunewright.serve.app import application
from tunewright.serve.keys import Keys
from tunewright.serve.limits import Limits
from tunewright.serve.service import Service


@dataclass(frozen=True)
class Server:
    """url: ends in /v1.  models: as the verb says them."""

    url: str
    models: list[dict[str, Any]]
    process: subprocess.Popen[str]

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def client(self, **more: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, **more)


@contextmanager
def serving(*words: str | Path, cwd: Path, cache: Path, **more: str) -> Iterator[Server]:
    """The verb in a process of its own, told to end as a service manager would."""
    command = [sys.executable, "-m", "tunewright", "serve", *map(str, words), "--port", "0", "--json"]
    with open(cwd / "serve.log", "w+") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment(cache, **more), stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                process.wait(20)
                raise AssertionError((cwd / "serve.log").read_text())
            told = json.loads(line)
            yield Server(told["url"], told["models"], process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture(scope="session")
def encoder_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "reader"
    folder.mkdir()
    return write_encoder(folder)


@pytest.fixture(scope="session")
def tool_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run that calls a tool where it has one, and thinks before it answers where it has none."""
    return train_tools(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="session")
def server(
    tiny_run: Path, label_run: Path, pair_run: Path, tool_run: Path, encoder_base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:  # fmt: skip
    """All kinds of models at once: answers, labels, outputs, vectors."""
    home = tmp_path_factory.mktemp("serving")
    runs = (tiny_run, label_run, pair_run, tool_run)
    with serving(*runs, "--base", encoder_base, cwd=home, cache=tiny_run.parents[1] / "cache") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as made:
        yield made


# -- a server whose engine can be watched ----------------------------------------------------------------------------


@dataclass
class Watched:
    """A fleet whose engines tell what they were asked and how far each answer was read. fails_at: the step at which an
    engine breaks, where a test plants that."""

    fleet: Any
    asked: list[Ask] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    fails_at: int | None = None

    def cards(self) -> list[Card]:
        return list(self.fleet.cards())

    async def get(self, name: str) -> Served:
        served: Served = await self.fleet.get(name)
        return served if served.gives != "answers" else replace(served, engine=_Spy(served.engine, self))

    async def close(self) -> None:
        await self.fleet.close()


@dataclass
class _Spy:
    engine: Any
    watched: Watched

    @property
    def context(self) -> int:
        return int(self.engine.context)

    async def answer(self, ask: Ask) -> AsyncIterator[Step]:
        number = len(self.watched.asked)
        self.watched.asked.append(ask)
        self.watched.read.append(0)
        async with aclosing(self.engine.answer(ask)) as steps:
            async for step in steps:
                self.watched.read[number] += 1
                if self.watched.read[number] == self.watched.fails_at:
                    raise TunewrightError("the engine broke")
                yield step


@dataclass
class House:
    """A server in a thread. url: ends in /v1."""

    url: str
    service: Service
    watched: Watched

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")


@contextmanager
def housed(fleet: Any, limits: Limits | None = None, keys: Keys | None = None) -> Iterator[House]:
    watched = Watched(fleet)
    service = Service(watched, limits, keys)
    bound = listening.listen("127.0.0.1", 0)
    app = application(service, listening.hosts_of("127.0.0.1", bool(service.keys)))
    config = uvicorn.Config(app, log_level="error", lifespan="off", http="h11", loop="asyncio")  # type: ignore[arg-type]
    running = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[bound])))
    thread.start()
    try:
        yield House(f"{listening.url_of(bound)}/v1", service, watched)
    finally:
        running.should_exit = True
        thread.join(60)
        asyncio.run(fleet.close())


@pytest.fixture
def house(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., House]]:
    """Makes servers of the tiny run with other limits or keys; they end with the test."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tiny_run.parents[1] / "cache"))
    opened: list[Any] = []

    def open_house(limits: Limits | None = None, keys: Keys | None = None) -> House:
        opened.append(housed(open_fleet([RunDir(tiny_run)]), limits, keys))
        made: House = opened[-1].__enter__()
        return made

    yield open_house
    for one in reversed(opened):
        one.__exit__(None, None, None)


def pytest_configure() -> None:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network when it is imported
