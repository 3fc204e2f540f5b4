"""One finished run on a base of its own, which tests may damage: everything is put back behind each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.mended import lent, trained_home

from tunewright.cli.main import main

QUICK_PROOFS = ("template", "stop", "merge", "effect", "identity")  # all but resume, which starts processes

Verify = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def proved_home(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["train.epochs=40", "save.every=100", "evaluate.rows=4", "evaluate.max_new_tokens=64"]
    return trained_home(tmp_path_factory.mktemp("proved"), tiny_base, words)


@pytest.fixture
def town(proved_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in the home of ``run``, ``base`` and ``town.jsonl``, with no hash remembered from another test."""
    yield from lent(proved_home, monkeypatch)


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
