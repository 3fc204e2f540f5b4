"""Bases of other shapes: which template is used, and what is learned, down to the token that ends an answer."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.shapes import CHATML, END, QWEN3, SHAPES, write_tokenizer

from tunewright.data.show import bracketed
from tunewright.data.template import ChatTemplate
from tunewright.errors import BaseModelError, DataError, RecipeError
from tunewright.example import Chat, Message, Origin
from tunewright.recipe.load import load as load_recipe

HERE = Origin("rows.jsonl", 3, 3)
TWO = (
    Message("user", "Who are you?"),
    Message("assistant", "A model.", learn=True),
    Message("user", "Hi"),
    Message("assistant", "Hello!", learn=True),
)


def two(thinking: str | None = None) -> Chat:
    """Two questions with answers; the second answer may have reasoning."""
    return Chat((*TWO[:3], Message("assistant", "Hello!", learn=True, thinking=thinking)), HERE)


@pytest.fixture
def base(tmp_path: Path) -> Callable[..., Path]:
    def make(kind: str, **other: Any) -> Path:
        return write_tokenizer(tmp_path / kind, kind, **other)

    return make


# ---- which template ------------------------------------------------------------------------------------------------


def test_a_base_without_a_template_gets_plain_and_it_is_said(base: Callable[..., Path]) -> None:
    template = ChatTemplate.from_folder(base("gpt2"))
    [row] = template.render(two())
    assert bracketed(row, template) == (
        "User:\nWho are you?\n\nAssistant:\n⟦A model.<|endoftext|>⟧\n\n"
        "User:\nHi\n\nAssistant:\n⟦Hello!<|endoftext|>⟧\n\n"
    )
    assert template.notes[0] == "the base has no chat template, so `plain` is used and saved with the model"


@pytest.mark.parametrize(
    ("kind", "wanted"), [("gpt2", None), ("mistral", None), ("qwen2", "plain"), ("llama", "plain")]
)
def test_a_template_of_ours_is_saved_and_read_again_by_us_and_by_transformers(
    base: Callable[..., Path], tmp_path: Path, kind: str, wanted: str | None
) -> None:
    from transformers import AutoTokenizer

    folder = base(kind)
    template = ChatTemplate.from_folder(folder, wanted)
    template.save(tmp_path / "run")
    shutil.copy(folder / "generation_config.json", tmp_path / "run")
    again = ChatTemplate.from_folder(tmp_path / "run")
    assert again.sha256 == template.sha256 and again.stop_ids == template.stop_ids
    theirs = AutoTokenizer.from_pretrained(tmp_path / "run")
    said = [{"role": m.role, "content": m.content} for m in TWO[:3]]
    expected = theirs.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert template.prompt_ids(TWO[:3]) == again.prompt_ids(TWO[:3]) == expected


def test_a_template_of_ours_survives_being_sent_to_a_worker(base: Callable[..., Path]) -> None:
    template = ChatTemplate.from_folder(base("qwen2"), "plain")
    assert pickle.loads(pickle.dumps(template)).sha256 == template.sha256


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_a_name_replaces_the_base_s_own_template(base: Callable[..., Path], name: str) -> None:
    template = ChatTemplate.from_folder(base("qwen2"), name)
    assert "You are helpful" not in template.text(TWO) and f"`{name}` is used" in template.notes[0]
    [row] = template.render(two())
    assert template.decode(row.ids[row.learn].tolist()) == "A model.<|im_end|>Hello!<|im_end|>"


def test_chatml_ends_answers_in_its_own_token_where_the_base_s_is_another(base: Callable[..., Path]) -> None:
    folder = base("qwen2", named={"eos_token": END, "pad_token": END}, stops=(END,))
    template = ChatTemplate.from_folder(folder, "chatml")
    [row] = template.render(two())
    assert template.decode(row.ids[row.learn].tolist()) == "A model.<|im_end|>Hello!<|im_end|>"
    assert [template.decode([i]) for i in template.stop_ids] == ["<|im_end|>", END]


def test_chatml_is_refused_where_the_vocabulary_lacks_its_tokens(base: Callable[..., Path]) -> None:
    with pytest.raises(BaseModelError, match=r"no token <\|im_start\|>(.|\n)*data.chat_template=plain"):
        ChatTemplate.from_folder(base("gpt2"), "chatml")


def test_one_of_the_base_s_own_templates_is_found_by_its_name(base: Callable[..., Path]) -> None:
    folder = base("gpt2")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    loud = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    config["chat_template"] = [{"name": "loud", "template": loud}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.from_folder(folder, "loud").text([Message("user", "hi")]) == "HI"
    assert "it has some with names for data.chat_template: loud" in ChatTemplate.from_folder(folder).notes[0]


def test_an_unknown_name_says_which_there_are(base: Callable[..., Path]) -> None:
    with pytest.raises(BaseModelError, match=r"'alpaca'(.|\n)*default, plain, chatml; or a .jinja file"):
        ChatTemplate.from_folder(base("qwen2"), "alpaca")


def test_a_file_replaces_the_template(base: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(
        "{% for m in messages %}{{ '# ' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '# assistant\\n' }}{% endif %}",
        encoding="utf-8",
    )
    template = ChatTemplate.from_folder(base("qwen2"), str(tmp_path / "mine.jinja"))
    [row] = template.render(two())
    assert bracketed(row, template).startswith("# user\nWho are you?<|im_end|>\n# assistant\n⟦A model.<|im_end|>⟧")
    assert "in place of the base's own" in template.notes[0]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"hello", "no chat template"), (b"\xff", "UTF-8")]
)
def test_a_file_that_is_no_template_is_an_error_of_the_recipe(
    base: Callable[..., Path], tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "mine.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        ChatTemplate.from_folder(base("qwen2"), str(path))


def test_a_template_s_file_is_found_beside_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    recipe = tmp_path / "here" / "recipe.yaml"
    recipe.write_text("data: {train: rows.jsonl, chat_template: mine.jinja}\n")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(recipe).recipe.data.chat_template == str(tmp_path / "here" / "mine.jinja")
    recipe.write_text("data: {train: rows.jsonl, chat_template: plain}\n")
    assert load_recipe(recipe).recipe.data.chat_template == "plain"


def test_plain_says_that_it_has_no_place_for_tools(base: Callable[..., Path]) -> None:
    template = ChatTemplate.from_folder(base("gpt2"))
    with pytest.raises(DataError, match="no place for tools"):
        template.render(Chat(TWO, HERE, ({"type": "function", "function": {"name": "add"}},)))


# ---- what is learned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHAPES)
def test_training_rows_begin_with_the_prompt_and_end_in_a_learned_stop(base: Callable[..., Path], kind: str) -> None:
    template = ChatTemplate.from_folder(base(kind))
    rows = template.render(two())
    for turn, row in zip((1, 3), rows if len(rows) == 2 else rows * 2, strict=True):
        prompt = template.prompt_ids(TWO[:turn])
        assert row.ids[: len(prompt)].tolist() == prompt
        answer = row.ids[len(prompt) :].tolist()
        end = next(place for place, token in enumerate(answer) if token in template.stop_ids)
        assert row.learn[len(prompt) : len(prompt) + end + 1].all() and not row.learn[len(prompt) - 1]


def test_padding_that_is_the_stop_token_is_learned_where_it_ends_an_answer(base: Callable[..., Path]) -> None:
    folder = base("gpt2", named={"eos_token": END, "pad_token": END})
    template = ChatTemplate.from_folder(folder)
    [row] = template.render(two())
    [end] = template.stop_ids
    assert (row.ids == end).sum() == 2 and row.learn[row.ids == end].all()


def test_a_base_without_padding_renders_the_same(base: Callable[..., Path], tmp_path: Path) -> None:
    with_pad = write_tokenizer(tmp_path / "pad", "gpt2", named={"eos_token": END, "pad_token": END})
    rows = [ChatTemplate.from_folder(folder).render(two())[0] for folder in (base("gpt2"), with_pad)]
    assert rows[0].ids.tolist() == rows[1].ids.tolist() and rows[0].learn.tolist() == rows[1].learn.tolist()


def test_a_template_that_strips_old_reasoning_learns_each_answer_behind_its_own_prompt(
    base: Callable[..., Path],
) -> None:
    template = ChatTemplate.from_folder(base("qwen3"))
    assert template.source == QWEN3
    first, second = template.render(two("Greet."))
    head = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    assert bracketed(first, template) == head + "⟦<think>\n\n</think>\n\nA model.<|im_end|>⟧\n"
    assert bracketed(second, template) == (
        head + "A model.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\nGreet.\n</think>\n\nHello!<|im_end|>⟧\n"
    )


@pytest.mark.parametrize(("kind", "wanted"), [("llama", None), ("llama", "plain"), ("mistral", None)])
def test_a_first_token_that_the_tokenizer_adds_stands_there_once(
    base: Callable[..., Path], kind: str, wanted: str | None
) -> None:
    template = ChatTemplate.from_folder(base(kind), wanted)
    first = SHAPES[kind]["first"]
    [row] = template.render(two())
    text = template.decode(row.ids.tolist())
    assert text.startswith(first) and text.count(first) == 1
    assert template.decode(template.prompt_ids(TWO[:1])).count(first) == 1


def test_a_stop_that_only_the_generation_config_names_ends_answers(base: Callable[..., Path]) -> None:
    folder = base("qwen2", named={}, stops=("<|im_end|>",), specials=CHATML)
    [row] = ChatTemplate.from_folder(folder).render(two())
    template = ChatTemplate.from_folder(folder)
    assert template.decode(row.ids[row.learn].tolist()) == "A model.<|im_end|>Hello!<|im_end|>"
    plain = ChatTemplate.from_folder(folder, "plain")
    [row] = plain.render(two())
    assert plain.decode(row.ids[row.learn].tolist()) == "A model.<|im_end|>Hello!<|im_end|>"


def test_a_base_that_names_no_end_at_all_is_refused(base: Callable[..., Path]) -> None:
    with pytest.raises(BaseModelError, match="no token that ends a text"):
        ChatTemplate.from_folder(base("gpt2", named={}, stops=()))


def test_a_tokenizer_that_writes_spaces_first_gives_the_ids_of_transformers(base: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer

    folder = base("mistral")
    template = ChatTemplate.from_folder(folder)
    [row] = template.render(two())
    theirs = AutoTokenizer.from_pretrained(folder)(template.text(TWO), add_special_tokens=False).input_ids
    assert template.decode(row.ids[row.learn].tolist()).replace(" ", "") == "Amodel.</s>Hello!</s>"
    assert row.ids.tolist() == theirs
