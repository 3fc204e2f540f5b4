"""Which task rows are for: told where it is plain, asked where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.guess import READS, guess_task, reading_of
from tunewright.errors import DataError
from tunewright.recipe.schema import Classify, Data, Recipe
from tunewright.tasks import TASKS


def put(folder: Path, rows: list[dict[str, Any]]) -> Data:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Data(train=[str(path)])


CHAT = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}


@pytest.mark.parametrize(
    ("row", "task"),
    [
        (lambda n: CHAT, "chat"),
        (lambda n: {"instruction": "Q", "output": f"A{n}"}, "chat"),
        (lambda n: {"instruction": "Q", "output": "A", "category": "qa"}, "chat"),
        (lambda n: {"prompt": "Q", "completion": "A"}, "chat"),
        (lambda n: {"Question": "Q", "Complex_CoT": "C", "Response": "A", "answer": "x"}, "chat"),
        (lambda n: {"question": "Q", "answer": "A"}, "chat"),
        (lambda n: {"text": f"T{n}", "label": n % 2}, "classify"),
        (lambda n: {"sentence": f"T{n}", "topics": "x", "labels": ["a", "b"][: n % 3]}, "classify"),
        (lambda n: {"premise": f"T{n}", "hypothesis": "H", "label": ["yes", "no"][n % 2]}, "classify"),
        (lambda n: {"source": f"T{n}", "target": f"U{n}"}, "seq2seq"),
        (lambda n: {"translation": {"en": f"T{n}", "fr": f"U{n}"}}, "seq2seq"),
        (lambda n: {"en": f"T{n}", "fr": f"U{n}"}, "seq2seq"),
        (lambda n: {"text": f"T{n}"}, "pretrain"),
        (lambda n: {"id": n, "url": f"u{n}", "title": f"t{n}", "text": f"T{n}"}, "pretrain"),
    ],
)
def test_rows_say_what_they_are_for(tmp_path: Path, row: Any, task: str) -> None:
    guessed, reason = guess_task(put(tmp_path, [row(n) for n in range(12)]))
    assert guessed == task and reason


@pytest.mark.parametrize(
    ("row", "tasks"),
    [
        (lambda n: {"instruction": "Q", "output": "A", "text": f"T{n}", "label": n % 2}, ("chat", "classify")),
        (lambda n: {"source": f"S{n}", "target": f"T{n}", "text": f"U{n}", "label": 0}, ("seq2seq", "classify")),
        (lambda n: {"text": f"T{n}", "target": f"another text, {n}"}, ("classify", "seq2seq")),
    ],
)
def test_rows_that_could_be_several_things_are_asked_about(tmp_path: Path, row: Any, tasks: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        guess_task(put(tmp_path, [row(n) for n in range(12)]))
    assert all(f"task={task}" in str(caught.value) for task in tasks)


@pytest.mark.parametrize(
    ("names", "task"),
    [(["a.txt"], "pretrain"), (["a.md"], "pretrain"), (["a.pos", "a.neg"], "classify"), (["a.txt", "b.txt"], None)],
)
def test_text_files_say_what_they_are_for(tmp_path: Path, names: list[str], task: str | None) -> None:
    for name in names:
        (tmp_path / name).write_text("one\ntwo\n", encoding="utf-8")
    data = Data(train=[str(tmp_path / name) for name in names])
    if task is None:
        with pytest.raises(DataError, match="task=pretrain or task=classify"):
            guess_task(data)
    else:
        assert guess_task(data)[0] == task


def test_two_languages_as_training_files_are_told_how_to_be_given(tmp_path: Path) -> None:
    for name in ("a.en", "a.fr"):
        (tmp_path / name).write_text("one\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"data.target"):
        guess_task(Data(train=[str(tmp_path / "a.en"), str(tmp_path / "a.fr")]))


@pytest.mark.parametrize(
    ("data", "task"),
    [
        ({"target": ["x.fr"]}, "seq2seq"),
        ({"format": "labelled"}, "classify"),
        ({"format": "sharegpt"}, "chat"),
        ({"columns": {"text": "a", "label": "b"}}, "classify"),
        ({"columns": {"source": "a", "target": "b"}}, "seq2seq"),
        ({"columns": {"question": "a", "answer": "b"}}, "chat"),
        ({"columns": {"text": "a"}}, "pretrain"),
        ({"prompt": "{a}", "answer": "{b}"}, "chat"),
    ],
)
def test_what_the_recipe_says_of_the_rows_decides(data: dict[str, Any], task: str) -> None:
    assert guess_task(Data(train=["nowhere.jsonl"], **data))[0] == task


def test_the_real_files(shared: Path) -> None:
    folder = shared / "data"
    expected = {
        "identity/identity.json": "chat", "alpaca/alpaca_zh_demo.json": "chat", "gsm8k/test.jsonl": "chat",
        "medical_cot/medical_o1_demo.json": "chat", "imdb/train.csv": "classify", "rotten_tomatoes": "classify",
        "text/wikitext2_valid.txt": "pretrain",
    }  # fmt: skip
    assert {name: guess_task(Data(train=[str(folder / name)]))[0] for name in expected} == expected


def test_a_recipe_reads_rows_as_its_task_does() -> None:
    assert {READS.get(name, "labels") for name in TASKS} == {task.reads for task in TASKS.values()}
    for name, task in TASKS.items():
        assert task.reads == READS.get(name, "labels")
    recipe = Recipe(task="classify", classify=Classify(labels=["a", "b"], names={"0": "a"}, multi_label=True))
    reading = reading_of(recipe)
    assert (reading.labels, dict(reading.names), reading.multi_label) == (("a", "b"), {"0": "a"}, True)
