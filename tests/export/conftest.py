"""Runs to export, each small, each in a home of its own which tests may damage: everything is put back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.encoders import write_encoder
from tests.mended import lent, trained_home
from tests.predicting import _trained, labelled, write_rows, write_t5

from tunewright import api

needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="needs llama-cpp-python, which the extra llama-cpp brings"
)


@pytest.fixture(scope="session")
def exported_home(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["train.epochs=12", "evaluate.rows=4", "evaluate.max_new_tokens=16", "data.system=Be brief."]
    return trained_home(tmp_path_factory.mktemp("exported"), tiny_base, words)


@pytest.fixture
def town(exported_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in the home of ``run``, ``base`` and ``town.jsonl``, with no hash remembered from another test."""
    yield from lent(exported_home, monkeypatch)


@pytest.fixture(scope="session")
def label_adapter_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's head and an adapter on a tiny encoder."""
    home = tmp_path_factory.mktemp("label-adapter")
    (home / "base").mkdir()
    write_encoder(home / "base")
    write_rows(home / "texts.jsonl", labelled(64))
    return _trained(home, "texts.jsonl", [
        "task=classify", "classify.head=linear", f"base={home / 'base'}", "train.epochs=8",
        "train.learning_rate=0.005", "train.keep=last", "train.precision=fp32", "data.held_out=8",
    ])  # fmt: skip


@pytest.fixture(scope="session")
def word_adapter_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on a tiny decoder that answers with a label's word."""
    home = tmp_path_factory.mktemp("word-adapter")
    write_rows(home / "texts.jsonl", labelled(64))
    return _trained(home, "texts.jsonl", [
        "task=classify", "classify.head=label_token", f"base={tiny_base}", "train.epochs=12",
        "classify.words={wet: water, dry: bread}",
        "train.learning_rate=0.005", "train.keep=last", "train.precision=fp32", "data.held_out=8",
    ])  # fmt: skip


@pytest.fixture(scope="session")
def pair_adapter_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on a tiny T5."""
    home = tmp_path_factory.mktemp("pair-adapter")
    write_rows(home / "pairs.jsonl", [{"source": f"salt {i}", "target": f"bread {i}"} for i in range(20)])
    return _trained(home, "pairs.jsonl", [
        "task=seq2seq", f"base={write_t5(home / 'base')}", "train.epochs=6", "train.learning_rate=0.01",
        "train.precision=fp32", "data.held_out=4", "evaluate.rows=2", "evaluate.max_new_tokens=4", "data.max_length=32",
    ])  # fmt: skip


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], api.Run]:
    """Work in the home of a run, and open it."""

    def go(run: Path) -> api.Run:
        monkeypatch.chdir(run.parents[1])
        monkeypatch.setenv("TUNEWRIGHT_CACHE", str(run.parents[1] / "cache"))
        return api.Run.open(run)

    return go


def left_behind(folder: Path) -> list[str]:
    """Whatever an export wrote below ``folder``."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(name for name in names if "export" in name)
