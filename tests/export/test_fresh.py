"""The cards' own Python, in a process that has never heard of Tunewright: adapters and merged models of each task."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.export.conftest import needs_llama_cpp
from tests.predicting import write_rows
from tests.tiny import environment, quick

from tunewright import api
from tunewright.errors import RunError
from tunewright.export.usage import Use, usage

Open = Callable[[Path], api.Run]

# Runs each card's block, in the folder it lies in, as it stands and with other texts in the place that it gives them;
# what `base` is stands beside it, as the card says.
RUNNER = """
import contextlib, io, json, os, re, sys, warnings
warnings.simplefilter("ignore")
for folder, base, texts in json.load(sys.stdin):
    os.chdir(folder)
    (block,) = re.findall(r"```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.DOTALL)
    said = []
    for text in [None, *texts]:
        heard, known = io.StringIO(), {"base": base}
        with contextlib.redirect_stdout(heard):
            exec(block if text is None else re.sub("Put the (text|source) here[.]", text, block), known)
        said.append(heard.getvalue().strip())
    model = known["model"]
    labels = {int(number): name for number, name in model.config.id2label.items()}
    print("SAID" + json.dumps({"said": said, "labels": labels,
                               "ends": model.generation_config.eos_token_id if model.can_generate() else None}))
assert not [name for name in sys.modules if name.startswith("tunewright")], "tunewright was imported"
"""


def fresh(folders: list[tuple[Path, Path]], tmp_path: Path, texts: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What each card's Python printed, with the model's labels and ends. folders: exports and their bases."""
    asked = json.dumps([[str(folder.resolve()), str(base.resolve()), texts] for folder, base in folders])
    without = {name: value for name, value in environment(tmp_path).items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=asked, capture_output=True, text=True, timeout=200, env=without,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in re.findall(r"^SAID(.*)$", done.stdout, re.MULTILINE)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_cards_of_every_task_work_without_tunewright(
    town: Path, label_adapter_run: Path, pair_adapter_run: Path, label_run: Path, pair_run: Path, at_home: Open,
    tmp_path: Path,
) -> None:  # fmt: skip
    folders = []
    chat = api.Run.open("run")
    asked = chat.chat("Who are you?", max_new_tokens=64)  # with the system message that it was trained with
    for form in ("adapter", "merged"):
        folders.append((chat.export(form, out=tmp_path / f"chat-{form}").folder, town / "base"))
    for run, forms in (
        (label_adapter_run, ("adapter", "merged")), (label_run, ("merged",)),
        (pair_adapter_run, ("adapter", "merged")), (pair_run, ("merged",)),
    ):  # fmt: skip
        opened = at_home(run)
        for form in forms:
            out = tmp_path / f"{run.parents[1].name}-{form}"
            folders.append((opened.export(form, out=out).folder, run.parents[1] / "base"))
    told = fresh(folders, tmp_path)
    assert [one["said"] for one in told[:2]] == [[asked], [asked]]
    assert told[0]["ends"] == told[1]["ends"] == [2]
    for one in told[2:5]:
        assert one["said"][0] in ("wet", "dry") and one["labels"] == {"0": "dry", "1": "wet"}
    for one in told[5:8]:
        assert one["ends"] == [1]


@pytest.mark.slow
def test_labels_are_chosen_without_tunewright_as_the_run_chooses_them(
    label_adapter_run: Path, word_adapter_run: Path, label_run: Path, tiny_base: Path, at_home: Open, tmp_path: Path
) -> None:
    texts = ["The river rises in the hills 3", "The bridge rises in the hills 4", "a short note about the bridge 4",
             "what is the name of the river? 2", "a river"]  # fmt: skip
    folders, wanted = [], []
    for run, forms in (
        (label_adapter_run, ("adapter", "merged")), (word_adapter_run, ("adapter", "merged")), (label_run, ("merged",))
    ):  # fmt: skip
        opened = at_home(run)
        for form in forms:
            out = opened.export(form, out=tmp_path / f"{run.parents[1].name}-{form}").folder
            folders.append((out, tiny_base if run == word_adapter_run else run.parents[1] / "base"))
            wanted.append([row["label"] for row in opened.predict(["Put the text here.", *texts])])
    told = fresh(folders, tmp_path, texts)
    assert [one["said"] for one in told] == wanted and {"wet", "dry"} == set(wanted[0]) == set(wanted[2])


def test_a_card_gives_what_a_row_had(tmp_path: Path) -> None:
    """Two texts, a system message, and what stood before each source."""
    use = Use("merged", "run", "base", False, "labels", labels=2, texts=2, system="Be brief.")
    said = usage(use)
    assert 'known["prompts"][1]' in said and '.replace("{pair}", "Put the second text here.")' in said
    assert """[{"role": "system", "content": 'Be brief.'}, {"role": "user", "content": asked}""" in said
    assert 'tokenizer("Put the text here.", "Put the second text here.", ' in usage(replace(use, linear=True))
    assert 'known["prompts"][0]' in (said := usage(replace(use, texts=1, system=None)))
    assert "{pair}" not in said and '"system"' not in said
    use = Use("merged", "run", "base", False, "outputs", prefix="translate: ")
    assert 'tokenizer("translate: Put the source here.", ' in usage(use)


@needs_llama_cpp
@pytest.mark.slow
def test_the_card_of_a_gguf_file_works_and_answers_as_the_run_does(town: Path, tmp_path: Path) -> None:
    run = api.Run.open("run")
    folder = run.export("gguf", type="f16", out=tmp_path / "gguf").folder
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=100, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    said, wanted = done.stdout.strip(), run.chat("Who are you?", max_new_tokens=64)
    # So small a model repeats itself, and half precision may end that one turn sooner or later.
    assert len(wanted) > 60 and said[:60] == wanted[:60]


def test_labels_and_outputs_are_compared_too(label_adapter_run: Path, at_home: Open, tmp_path: Path) -> None:
    run = at_home(label_adapter_run)
    for form, reader in (("adapter", "PEFT"), ("merged", "transformers")):
        made = run.export(form, out=tmp_path / form)
        (numbers,) = made.record["comparisons"]
        assert numbers["reader"] == reader and numbers["top_1_agreement"] == 1 and "answers" not in numbers
        assert json.loads((made.folder / "config.json").read_text())["id2label"] == {"0": "wet", "1": "dry"} or (
            json.loads((made.folder / "config.json").read_text())["id2label"] == {"0": "dry", "1": "wet"}
        )
        assert "Its labels: " in (made.folder / "README.md").read_text()


@pytest.mark.slow
def test_outputs_are_compared_by_logits_and_texts(pair_adapter_run: Path, at_home: Open, tmp_path: Path) -> None:
    run = at_home(pair_adapter_run)
    for form in ("adapter", "merged"):
        (numbers,) = run.export(form, out=tmp_path / form).record["comparisons"]
        assert numbers["answers"] == numbers["equal_answers"] > 0


@pytest.mark.slow
def test_a_labels_word_needs_the_files_that_say_which(word_adapter_run: Path, at_home: Open, tmp_path: Path) -> None:
    run = at_home(word_adapter_run)
    for form in ("adapter", "merged"):
        made = run.export(form, out=tmp_path / form)
        assert files(made.folder)["label_token.json"] == files(word_adapter_run / "adapter")["label_token.json"]


def test_forms_that_do_not_fit_are_named_with_those_that_do(label_run: Path, pair_run: Path, at_home: Open) -> None:
    for run, task in ((label_run, "linear"), (pair_run, "seq2seq")):
        opened = at_home(run)
        for form in ("gguf", "ollama"):
            with pytest.raises(RunError) as error:
                opened.export(form)
            assert f"this run's task is {task}" in error.value.what
            assert error.value.do == "this run exports as: merged, card"
        with pytest.raises(RunError, match="method full trains the weights themselves"):
            opened.export("adapter")
        assert not (run / "export").exists()


@pytest.mark.slow
def test_a_model_of_documents_exports_as_gguf_too(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    text = "The river number {} rises in the hills and runs slowly to the sea. "
    write_rows(tmp_path / "texts.jsonl", [{"text": text.format(number) * 3} for number in range(30)])
    words = quick(tiny_base, "task=pretrain", "data.max_length=64")
    words = [word for word in words if not word.startswith(("retain", "evaluate."))]  # which documents do not use
    run = api.train("texts.jsonl", words)
    made = run.export("gguf", type="f16")
    assert made.record["comparisons"][0]["top_1_agreement"] == 1 and "answers" not in made.record["comparisons"][0]
    with pytest.raises(RunError) as error:
        run.export("ollama")
    assert error.value.do == "this run exports as: adapter, merged, gguf, card"
