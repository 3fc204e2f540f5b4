"""Tokenizers in SentencePiece's manner: the ids of a GGUF file are the run's, or the export is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from tests.conftest import TINY_TEXT
from tests.export.conftest import left_behind, needs_llama_cpp
from tests.predicting import _trained
from tests.shapes import write_model
from tests.tiny import write_chats
from tokenizers import Tokenizer

from tunewright import api
from tunewright.errors import MissingExtra, RunError
from tunewright.export import gguf_file, gguf_model, pieces, readers, splitting, vocabulary
from tunewright.export.gguf_file import ODD_TEXTS
from tunewright.export.llama import LlamaCpp
from tunewright.export.pieces import SPACE

SPECIALS = ("<unk>", "<s>", "</s>")
PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
SPACES = {
    "before every text": ({"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, None),
    "none": (REPLACE, None),
    "Metaspace": (None, {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": False}),
}
TEXTS = (*ODD_TEXTS, *TINY_TEXT, "<s>The river</s><s> runs\n slowly   to</s>", " a  space first", "ѣ𝄞\x00", "<0x41>")


def stored(spaces: str = "before every text") -> dict[str, Any]:
    """The content of a tokenizer.json as transformers makes it of a SentencePiece file: bytes, then pieces in the order
    of their scores, and of each piece all pairs that give it."""
    words = [SPACE + word for text in TINY_TEXT for word in text.replace("\n", " ").split(" ")]
    found: dict[str, int] = {}
    for word in words:
        for begin in range(len(word)):
            for end in range(begin + 2, min(len(word), begin + 6) + 1):
                found[word[begin:end]] = found.get(word[begin:end], 0) + 1
    frequent = sorted((text for text, count in found.items() if count > 2), key=lambda text: (-found[text], text))
    frequent += [SPACE * 2, SPACE * 4]
    alphabet = sorted({character for word in words for character in word})
    texts = [*SPECIALS, *sorted(pieces.BYTES), *frequent, *alphabet]
    vocabulary = {text: number for number, text in enumerate(texts)}
    merges = [
        [text[:cut], text[cut:]]
        for text in frequent
        for cut in range(1, len(text))
        if text[:cut] in vocabulary and text[cut:] in vocabulary
    ]
    normalizer, cutting = SPACES[spaces]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": normalizer, "pre_tokenizer": cutting,
        "added_tokens": [{"id": number, "content": text, **special} for number, text in enumerate(SPECIALS)],
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocabulary, "merges": merges,
        },
    }  # fmt: skip


def write_base(folder: Path, spaces: str) -> Path:
    """A tiny Llama with such a tokenizer and a template in Llama 2's manner."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(stored(spaces)), encoding="utf-8")
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2]}), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] + '</s>' }}"
        "{% else %}{{ '<s>[INST] ' + message['content'] + ' [/INST] ' }}{% endif %}{% endfor %}", encoding="utf-8"
    )  # fmt: skip
    write_model(folder, "llama")
    return folder


def write_file(folder: Path, spaces: str) -> tuple[Path, Tokenizer, int]:
    """A GGUF file of such a base; its tokenizer; its rows of the embedding."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(write_base(folder, spaces))
    held = vocabulary.read(folder, model.config.vocab_size, {"eos_token_id": [2]}, None, None)
    assert held.kinds[3] == gguf.TokenType.BYTE and held.kinds[2] == gguf.TokenType.CONTROL
    gguf_model.write(folder / "m.gguf", model, "f16", held, {}, lambda _count: None)
    return folder / "m.gguf", Tokenizer.from_file(str(folder / "tokenizer.json")), model.config.vocab_size


@needs_llama_cpp
@pytest.mark.parametrize("spaces", list(SPACES))
def test_llama_cpp_makes_the_ids_of_the_run(tmp_path: Path, spaces: str) -> None:
    path, own, size = write_file(tmp_path, spaces)
    llama = LlamaCpp(path, 8, size)
    for text in TEXTS:
        assert llama.ids(text) == own.encode(text, add_special_tokens=False).ids, text
    llama.close()


@needs_llama_cpp
def test_a_score_out_of_place_makes_other_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail: with all scores alike, as converters write that have no other, it does."""
    read = pieces.read
    monkeypatch.setattr(pieces, "read", lambda *given: pieces.Pieces({}, read(*given).spaced))
    path, own, size = write_file(tmp_path, "before every text")
    llama = LlamaCpp(path, 8, size)
    assert any(llama.ids(text) != own.encode(text, add_special_tokens=False).ids for text in TEXTS)
    llama.close()


