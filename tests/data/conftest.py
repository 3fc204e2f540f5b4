"""Bases made in the test: one small tokenizer, many templates."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunewright.data.template import ChatTemplate

sys.path.insert(0, str(Path(__file__).parent))  # templates.py is data of these tests, not a package


@pytest.fixture(scope="session")
def make_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with the tiny tokenizer (with more special tokens) and the template given."""
    from templates import SPECIAL
    from tokenizers import AddedToken, Tokenizer

    def make(template: str, eos: str = "<|im_end|>") -> Path:
        folder = tmp_path_factory.mktemp("base")
        tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
        tokenizer.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|endoftext|>",
            "eos_token": eos,
            "pad_token": "<|endoftext|>",
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def bases(make_base: Callable[..., Path]) -> dict[str, Path]:
    from templates import ALL, EOS

    return {name: make_base(text, EOS.get(name, "<|im_end|>")) for name, text in ALL.items()}


@pytest.fixture(scope="session")
def chatml(bases: dict[str, Path]) -> ChatTemplate:
    return ChatTemplate.from_folder(bases["chatml"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees what another one cached."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
