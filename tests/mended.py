"""A home with one finished run on a base of its own, which tests may damage: all of it is put back behind each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import quick, write_chats

from tunewright import api

PARTS = ("base", "run", "town.jsonl")


def trained_home(home: Path, tiny_base: Path, words: list[str]) -> Path:
    """``home`` with ``base``, ``town.jsonl`` and ``run``, trained with ``words``, and a copy of each to put back."""
    base = Path(shutil.copytree(tiny_base, home / "base"))
    write_chats(home / "town.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("TUNEWRIGHT_CACHE", str(home / "cache"))
        api.train("town.jsonl", quick(base, *words), out="run")
    for part in PARTS:
        _copy(home / part, home / "kept" / part)
    return home


def lent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in ``home``, with no hash remembered from another test."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(home / "cache"))
    (home / "cache" / "hashes.json").unlink(missing_ok=True)
    yield home
    for part in PARTS:
        _copy(home / "kept" / part, home / part)


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
