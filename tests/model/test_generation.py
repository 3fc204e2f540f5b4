"""Every stop id that any file names ends up in the run's generation config."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.sequences import write_base

from tunewright.errors import BaseModelError
from tunewright.model.generation import generation_config
from tunewright.model.source import fetch

pytestmark = pytest.mark.usefixtures("cache")


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_ends_of_all_three_files_are_kept(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    change(folder / "config.json", eos_token_id=7)
    change(folder / "generation_config.json", eos_token_id=[9, 0], pad_token_id=None)
    # the tokenizer's own end, <|im_end|>, has the id 2
    found = generation_config(fetch(str(folder)))
    assert found["eos_token_id"] == [0, 2, 7, 9]
    assert found["do_sample"] is False and found["pad_token_id"] == 0 and found["bos_token_id"] == 1


def test_end_written_as_an_object_is_read(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    change(folder / "config.json", eos_token_id=None)
    change(folder / "generation_config.json", eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token={"content": "<|im_end|>", "special": True})
    assert generation_config(fetch(str(folder)))["eos_token_id"] == [2]


def test_base_without_an_end_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    change(folder / "config.json", eos_token_id=None)
    change(folder / "generation_config.json", eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(BaseModelError, match="no token that ends an answer"):
        generation_config(fetch(str(folder)))


def test_an_encoder_decoder_keeps_where_it_begins_and_what_it_must_not_write(tmp_path: Path) -> None:
    """And no penalty, least length or sampling, which a base ships for the task that it was made for."""
    folder = write_base(tmp_path / "base", "marian")
    pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
    change(folder / "config.json", forced_bos_token_id=4)
    change(folder / "generation_config.json", forced_eos_token_id=0, min_length=56, length_penalty=2.0, num_beams=6)
    found = generation_config(fetch(str(folder)))
    found.pop("bos_token_id", None)
    assert found == {
        "eos_token_id": [0], "pad_token_id": pad, "do_sample": False, "decoder_start_token_id": pad,
        "forced_bos_token_id": 4, "forced_eos_token_id": 0, "bad_words_ids": [[pad]],
    }  # fmt: skip