def test_transformers_reads_them_too(tmp_path: Path) -> None:
    path, own, _size = write_file(tmp_path, "before every text")
    for text, found in zip(TINY_TEXT, readers.gguf_ids(tmp_path, path.name, TINY_TEXT), strict=True):
        assert found == own.encode(text, add_special_tokens=False).ids, text


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> api.Run:
    """A run on such a base, in whose home the test works."""
    write_chats(tmp_path / "town.jsonl")
    folder = _trained(tmp_path, "town.jsonl", [
        f"base={write_base(tmp_path / 'base', 'before every text')}", "train.epochs=12", "retain=off",
        "evaluate.rows=4", "evaluate.max_new_tokens=16", "train.learning_rate=0.01", "train.precision=fp32",
    ])  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return api.Run.open(folder)


@needs_llama_cpp
def test_a_run_on_such_a_base_is_exported_and_compared(run: api.Run) -> None:
    folder = run.export("gguf", type="f16").folder
    told = json.loads((folder / "export.json").read_text())
    assert told["ids"]["reader"].startswith("llama.cpp") and told["ids"]["texts"] > len(ODD_TEXTS)
    [file] = folder.glob("*.gguf")
    reader = gguf.GGUFReader(file)
    assert reader.get_field("tokenizer.ggml.model").contents() == "llama"
    assert reader.get_field("tokenizer.ggml.add_space_prefix").contents() is True


def test_what_nobody_here_can_compare_is_not_written(run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' reader of GGUF would make other ids of ``<s>[INST]``."""
    monkeypatch.setattr(gguf_file, "is_installed", lambda: False)
    with pytest.raises(MissingExtra, match="SentencePiece") as error:
        run.export("gguf")
    assert error.value.command == "pip install 'tunewright[llama-cpp]'"
    assert left_behind(Path.cwd()) == []


def refused(tokenizer: dict[str, Any]) -> str:
    with pytest.raises(RunError) as error:
        pieces.read(tokenizer, "tokenizer.json")
    assert error.value.where == "tokenizer.json" and error.value.command == "tunewright export --to merged"
    return error.value.what


def test_what_scores_cannot_say_is_refused() -> None:
    tokenizer = stored()
    assert pieces.is_one(tokenizer)

    def other(**model: Any) -> dict[str, Any]:
        changed = copy.deepcopy(tokenizer)
        changed["model"] |= model
        return changed

    pairs = tokenizer["model"]["merges"]
    assert "in an order" in refused(other(merges=pairs[:-1]))
    twice = next(n for n in range(1, len(pairs)) if "".join(pairs[n]) == "".join(pairs[n - 1]))
    assert "in an order" in refused(other(merges=[pairs[twice], *pairs[:twice], *pairs[twice + 1 :]]))
    assert "in an order" in refused(other(ignore_merges=True))
    without = {text: number for text, number in tokenizer["model"]["vocab"].items() if text != "<0x41>"}
    assert "1 of the 256 bytes" in refused(other(vocab=without))
    first = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
    assert "rewrites spaces" in refused(tokenizer | {"normalizer": None, "pre_tokenizer": first})
    assert "rewrites spaces" in refused(tokenizer | {"normalizer": {"type": "NFKC"}})
    in_words = first | {"prepend_scheme": "never", "split": True}
    assert "rewrites spaces" in refused(tokenizer | {"normalizer": None, "pre_tokenizer": in_words})
    assert "takes spaces" in refused(tokenizer | {"added_tokens": [{**tokenizer["added_tokens"][2], "rstrip": True}]})
    with pytest.raises(RunError, match="BPE over characters"):
        splitting.name_of(other(byte_fallback=False), "tokenizer.json")
