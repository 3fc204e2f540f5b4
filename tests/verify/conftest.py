"""One finished run on a base of its own, which tests may damage: everything is put back behind each of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import quick, write_chats

from tunewright import api
from tunewright.cli.main import main

QUICK_PROOFS = ("template", "stop", "merge", "effect", "identity")  # all but resume, which starts processes
PARTS = ("base", "run", "town.jsonl")

Verify = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def proved_home(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("proved")
    base = Path(shutil.copytree(tiny_base, home / "base"))
    write_chats(home / "town.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("TUNEWRIGHT_CACHE", str(home / "cache"))
        words = ["train.epochs=40", "save.every=100", "evaluate.rows=4", "evaluate.max_new_tokens=64"]
        api.train("town.jsonl", quick(base, *words), out="run")
    for part in PARTS:
        _copy(home / part, home / "kept" / part)
    return home


@pytest.fixture
def town(proved_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in the home of ``run``, ``base`` and ``town.jsonl``, with no hash remembered from another test."""
    monkeypatch.chdir(proved_home)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(proved_home / "cache"))
    (proved_home / "cache" / "hashes.json").unlink(missing_ok=True)
    yield proved_home
    for part in PARTS:
        _copy(proved_home / "kept" / part, proved_home / part)


@pytest.fixture
def verified(capsys: pytest.CaptureFixture[str]) -> Verify:
    """``tunewright verify RUN --json`` with some proofs: outcome and parts of each, by name."""

    def ask(run: str = "run", only: Sequence[str] = QUICK_PROOFS) -> dict[str, Any]:
        words = [word for name in only for word in ("--only", name)]
        capsys.readouterr()
        code = main(["verify", run, "--json", *words])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert code == (2 if found["failed"] else 0)
        proofs: dict[str, Any] = {proof["name"]: proof for proof in found["proofs"]}
        assert found["failed"] == [name for name, proof in proofs.items() if proof["outcome"] == "fail"]
        return proofs

    return ask


def failed(proofs: dict[str, Any]) -> list[str]:
    return [name for name, proof in proofs.items() if proof["outcome"] == "fail"]


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
