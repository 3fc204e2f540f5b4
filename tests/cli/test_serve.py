"""``tunewright serve`` and ``tunewright chat --url``: what is printed, and what is refused before a model is loaded."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import Server, serving
from tests.tiny import environment

from tunewright.cli.main import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    begin = time.monotonic()
    assert main(list(words)) == 2
    assert time.monotonic() - begin < 5  # nothing was loaded
    told = capsys.readouterr()
    assert not told.out and "Traceback" not in told.err
    return told.err


def test_a_port_that_is_taken(in_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, "serve", "--port", str(port))
    assert f"port {port} is taken" in said and f"tunewright serve --port {port + 1}" in said


def test_an_address_that_others_reach_needs_a_key(
    in_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "my.example"):
        assert "no key is asked for" in refused(capsys, "serve", "--host", host)
    monkeypatch.setenv("TUNEWRIGHT_SERVE_KEY", "a key")
    assert "cannot listen there" in refused(capsys, "serve", "--host", "192.0.2.1")


def test_a_key_is_printed_once_and_kept_as_a_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    assert main(["serve", "--new-key", "laptop", "--key-file", str(file)]) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("sk-tw-") and len(key) > 40 and key not in file.read_text()
    assert "laptop already" in refused(capsys, "serve", "--new-key", "laptop", "--key-file", str(file))
    assert "--key-file" in refused(capsys, "serve", "--new-key", "laptop")


@pytest.mark.parametrize("content", [None, "", "[]", '{"keys": []}', '{"keys": [{"name": "a"}]}'])
def test_a_file_without_keys_is_refused(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    assert "key" in refused(capsys, "serve", "--key-file", str(file))


def test_llama_cpp_s_threads_wait_awake_unless_told_otherwise(
    in_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")  # put back afterwards
    for before, after in ((None, "10000"), ("7", "7")):
        monkeypatch.delenv("GOMP_SPINCOUNT") if before is None else monkeypatch.setenv("GOMP_SPINCOUNT", before)
        refused(capsys, "serve", "--engine", "llama.cpp", "--new-key", "x")
        assert os.environ["GOMP_SPINCOUNT"] == after
    monkeypatch.delenv("GOMP_SPINCOUNT")
    refused(capsys, "serve", "--new-key", "x")
    assert "GOMP_SPINCOUNT" not in os.environ


def test_a_run_that_is_not_there(in_home: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run 'nowhere'" in refused(capsys, "serve", "nowhere", "--port", "0")


WITHOUT = """
import sys
from importlib import util
gone, real = sys.argv[1].split(","), util.find_spec
util.find_spec = lambda name, *more: None if name in gone else real(name, *more)
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
from tunewright.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("gone", "words", "said"),
    [
        ("starlette,uvicorn,prometheus_client,llguidance", (), "tunewright[serve]"),
        ("starlette", ("--new-key", "a", "--key-file", "keys.json"), "tunewright[serve]"),
        ("llama_cpp", ("--engine", "llama.cpp"), "tunewright[llama-cpp]"),
        ("vllm", ("--engine", "vllm"), "pip install vllm"),
    ],
)
def test_a_package_that_is_missing_is_named_before_anything_is_done(
    gone: str, words: tuple[str, ...], said: str, in_home: Path, tiny_run: Path
) -> None:
    """As in an installation of the core alone, which `make demo` makes."""
    command = [sys.executable, "-c", WITHOUT, gone, "serve", *words, "--port", "0"]
    cache = tiny_run.parents[1] / "cache"
    command += [] if "--new-key" in words else [str(tiny_run)]
    done = subprocess.run(command, env=environment(cache), capture_output=True, text=True, timeout=120, cwd=in_home)
    assert done.returncode == 2 and "which is not installed" in done.stderr and said in done.stderr, done.stderr
    assert not (tiny_run / "export").exists() and not done.stdout


# -- chat --url ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a key, which the environment gives it."""
    home = tmp_path_factory.mktemp("keyed")
    cache = tiny_run.parents[1] / "cache"
    with serving(tiny_run, cwd=home, cache=cache, TUNEWRIGHT_SERVE_KEY="open sesame") as running:
        yield running


ASK = ["-m", "What is the river number 0 called?", "--max-new-tokens", "8"]


def test_chat_speaks_to_an_endpoint(
    server: Server, in_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "open sesame")
    there = ["chat", "--url", server.url, "--key-env", "MY_KEY"]
    assert main([*there, *ASK]) == 0
    far = capsys.readouterr().out
    assert main(["chat", *ASK]) == 0
    assert far == capsys.readouterr().out and len(far) > 5
    assert "no model 'nope'" in refused(capsys, *there, "--model", "nope", *ASK)
    base = server.models[-1]["id"]
    assert main([*there, "--model", base, *ASK]) == 0 and capsys.readouterr().out != far
    monkeypatch.setattr("sys.stdin", io.StringIO("Who are you?\n/new\nWho?\n\n"))
    assert main([*there, "--max-new-tokens", "4"]) == 0 and capsys.readouterr().out.count("\n") == 2
    assert "the endpoint refuses" in refused(capsys, *there, "-m", "river " * 600)


def test_chat_says_in_words_what_an_endpoint_says(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "asks for a key" in refused(capsys, "chat", "--url", server.url, *ASK)
    monkeypatch.setenv("MY_KEY", "another")
    assert "Incorrect API key" in refused(capsys, "chat", "--url", server.url, "--key-env", "MY_KEY", *ASK)
    assert "the environment has no NONE" in refused(capsys, "chat", "--url", server.url, "--key-env", "NONE", *ASK)
    assert "nothing answers there" in refused(capsys, "chat", "--url", "http://127.0.0.1:9/v1", *ASK)
    for url in ("ftp://a/v1", "nonsense", "http://"):
        assert "this is no address" in refused(capsys, "chat", "--url", url, *ASK)
    assert "--url takes neither" in refused(capsys, "chat", "some-run", "--url", server.url)


def test_the_verb_says_what_it_serves(server: Server) -> None:
    assert [model["gives"] for model in server.models] == ["answers", "answers"]
    assert json.dumps(server.models).count("town-1") == 1
