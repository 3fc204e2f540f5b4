"""The hub's real client against a small hub of our own: fetched, gone on with, mended, refused with advice."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("cache")
COMMIT = "1234567890abcdef1234567890abcdef12345678"


def etag(name: str, content: bytes) -> str:
    """As the hub does it: sha256 for large files, git's blob hash for the rest."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if "gated" in path:
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        if "/api/models/owner/tiny" in path:
            files = sorted(self.folder.iterdir())
            if "/tree/" in path:
                rows = [self.row(p) for p in files]
                return self.answer(200, json.dumps(rows).encode(), {}, body)
            siblings = [{"rfilename": p.name} for p in files]
            facts = {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "siblings": siblings}
            return self.answer(200, json.dumps(facts).encode(), {}, body)
        if "/owner/tiny/resolve/" in path:
            return self.file(self.folder / path.rpartition("/")[2], body)
        return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def row(self, path: Path) -> dict[str, object]:
        content = path.read_bytes()
        large = {"lfs": {"oid": etag(path.name, content), "size": len(content), "pointerSize": 100}}
        git = hashlib.sha1(content).hexdigest() if path.suffix == ".safetensors" else etag(path.name, content)
        row: dict[str, object] = {"type": "file", "path": path.name, "size": len(content), "oid": git}
        return row | large if path.suffix == ".safetensors" else row

    def file(self, path: Path, body: bool) -> None:
        content = path.read_bytes()
        headers = {"ETag": f'"{etag(path.name, content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        first = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        if first and body:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            return self.answer(206, content[int(first) :], headers, body)
        return self.answer(200, content, headers, body)

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def hub(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Mine(Hub):
        folder = tiny_base
        asked: list[str] = []  # noqa: RUF012 - a fresh class for each test

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield Mine
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(name: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, because the hub's client reads its endpoint when it is imported."""
    code = f"from tunewright.model.source import fetch; base = fetch({name!r}); print(base.sha256, base.folder)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_fetched_then_at_hand_then_mended(hub: type[Hub], tiny_base: Path, tmp_path: Path) -> None:
    first = fetch("owner/tiny")
    assert first.returncode == 0, first.stderr
    digest, folder = first.stdout.split()
    weights = Path(folder) / "model.safetensors"
    assert weights.read_bytes() == (tiny_base / "model.safetensors").read_bytes()

    blob = weights.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    again = fetch("owner/tiny")
    assert "model.safetensors is damaged" in again.stderr
    assert again.stdout.split()[0] == digest


def test_cut_off_download_goes_on_or_starts_again_whole(hub: type[Hub], tiny_base: Path, tmp_path: Path) -> None:
    content = (tiny_base / "model.safetensors").read_bytes()
    blobs = tmp_path / "hf" / "hub" / "models--owner--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(content).hexdigest()}.incomplete").write_bytes(content[:5000])
    done = fetch("owner/tiny")
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.split()[1]) / "model.safetensors").read_bytes() == content


def test_id_that_does_not_exist(hub: type[Hub]) -> None:
    done = fetch("Qwen/Qwen3-0.6")
    assert "no such model" in done.stderr and "did you mean qwen3-0.6b?" in done.stderr


def test_gated_base_says_how_to_get_it(hub: type[Hub]) -> None:
    done = fetch("owner/gated")
    assert "accept them at" in done.stderr and "hf auth login" in done.stderr


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    done = fetch("owner/tiny")
    assert "could not be fetched" in done.stderr and "BaseModelError" in done.stderr
