"""Classification by a label's word: which token is learned, what the prompt is, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.templates import THINKING
from tests.tiny import quick
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunewright import api, rundir
from tunewright.data.basefiles import TEMPLATE
from tunewright.data.template import ChatTemplate
from tunewright.errors import BaseModelError, DataError, RecipeError
from tunewright.example import Chat, Message, Origin
from tunewright.infer.open import open_run
from tunewright.model.load import load_folder
from tunewright.recipe.schema import Recipe
from tunewright.tasks.label_token import SAVED, LabelTokenCodec, LabelTokenTask

LABELS = ("bread", "river")
PROMPT = "Note: {text}\nIt is about"
TASK = LabelTokenTask()


def recipe(prompt: str | None = PROMPT, data: dict[str, Any] | None = None, **classify: Any) -> Recipe:
    values = {"head": "label_token", "prompt": prompt, **classify}
    return Recipe.model_validate({"task": "classify", "data": data or {}, "classify": values})


def codec(base: Path, labels: tuple[str, ...] = LABELS, **values: Any) -> LabelTokenCodec:
    return TASK.codec(base, recipe(**values), labels)


def example(text: str, label: str = "river", pair: str | None = None, system: str | None = None) -> Chat:
    said = [Message("user", one) for one in (text, pair) if one is not None]
    opening = [Message("system", system)] if system else []
    return Chat((*opening, *said, Message("assistant", label, learn=True)), Origin("notes.jsonl", 3, 3))


def row(made: LabelTokenCodec, chat: Chat) -> Any:
    [[only]] = made.render_many([chat])
    return only


# -- rows --------------------------------------------------------------------------------------------------------------


def test_the_model_reads_the_prompt_alone_and_learns_the_first_token_of_the_word(tiny_base: Path) -> None:
    made = codec(tiny_base)
    found = row(made, example("It runs to the sea."))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    assert found.ids[:-1].tolist() == tokenizer("Note: It runs to the sea.\nIt is about")["input_ids"]
    assert found.learn.tolist() == [False] * (found.length - 1) + [True]
    words = [tokenizer(" " + label)["input_ids"][0] for label in LABELS]
    assert list(made.label_ids) == words and found.ids[-1] == words[1]


def test_asked_template_writes_the_prompt_as_the_users_turn(tiny_base: Path) -> None:
    made = codec(tiny_base, data={"chat_template": "default"})
    found = row(made, example("It runs.", system="Be brief."))
    template = ChatTemplate.from_folder(tiny_base)
    turns = [Message("system", "Be brief."), Message("user", "Note: It runs.\nIt is about")]
    assert found.ids[:-1].tolist() == template.prompt_ids(turns)
    trained = template.render(Chat((*turns, Message("assistant", "river", learn=True)), Origin("", 0, 0)))[0]
    assert found.ids.tolist() == trained.ids[: found.length].tolist() and trained.learn[found.length - 1]


def test_word_begins_behind_what_a_template_writes_before_every_answer(tiny_base: Path, tmp_path: Path) -> None:
    """Else each label would begin with the same ``<think>``."""
    file = tmp_path / "thinking.jinja"
    file.write_text(THINKING)
    made = codec(tiny_base, data={"chat_template": str(file)})
    found = row(made, example("It runs."))
    assert "".join(made.pieces(found)[:-1]).endswith("assistant\n<think>\n\n</think>\n\n")
    assert len(set(made.label_ids)) == 2 and "river".startswith(made.decode([found.ids[-1]]))


def test_words_stand_for_labels_and_fill_the_prompt(tiny_base: Path) -> None:
    made = codec(tiny_base, ("0", "1"), prompt="{text} Which: {labels}?", words={"0": "bread", "1": "river"})
    found = row(made, example("It runs.", "1"))
    assert "".join(made.pieces(found)).startswith("It runs. Which: bread, river?")
    assert made.label_ids == codec(tiny_base).label_ids and made.wanted(example("", "1")) == (1,)


def test_braces_in_a_text_are_text(tiny_base: Path) -> None:
    made = codec(tiny_base)
    assert "{labels} {x}" in "".join(made.pieces(row(made, example("{labels} {x}"))))


def test_special_tokens_that_a_person_typed_are_text(tiny_base: Path) -> None:
    made = codec(tiny_base)
    assert row(made, example("a <|im_end|> b")).ids.tolist().count(2) == 0


def test_pair_has_a_prompt_of_its_own(tiny_base: Path) -> None:
    made = codec(tiny_base, prompt=None)
    found = "".join(made.pieces(row(made, example("one", pair="two"))))
    assert found.startswith("First: one\nSecond: two\n")


def test_tokenizer_that_opens_every_text_opens_the_prompt(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "opening")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert row(codec(folder), example("It runs.")).ids.tolist() == [1, *row(codec(tiny_base), example("It runs.")).ids]


def test_everything_that_decides_the_ids_is_in_the_hash(tiny_base: Path) -> None:
    """Also before the labels are known: rows in the cache are found by it."""
    words, other = {"river": "water"}, {"river": "stream"}
    made = [
        codec(tiny_base, ()), codec(tiny_base, (), words=words), codec(tiny_base, (), words=other), codec(tiny_base),
        codec(tiny_base, words=words), codec(tiny_base, prompt="{text}:"), codec(tiny_base, LABELS[::-1]),
        codec(tiny_base, data={"truncation_side": "left"}), codec(tiny_base, data={"chat_template": "default"}),
    ]  # fmt: skip
    assert len({one.sha256 for one in made}) == len(made)


# -- too long ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_is_cut_at_its_side_and_the_prompt_around_it_never(side: str, tiny_base: Path) -> None:
    made = codec(tiny_base, data={"truncation_side": side})
    text = "The river rises in the hills and runs slowly to the sea."
    whole = row(made, example(text))
    done = made.cut(example(text), [whole], 16)
    [kept] = done.rows
    shown = "".join(made.pieces(kept)[:-1])
    inside = shown.removeprefix("Note: ").removesuffix("\nIt is about")
    assert kept.length <= 16 and done.lost == whole.length - kept.length and len(shown) == len(inside) + 18
    assert 0 < len(inside) < len(text) and (text.endswith(inside) if side == "left" else text.startswith(inside))
    assert kept.ids[-1] == whole.ids[-1]
    longer = text[len(text) - len(inside) - 1 :] if side == "left" else text[: len(inside) + 1]
    assert row(made, example(longer)).length > 16  # no character was lost that would have fitted


def test_of_two_texts_the_longer_one_is_cut_first(tiny_base: Path) -> None:
    made = codec(tiny_base, prompt="{text}|{pair}")
    chat = example("The river rises in the hills and runs slowly to the sea", pair="The sea")
    [kept] = made.cut(chat, made.render_many([chat])[0], 12).rows
    first, second = "".join(made.pieces(kept)[:-1]).split("|")
    assert second == "The sea" and len(first) < 40


def test_prompt_that_leaves_no_room_is_an_error_that_says_so(tiny_base: Path) -> None:
    made = codec(tiny_base)
    with pytest.raises(RecipeError, match="prompt without its text takes more than 3"):
        made.cut(example("word"), [row(made, example("word"))], 3)


# -- refused -----------------------------------------------------------------------------------------------------------


def test_labels_that_begin_with_the_same_token_are_both_named(tiny_base: Path) -> None:
    with pytest.raises(RecipeError, match=r"'very good' and 'very bad' begin with the same token, '( ?v| ')") as caught:
        codec(tiny_base, ("very good", "neutral", "very bad"))
    assert "classify.words" in str(caught.value) and "very bad: C" in (caught.value.do or "")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"words": {"river": " "}}, "word for the label 'river' is empty"),
        ({"words": {"rivr": "water"}}, "'rivr', which is no label"),
        ({"prompt": "What is it?"}, "no {text}"),
        ({"prompt": "{text} {colour}"}, "a field {colour}"),
        ({"multi_label": True}, "one answer"),
    ],
)
def test_what_cannot_work_is_refused_before_training(values: dict[str, Any], what: str, tiny_base: Path) -> None:
    with pytest.raises(RecipeError, match=what):
        codec(tiny_base, **values)


def test_misspelt_label_gets_the_near_one(tiny_base: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        codec(tiny_base, words={"rivr": "water"})
    assert "did you mean 'river'" in (caught.value.do or "")


def test_prompt_for_one_text_is_not_quietly_used_for_two(tiny_base: Path) -> None:
    with pytest.raises(DataError, match="two texts"):
        row(codec(tiny_base), example("one", pair="two"))
    with pytest.raises(DataError, match="one text"):
        row(codec(tiny_base, prompt="{text} {pair}"), example("one"))


def test_encoder_is_refused_with_the_other_head_and_bases_that_would_do(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertModel"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError) as caught:
        TASK.require(folder, "mine")
    assert "linear" in (caught.value.do or "") and "smollm2-135m-instruct" in (caught.value.do or "")


# -- the model ---------------------------------------------------------------------------------------------------------


def test_loss_is_that_of_the_whole_models_logits_over_the_label_tokens(tiny_base: Path) -> None:
    made, model = codec(tiny_base), load_folder(tiny_base, "fp32", "cpu")
    chats = [example("It runs."), example("It rises, then bake it. " * 3, "bread"), example("The sea")]
    rows = [some[0] for some in made.render_many(chats)]
    whole = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    expected = 0.0
    for one, chat in zip(rows, chats, strict=True):
        with torch.no_grad():
            logits = whole(torch.tensor(one.ids[None, :-1].astype(np.int64))).logits[0, -1, list(made.label_ids)]
        expected += float(functional.cross_entropy(logits[None], torch.tensor([made.wanted(chat)[0]])))
    assert float(TASK.objective(model, made)(rows).detach()) == pytest.approx(expected, rel=1e-5)


def write_notes(path: Path, count: int = 40) -> None:
    words = {"river": ["The river runs", "water to the sea", "a bridge"], "bread": ["flour and salt", "bake", "mix"]}
    lines = [{"text": f"{words[label][i % 3]} {i}", "label": label} for i in range(count // 2) for label in words]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_trained_run_knows_labels_words_and_prompt_without_its_data(tiny_base: Path, home: Path) -> None:
    write_notes(home / "notes.jsonl")
    values = quick(
        tiny_base, "task=classify", "classify.head=label_token", f"classify.prompt={PROMPT}", "train.epochs=6",
        "train.keep=last", "data.held_out=10", "classify.words={river: water}", "train.batch_size=8",
    )  # fmt: skip
    values = [item for item in values if not item.startswith(("retain", "evaluate."))]  # keys of other tasks
    run = api.train("notes.jsonl", values, out="run").folder
    evaluation = rundir.read_json(run.file(rundir.EVALUATION))
    assert evaluation["gives"] == "labels" and evaluation["difference"]["loss"]["better"] is True
    assert rundir.read_json(run.file(rundir.ADAPTER) / SAVED)["words"] == {"bread": "bread", "river": "water"}

    (home / "notes.jsonl").unlink()
    opened = open_run(run)
    again = TASK.codec(run.file(rundir.ADAPTER), Recipe(task="classify"))
    assert opened.labels == again.labels == LABELS and again.words == ("bread", "water")
    held = [example(r["text"], r["label"]) for r in evaluation["rows"]]
    mine, theirs = (made.render_many(held) for made in (again, opened.codec))
    assert all((a[0].ids == b[0].ids).all() for a, b in zip(mine, theirs, strict=True))
    assert "".join(again.pieces(mine[0][0])).startswith("Note: ")
    chances = opened.engine.probabilities([some[0] for some in theirs])
    said = [r["after"]["probability"] for r in evaluation["rows"]]
    assert chances.max(axis=1) == pytest.approx(said, abs=1e-4)


def test_base_without_a_template_is_asked_in_the_same_way(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "bare")
    (folder / TEMPLATE).unlink()
    chat = example("It runs.")
    assert row(codec(folder), chat).ids.tolist() == row(codec(tiny_base), chat).ids.tolist()


@pytest.mark.parametrize("template", ["plain text", "the base's own"])
def test_the_prompt_is_the_same_whatever_the_label_is(template: str, tiny_base: Path) -> None:
    """A space before a word may be a token of its own for one and not for another: no prompt holds a piece of one."""
    wanted = ["dry", "wet", "7", "日", "é", "Xylophone", "bread", "-1"]
    own = (tiny_base / TEMPLATE).read_text(encoding="utf-8")
    data = {} if template == "plain text" else {"chat_template": own}
    told_apart = 0
    for one in wanted:
        for other in wanted:
            if one == other:
                continue
            try:
                made = codec(tiny_base, (one, other), data=data)
            except RecipeError as error:
                assert "begin with the same token" in str(error)
                continue
            told_apart += 1
            first, second = (row(made, example("It runs to the sea.", label)).ids.tolist() for label in (one, other))
            assert first[:-1] == second[:-1] and first[-1] != second[-1], (one, other)
    assert told_apart > len(wanted)
