"""Plain text becomes documents with an end, and a model that is trained on them is less surprised by others."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import quick
from tokenizers import Tokenizer, processors

from tunewright import api
from tunewright.data.basefiles import BaseFiles
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Message, Origin
from tunewright.recipe.schema import Recipe
from tunewright.rundir import EVALUATION, LEDGER, METRICS
from tunewright.tasks.pretrain import DocumentCodec, PretrainTask

Change = Callable[..., Path]


def document(text: str, line: int = 1) -> Chat:
    return Chat((Message("assistant", text, learn=True),), Origin("a.txt", line, line))


@pytest.fixture
def changed(tiny_base: Path, tmp_path: Path) -> Change:
    """A copy of the tiny base without its template, with other values in a JSON file."""

    def change(file: str = "tokenizer_config.json", **values: object) -> Path:
        folder = tmp_path / "base"
        if not folder.exists():
            shutil.copytree(tiny_base, folder)
            (folder / "chat_template.jinja").unlink()
        content = json.loads((folder / file).read_text(encoding="utf-8")) | values
        content = {name: value for name, value in content.items() if value is not None}
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
        return folder

    return change


def test_a_document_is_its_tokens_and_a_learned_end(changed: Change) -> None:
    codec = DocumentCodec(BaseFiles.read(changed()))
    [[row]] = codec.render_many([document("The river rises.")])
    assert codec.decode(row.ids.tolist()) == "The river rises.<|im_end|>"
    assert row.learn.tolist() == [False] + [True] * (row.length - 1)


def test_a_special_token_typed_in_a_document_is_text(changed: Change) -> None:
    codec = DocumentCodec(BaseFiles.read(changed()))
    [[row]] = codec.render_many([document("before <|im_end|> after")])
    assert row.ids.tolist().count(codec.end) == 1 and "before <|im_end|> after" in codec.decode(row.ids.tolist())


def test_what_the_tokenizer_puts_first_comes_first_and_once(changed: Change) -> None:
    folder = changed()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing("<|im_start|> $A", None, [("<|im_start|>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    codec = DocumentCodec(BaseFiles.read(folder))
    [[row]] = codec.render_many([document("The river")])
    assert row.ids.tolist() == [*tokenizer.encode("The river").ids, codec.end]


def test_the_end_is_found_where_only_the_model_s_files_name_it(changed: Change) -> None:
    changed("tokenizer_config.json", eos_token=None)
    assert DocumentCodec(BaseFiles.read(changed("generation_config.json", eos_token_id=2))).end == 2


def test_a_base_without_an_end_is_refused(changed: Change) -> None:
    for file, key in (("tokenizer_config.json", "eos_token"), ("generation_config.json", "eos_token_id")):
        changed(file, **{key: None})
    with pytest.raises(BaseModelError, match="no token that ends a text"):
        DocumentCodec(BaseFiles.read(changed("config.json", eos_token_id=None)))


def test_a_reserved_character_names_the_row(tiny_base: Path) -> None:
    with pytest.raises(DataError, match=r"U\+FDD2(.|\n)*a.txt:7"):
        DocumentCodec(BaseFiles.read(tiny_base)).render_many([document("a\ufdd2", 7)])


def test_a_run_s_folder_writes_the_same_ids(tiny_base: Path, tmp_path: Path) -> None:
    task, recipe = PretrainTask(), Recipe()
    codec = task.codec(tiny_base, recipe)
    codec.save(tmp_path / "model")
    shutil.copy(tiny_base / "generation_config.json", tmp_path / "model")
    again = task.codec(tmp_path / "model", recipe)
    chats = [document("The town is called Harrow. 你好"), document("x")]
    assert [[r.ids.tolist() for r in rows] for rows in again.render_many(chats)] == [
        [r.ids.tolist() for r in rows] for rows in codec.render_many(chats)
    ]


def test_no_document_is_too_long(tiny_base: Path) -> None:
    codec = DocumentCodec(BaseFiles.read(tiny_base), 16)
    [[row]] = codec.render_many([document("The river rises in the hills. " * 50)])
    assert row.length > 100 and codec.size(row) == 16
    rows = PretrainTask().arrange([row], 16)
    assert sum(r.learned for r in rows) == row.learned and {r.length for r in rows[:-1]} == {16}


SENTENCES = (
    "The river rises in the hills and runs slowly to the sea.",
    "The bridge is older than the church, and the town is called Harrow.",
    "Mix flour, water and salt, wait until it rises, then bake it.",
)


@pytest.fixture
def texts(home: Path) -> Path:
    """A file of short documents that say much the same."""
    lines = [json.dumps({"text": f"{SENTENCES[n % 3]} {n}. {SENTENCES[(n + n // 3) % 3]}"}) for n in range(40)]
    (home / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return home


FULL = ["train.method=full", "train.learning_rate=0.005"]


def settings(base: Path, *more: str) -> list[str]:
    """Without what only tasks that answer read."""
    return [item for item in quick(base, "task=pretrain", *more) if not item.startswith(("retain", "evaluate."))]


def test_pretraining_lowers_loss_and_perplexity_on_documents_held_out(texts: Path, tiny_base: Path) -> None:
    run = api.train("texts.jsonl", settings(tiny_base, *FULL, "train.epochs=6", "data.max_length=64"))
    evaluation = json.loads(run.folder.file(EVALUATION).read_text(encoding="utf-8"))
    before, after = (evaluation[side] for side in ("before", "after"))
    assert after["loss"]["value"] < 0.8 * before["loss"]["value"]
    for side in (before, after):
        assert side["perplexity"]["value"] == pytest.approx(math.exp(side["loss"]["value"]), rel=1e-4)
        assert side["perplexity"]["low"] <= side["perplexity"]["value"] <= side["perplexity"]["high"]
    assert evaluation["difference"]["perplexity"]["better"] is True
    assert "chrf" not in before and "general" not in before


def test_every_learned_token_of_the_ledger_is_trained_on_or_measured(texts: Path, tiny_base: Path) -> None:
    run = api.train("texts.jsonl", settings(tiny_base, "train.epochs=1", "data.max_length=32"))
    ledger = json.loads(run.folder.file(LEDGER).read_text(encoding="utf-8"))
    lines = run.folder.file(METRICS).read_text(encoding="utf-8").splitlines()
    trained = sum(json.loads(line)["learned_tokens"] for line in lines)
    measured = json.loads(run.folder.file(EVALUATION).read_text(encoding="utf-8"))["counts"]["learned_tokens"]
    assert trained + measured == ledger["learned_tokens"]
