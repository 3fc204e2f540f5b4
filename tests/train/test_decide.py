"""Task, base and head are chosen from the rows and the base, and keys that the task does not read are errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.encoders import write_encoder

from tunewright.errors import BaseModelError, RecipeError
from tunewright.recipe.load import load
from tunewright.train.decide import decide, decide_head
from tunewright.train.events import Listener
from tunewright.train.ready import get_ready


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rows = {
        "reviews.jsonl": [{"text": f"a fine day number {i}", "label": ["bad", "good"][i % 2]} for i in range(20)],
        "chats.jsonl": [{"instruction": f"say {i}", "output": f"the number {i}"} for i in range(20)],
        "notes.jsonl": [{"text": f"The river rises in the hills, year {i}."} for i in range(20)],
        "pairs.jsonl": [{"translation": {"en": f"bread {i}", "fr": f"pain {i}"}} for i in range(20)],
    }
    for name, some in rows.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return {name: tmp_path / name for name in rows}


@pytest.mark.parametrize(
    ("name", "task", "base"),
    [
        ("reviews.jsonl", "classify", "minilm-l6"),
        ("chats.jsonl", "chat", "smollm2-135m-instruct"),
        ("notes.jsonl", "pretrain", "smollm2-135m-instruct"),
    ],
)
def test_task_and_base_follow_the_rows_and_say_why(name: str, task: str, base: str, files: dict[str, Path]) -> None:
    recipe, reasons = decide(load(files[name]))
    assert (recipe.task, recipe.base) == (task, base)
    assert len(reasons["task"]) > 10 and len(reasons["base"]) > 10


def test_no_base_is_embedded_for_translation_and_that_is_said(files: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="none is embedded"):
        decide(load(files["pairs.jsonl"]))
    recipe, _reasons = decide(load(files["pairs.jsonl"], ["base=some/base"]))
    assert recipe.task == "seq2seq"


@pytest.mark.parametrize(
    ("name", "key"), [("reviews.jsonl", "retain=0.5"), ("chats.jsonl", "classify.labels=[a,b]")]
)
def test_a_key_that_the_found_task_does_not_read_is_an_error(name: str, key: str, files: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="is not used by `task"):
        decide(load(files[name], [key]))


def test_a_key_of_another_task_is_an_error_at_once_where_the_task_is_named(files: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="is not used by `task: chat`"):
        load(files["chats.jsonl"], ["task=chat", "seq2seq.beams=2"])


def test_a_base_that_chats_answers_with_a_word_and_an_encoder_gets_a_head(
    tiny_base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    recipe, _reasons = decide(load(files["reviews.jsonl"]))
    assert decide_head(recipe, tiny_base)[0].classify.head == "label_token"
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}', encoding="utf-8")
    chosen, reasons = decide_head(recipe, encoder)
    assert chosen.classify.head == "linear" and "only reads" in reasons["classify.head"]


def test_a_guessed_task_is_named_where_the_base_cannot_learn_it(tmp_path: Path) -> None:
    base = tmp_path / "encoder"
    base.mkdir()
    write_encoder(base)
    (tmp_path / "odd.jsonl").write_text('{"mood": "glad", "said": "so"}\n', encoding="utf-8")
    with pytest.raises(BaseModelError, match="cannot chat") as caught:
        get_ready(load(tmp_path / "odd.jsonl", [f"base={base}"]), Listener())
    assert "chat was chosen because of this: nothing else fits the columns: mood, said" in (caught.value.do or "")
