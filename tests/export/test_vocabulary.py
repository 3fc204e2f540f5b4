"""What decides ids and ends in a GGUF file: the rule by which text is cut, stop tokens, first token, template."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from tests.export.conftest import needs_llama_cpp
from tests.export.test_gguf_model import made
from tests.shapes import write_tokenizer
from tokenizers import Tokenizer

from tunewright.errors import RunError
from tunewright.export import gguf_model, splitting, vocabulary
from tunewright.export.gguf_file import ODD_TEXTS
from tunewright.export.llama import LlamaCpp

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN_BYTES = BYTES | {"use_regex": False}


def isolated(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


RULES = {
    "gpt-2": (BYTES, False),
    "smollm": (sequence({"type": "Digits", "individual_digits": True}, BYTES), False),
    "qwen2": (sequence(isolated(splitting.ONE_DIGIT), PLAIN_BYTES), False),
    "llama-bpe": (sequence(isolated(splitting.THREE_DIGITS), PLAIN_BYTES), True),
    "smaug-bpe": (sequence(isolated(splitting.THREE_DIGITS), PLAIN_BYTES), False),
}


def tokenizer(folder: Path, kind: str = "qwen2") -> dict[str, Any]:
    write_tokenizer(folder, kind)
    stored: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    return stored


def with_rule(stored: dict[str, Any], name: str) -> dict[str, Any]:
    changed = copy.deepcopy(stored)
    changed["pre_tokenizer"], changed["model"]["ignore_merges"] = RULES[name]
    return changed


def test_each_rule_has_its_name(tmp_path: Path) -> None:
    stored = tokenizer(tmp_path)
    assert [splitting.name_of(with_rule(stored, name), "here") for name in RULES] == list(RULES)


@needs_llama_cpp
@pytest.mark.parametrize("name", list(RULES))
def test_llama_cpp_cuts_text_by_the_rule_of_that_name(tmp_path: Path, name: str) -> None:
    model = made(tmp_path, "llama")
    stored = with_rule(json.loads((tmp_path / "tokenizer.json").read_text()), name)
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    held = vocabulary.read(tmp_path, model.config.vocab_size, {"eos_token_id": [1]}, None, None)
    gguf_model.write(tmp_path / "m.gguf", model, "f16", held, {}, lambda _count: None)
    own, llama = Tokenizer.from_str(json.dumps(stored)), LlamaCpp(tmp_path / "m.gguf", 8, model.config.vocab_size)
    for text in (*ODD_TEXTS, "<|eot_id|>The river <|begin_of_text|> 1234567"):
        assert llama.ids(text) == own.encode(text, add_special_tokens=False).ids, text
    llama.close()


def test_two_rules_may_agree_on_a_sample_and_differ_elsewhere(tmp_path: Path) -> None:
    """Why the name is read off the rule, and is not guessed from ids."""
    stored = tokenizer(tmp_path)
    stored["model"]["vocab"]["ĠĠ"] = len(stored["model"]["vocab"])
    stored["model"]["merges"] = [["Ġ", "Ġ"]]
    one, other = (Tokenizer.from_str(json.dumps(with_rule(stored, name))) for name in ("gpt-2", "smollm"))
    assert one.encode("In 1990, 3 33 333.").tokens == other.encode("In 1990, 3 33 333.").tokens
    assert one.encode("x  42").tokens == ["x", "Ġ", "Ġ", "4", "2"]
    assert other.encode("x  42").tokens == ["x", "ĠĠ", "4", "2"]


def refused(stored: dict[str, Any]) -> str:
    with pytest.raises(RunError) as error:
        splitting.name_of(stored, "tokenizer.json")
    assert error.value.where == "tokenizer.json" and error.value.command == "tunewright export --to merged"
    return error.value.what


def test_what_gguf_cannot_hold_is_refused(tmp_path: Path) -> None:
    stored = tokenizer(tmp_path)
    assert "BPE over characters" in refused(tokenizer(tmp_path / "other", "mistral"))
    assert "another (WordPiece)" in refused(stored | {"model": {"type": "WordPiece"}})
    assert "no known name" in refused(stored | {"pre_tokenizer": sequence(isolated(r"\w+"), PLAIN_BYTES)})
    assert "no known name" in refused(stored | {"pre_tokenizer": BYTES | {"add_prefix_space": True}})
    assert "rewrites text" in refused(stored | {"normalizer": {"type": "Lowercase"}})
    assert "takes spaces" in refused(stored | {"added_tokens": [{**stored["added_tokens"][0], "lstrip": True}]})
    assert "parts of words" in refused(stored | {"model": stored["model"] | {"end_of_word_suffix": "</w>"}})


def read(folder: Path, kind: str, ends: list[str], answers_end: str | None, size: int = 700, **other: Any) -> Any:
    write_tokenizer(folder, kind, **other)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
    generation = {"eos_token_id": sorted(ids[end] for end in ends), "pad_token_id": 0}
    end = None if answers_end is None else ids[answers_end]
    return vocabulary.read(folder, size, generation, end, "the template"), ids


def test_every_token_has_a_text_and_a_kind(tmp_path: Path) -> None:
    held, ids = read(tmp_path, "qwen2", ["<|im_end|>"], "<|im_end|>", size=2000)
    assert len(held.tokens) == len(held.kinds) == 2000
    assert held.tokens[ids["<|im_start|>"]] == "<|im_start|>" and held.kinds[1] == gguf.TokenType.CONTROL
    assert held.kinds[ids["t"]] == gguf.TokenType.NORMAL
    assert held.tokens[1999] == "[PAD1999]" and held.kinds[1999] == gguf.TokenType.UNUSED
    assert held.opens is False and held.begin is None


def test_a_tokenizer_larger_than_its_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="more tokens than the model"):
        read(tmp_path, "qwen2", ["<|im_end|>"], None, size=100)


def test_the_first_token_is_put_there_where_the_tokenizer_does(tmp_path: Path) -> None:
    held, ids = read(tmp_path, "llama", ["<|end_of_text|>", "<|eot_id|>"], "<|eot_id|>")
    assert held.opens is True and held.begin == ids["<|begin_of_text|>"]


def test_stop_tokens_take_the_places_that_there_are(tmp_path: Path) -> None:
    """eos is what a template may write by its name, eot ends an answer; others stand by their text, or as eom."""
    held, ids = read(tmp_path / "a", "llama", ["<|end_of_text|>", "<|eot_id|>"], "<|eot_id|>")
    assert (held.end, held.turn_end, held.more_end) == (ids["<|end_of_text|>"], ids["<|eot_id|>"], None)
    held, ids = read(tmp_path / "b", "qwen2", ["<|im_end|>", "<|endoftext|>"], "<|im_end|>")
    assert (held.end, held.turn_end, held.more_end) == (ids["<|im_end|>"], ids["<|im_end|>"], None)

    odd = {"specials": ("<end>", "<stop>", "<halt>", "<quit>"), "named": {"eos_token": "<end>"}, "stops": ("<end>",)}
    held, ids = read(tmp_path / "c", "qwen2", ["<end>", "<stop>", "<halt>"], "<stop>", **odd)
    assert (held.end, held.turn_end, held.more_end) == (ids["<end>"], ids["<stop>"], ids["<halt>"])
    held, ids = read(tmp_path / "d", "qwen2", ["<end>", "<stop>", "<halt>"], "<end>", **odd)
    assert (held.end, held.turn_end, held.more_end) == (ids["<end>"], ids["<stop>"], ids["<halt>"])
    with pytest.raises(RunError, match=r"no place for '<quit>'"):
        read(tmp_path / "e", "qwen2", list(odd["specials"]), "<stop>", **odd)


@needs_llama_cpp
def test_llama_cpp_stops_where_the_run_does(tmp_path: Path) -> None:
    model = made(tmp_path, "llama")
    _held, ids = read(tmp_path, "llama", ["<|eot_id|>"], "<|eot_id|>")
    stops = [ids[text] for text in ("<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>")]
    held = vocabulary.read(tmp_path, model.config.vocab_size, {"eos_token_id": stops}, stops[1], None)
    gguf_model.write(tmp_path / "m.gguf", model, "f16", held, {}, lambda _count: None)
    llama = LlamaCpp(tmp_path / "m.gguf", 8, model.config.vocab_size)
    assert [llama.ends(stop) for stop in stops] == [True, True, True]
    assert not llama.ends(ids["t"]) and not llama.ends(ids["<|begin_of_text|>"])
    llama.close()


