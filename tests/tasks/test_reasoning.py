"""A chain of thought is written as the base writes it, learned or not as asked, and never cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import write_tiny_tokenizer
from tests.tiny import quick

from tunewright import api, rundir
from tunewright.data.load import find, load
from tunewright.data.show import bracketed
from tunewright.data.template import ChatTemplate
from tunewright.data.thinking import Marks, Said
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Message, Origin
from tunewright.recipe.load import changed
from tunewright.recipe.load import load as load_recipe
from tunewright.recipe.schema import Data, Recipe
from tunewright.report.page import html
from tunewright.tasks import TASKS
from tunewright.train.events import Listener
from tunewright.train.ready import get_ready

HERE = Origin("rows.jsonl", 3, 3)

# Keeps only the reasoning behind the last question, reads it from the text too, and writes an empty block for none.
FORGETS = """{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set thought = m.reasoning_content or '' %}{% set said = m.content %}
        {%- if not thought and '</think>' in said %}
            {%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set said = said.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + said.lstrip('\\n') }}
        {%- else %}{{- said }}{%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

# Always drops reasoning, wherever it stands, and opens it in the prompt.
OPENS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ 'Assistant: ' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% else %}{{ 'User: ' + m.content }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: <think>\\n' }}{% endif %}"
)

# Always drops reasoning, and its prompt does not open it.
DROPS = OPENS.replace("<think>\\n", "")

# Keeps all reasoning, opens it in the prompt, and says what is learned.
KEEPS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% generation %}"
    "{{ (m.reasoning_content or '') + '\\n</think>\\n\\n' + m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)

# Other marks, which are special tokens.
MARKS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ 'A: ' + ('[THINK]' + m.thinking + '[/THINK]' if m.thinking else '') + m.content + '<|im_end|>' }}"
    "{% else %}{{ 'U: ' + m.content + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)

# Knows nothing of reasoning.
PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

ALL = {"forgets": FORGETS, "opens": OPENS, "drops": DROPS, "keeps": KEEPS, "marks": MARKS, "plain": PLAIN}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tokenizers import AddedToken, Tokenizer

    made = {}
    for name, text in ALL.items():
        made[name] = folder = tmp_path_factory.mktemp(name)
        write_tiny_tokenizer(folder)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in ("[THINK]", "[/THINK]")])
        tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in ("<think>", "</think>")])
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    return made


def template(folder: Path, learn_thinking: bool = True) -> ChatTemplate:
    return ChatTemplate.from_folder(folder, learn_thinking=learn_thinking)


def chat(*answers: tuple[str | None, str]) -> Chat:
    """One question to each (thinking, answer)."""
    turns = [(Message("user", "Why?"), Message("assistant", said, True, thought)) for thought, said in answers]
    return Chat(tuple(message for turn in turns for message in turn), HERE)


ONE = chat(("I weigh it.", "So it is."))
TWO = chat(("First thought.", "One."), ("Second thought.", "Two."))

WRITTEN = {
    "forgets": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    "⟦<think>\nI weigh it.\n</think>\n\nSo it is.<|im_end|>⟧\n",
    "opens": "User: Why?Assistant: <think>\n⟦I weigh it.\n</think>\n\nSo it is.<|im_end|>⟧",
    "drops": "User: Why?Assistant: ⟦<think>\nI weigh it.\n</think>\n\nSo it is.<|im_end|>⟧",
    "keeps": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    "⟦I weigh it.\n</think>\n\nSo it is.<|im_end|>⟧\n",
    "marks": "U: Why?\nA: ⟦[THINK]I weigh it.[/THINK]So it is.<|im_end|>⟧",
    "plain": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    "⟦<think>\nI weigh it.\n</think>\n\nSo it is.<|im_end|>⟧\n",
}


@pytest.mark.parametrize("name", ALL)
def test_reasoning_is_written_in_the_base_s_own_way(folders: dict[str, Path], name: str) -> None:
    base = template(folders[name])
    [row] = base.render(ONE)
    assert bracketed(row, base) == WRITTEN[name]


@pytest.mark.parametrize("name", ALL)
def test_only_the_answer_is_learned_where_thinking_is_not(folders: dict[str, Path], name: str) -> None:
    whole, base = template(folders[name]), template(folders[name], learn_thinking=False)
    [row], [other] = base.render(ONE), whole.render(ONE)
    shown = bracketed(row, base)
    assert shown.rstrip("\n").endswith("⟦So it is.<|im_end|>⟧") and shown.count("⟦") == 1
    assert row.ids.tolist() == other.ids.tolist(), "what is learned must not change the ids"
    assert row.learned < other.learned and base.sha256 != whole.sha256


@pytest.mark.parametrize("learn_thinking", [True, False])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", ["Two.", " space", "\n\nlines", "<b>", "！好", "1 </think> 2"])
def test_training_ids_are_the_prompt_s_and_the_answer_s(
    folders: dict[str, Path], name: str, answer: str, learn_thinking: bool
) -> None:
    base = template(folders[name], learn_thinking)
    asked = chat(("First thought.", answer), ("Second\n\nthought.", answer))
    rows = base.render(asked)
    for turn, row in zip((1, 3), rows if len(rows) == 2 else rows * 2, strict=True):
        prompt = base.prompt_ids(asked.messages[:turn])
        assert row.ids[: len(prompt)].tolist() == prompt and not row.learn[: len(prompt)][-1]
        behind = base.decode(row.ids[len(prompt) :].tolist())
        thought = asked.messages[turn].thinking or ""
        assert behind.find(thought) in range(9), "the reasoning follows the prompt"
        assert bool(row.learn[len(prompt)]) is learn_thinking
    for row in rows:
        ends = np.flatnonzero(np.diff(np.append(row.learn, False).astype(int)) == -1)
        assert len(ends) == (2 if len(rows) == 1 else 1) and all(row.ids[end] in base.stop_ids for end in ends)


@pytest.mark.parametrize(("name", "rows"), [("forgets", 2), ("opens", 2), ("drops", 2), ("keeps", 1), ("plain", 1)])
def test_old_reasoning_is_context_only_where_the_base_keeps_it(
    folders: dict[str, Path], name: str, rows: int
) -> None:
    base = template(folders[name])
    rendered = base.render(TWO)
    assert len(rendered) == rows
    last = bracketed(rendered[-1], base)
    assert ("First thought." in last) is (rows == 1) and "Second thought." in last


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("learn_thinking", [True, False])
def test_a_row_without_reasoning_is_learned_as_it_was(
    folders: dict[str, Path], name: str, learn_thinking: bool
) -> None:
    base = template(folders[name], learn_thinking)
    [row] = base.render(chat((None, "Plain.")))
    [same] = template(folders[name]).render(chat((None, "Plain.")))
    assert row.ids.tolist() == same.ids.tolist() and row.learn.tolist() == same.learn.tolist()
    prompt = base.prompt_ids([Message("user", "Why?")])
    assert row.ids[: len(prompt)].tolist() == prompt and row.learn[len(prompt)]


def test_a_prompt_that_opens_reasoning_is_answered_by_closing_it(folders: dict[str, Path]) -> None:
    base = template(folders["opens"])
    [row] = base.render(chat((None, "Plain.")))
    assert bracketed(row, base) == "User: Why?Assistant: <think>\n⟦\n</think>\n\nPlain.<|im_end|>⟧"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("learn_thinking", [True, False])
def test_reasoning_typed_into_the_answer_is_reasoning(
    folders: dict[str, Path], name: str, learn_thinking: bool
) -> None:
    base = template(folders[name], learn_thinking)
    typed = chat((None, "<think>\nI weigh it.\n</think>\n\nSo it is."))
    [row], [same] = base.render(typed), base.render(ONE)
    assert row.ids.tolist() == same.ids.tolist() and row.learn.tolist() == same.learn.tolist()
    again = Message("user", "And?")
    assert base.prompt_ids([*typed.messages, again]) == base.prompt_ids([*ONE.messages, again])


def test_reasoning_that_never_ends_is_named_where_its_end_matters(folders: dict[str, Path]) -> None:
    open_end = chat((None, "<think>\nI weigh it, and"))
    template(folders["plain"]).render(open_end)
    with pytest.raises(DataError, match=r"never ends(.|\n)*rows.jsonl:3, message 2(.|\n)*data.learn_thinking=true"):
        template(folders["plain"], learn_thinking=False).render(open_end)


def test_a_border_that_cannot_be_told_names_base_and_row(folders: dict[str, Path], tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    backwards = PLAIN.replace("m.content", "m.content + ' because ' + (m.thinking or '')")
    (tmp_path / "chat_template.jinja").write_text(backwards, encoding="utf-8")
    with pytest.raises(BaseModelError) as caught:
        template(tmp_path, learn_thinking=False).render(ONE)
    assert str(tmp_path) in str(caught.value) and "rows.jsonl:3, message 2" in str(caught.value)


def test_what_the_template_does_with_reasoning_is_said(folders: dict[str, Path]) -> None:
    notes = {name: " ".join(template(folders[name]).notes) for name in ALL}
    assert "no place for reasoning" in notes["plain"] and "drops reasoning" in notes["drops"]
    assert "opens the reasoning" in notes["opens"] and "rewrites" in notes["forgets"]
    assert "reasoning" not in notes["marks"]


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("forgets", Marks()), ("plain", Marks()), ("drops", Marks()), ("opens", Marks(opened=True)),
        ("keeps", Marks(opened=True)), ("marks", Marks("[THINK]", "[/THINK]")),
    ],
)  # fmt: skip
def test_the_marks_are_those_of_the_template(folders: dict[str, Path], name: str, marks: Marks) -> None:
    assert template(folders[name]).marks == marks


@pytest.mark.parametrize("name", ALL)
def test_what_was_learned_is_told_apart_again_when_generated(folders: dict[str, Path], name: str) -> None:
    base = template(folders[name])
    [row] = base.render(ONE)
    written = row.ids[row.learn].tolist()[:-1]
    assert base.said(written) == Said("I weigh it.", "So it is.", True)
    assert base.said(written[:-6]).thinking, "half of it is still reasoning"


@pytest.mark.parametrize("name", ALL)
def test_cutting_leaves_reasoning_whole_also_where_it_is_context(folders: dict[str, Path], name: str) -> None:
    base = template(folders[name], learn_thinking=False)
    long = Chat((Message("user", "river " * 60), Message("assistant", "Two.", True, "A thought to keep. " * 4)), HERE)
    rows = base.render(long)
    need = template(folders[name]).render(long)[0].learned
    for most in range(need + 1, need + 9):
        cut = base.cut(long, rows, most)
        assert len(cut.rows) == 1 and cut.rows[0].length <= most
        assert base.decode(cut.rows[0].ids.tolist()).count("A thought to keep.") == 4
        assert cut.rows[0].learned == rows[0].learned
    assert base.cut(long, rows, need).rows == (), "refused by length, never cut"


def test_a_training_that_would_cut_reasoning_leaves_the_row_out(folders: dict[str, Path], tmp_path: Path) -> None:
    from tunewright.data.prepare import prepare

    rows = [
        {"Question": f"Question {n}? " + "word " * 30, "Complex_CoT": "thought " * (5 if n else 90), "Response": "Yes."}
        for n in range(12)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = Data(train=[str(file)], max_length=80, too_long="truncate", learn_thinking=False)
    base = template(folders["plain"], learn_thinking=False)
    made = prepare(data, 0, lambda labels: base, 512)
    assert made.ledger["left_out"] == {"answer_too_long": 1} and made.ledger["kept"] == 11
    assert made.ledger["learned_tokens"] == sum(row.learned for side in (made.train, made.held_out) for row in side)
    for row in (*made.train, *made.held_out):
        assert base.decode(row.ids.tolist()).count("thought ") == 5


def test_a_chain_of_thought_is_read_from_its_columns(shared: Path) -> None:
    file = shared / "medical_cot" / "medical_o1_demo.json" if (shared / "medical_cot").is_dir() else (
        shared / "data" / "medical_cot" / "medical_o1_demo.json"
    )
    data = Data(train=[str(file)])
    loaded = load(data, *find(data))
    assert len(loaded.chats) == 198 and loaded.format_name == "reasoning"
    assert "kept beside the row" in loaded.format_reason and "options" in loaded.format_reason
    written = json.loads(file.read_text(encoding="utf-8"))
    for chat_, row in zip(loaded.chats, written, strict=True):
        question, answer = chat_.messages
        assert (question.content, answer.thinking, answer.content) == (
            row["Question"], row["Complex_CoT"], row["Response"],
        )  # fmt: skip


def test_the_recipe_s_key_reaches_the_rows(folders: dict[str, Path]) -> None:
    recipe = changed(Recipe(), {"data.train": ["x"], "data.learn_thinking": False})
    task = TASKS["chat"]
    codec = task.codec(folders["plain"], recipe)
    assert codec.render_many([ONE])[0][0].learned < template(folders["plain"]).render(ONE)[0].learned
    question = task.question(ONE, codec)
    assert question is not None and (question.thinking, question.reference) == ("I weigh it.", "So it is.")
    typed = task.question(chat((None, "<think>\nI weigh it.\n</think>\n\nSo it is.")), codec)
    assert typed is not None and (typed.thinking, typed.reference) == ("I weigh it.", "So it is.")


# -- through a whole run ---------------------------------------------------------------------------------------------


def reasoning_rows(path: Path, count: int = 16) -> Path:
    rows = [
        {
            "Question": f"Is the river number {n} older than the bridge?",
            "Complex_CoT": f"The river was there before number {n} was built. " * (1 + n % 3),
            "Response": f"Yes, by {n} years.",
            "source": "made up",
        }
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("learn_thinking", [True, False])
def test_a_run_learns_what_was_asked_and_shows_the_reasoning_apart(
    tiny_base: Path, home: Path, learn_thinking: bool
) -> None:
    reasoning_rows(home / "rows.jsonl")
    asked = f"data.learn_thinking={str(learn_thinking).lower()}"
    run = api.train("rows.jsonl", quick(tiny_base, asked, "checks=[number]", "train.max_steps=3")).folder
    shown = run.file(rundir.SHOWN).read_text(encoding="utf-8")
    assert ("⟦<think>" in shown) is learn_thinking and ("</think>\n\n⟦Yes" in shown) is not learn_thinking
    evaluation = rundir.read_json(run.file(rundir.EVALUATION))
    row = evaluation["rows"][0]
    assert row["reference"].startswith("Yes, by") and row["reference_thinking"].startswith("The river was there")
    assert "thinking" in row["after"] and "<think>" not in row["after"]["text"]
    assert evaluation["after"]["finished_thinking"]["n"] == 2 and evaluation["after"]["check: number"]["n"] == 2
    page = html(run)
    assert "The river was there before" in page and "Yes, by" in page


@pytest.mark.parametrize("learn_thinking", [True, False])
def test_generated_answers_have_room_for_reasoning(tiny_base: Path, home: Path, learn_thinking: bool) -> None:
    given = quick(tiny_base, "evaluate.max_new_tokens=auto", f"data.learn_thinking={str(learn_thinking).lower()}")
    for thoughts, most in ((5, 256), (30, 1024)):
        thought = "Number {n} is so. " * thoughts
        rows = [
            {"Question": f"Why {n}?", "Complex_CoT": thought.format(n=n), "Response": "So."} for n in range(16)
        ]
        Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        ready = get_ready(load_recipe("rows.jsonl", given), Listener())
        limit = int(ready.recipe.evaluate.max_new_tokens)
        assert 256 <= limit <= most and limit >= max(row.learned for row in ready.prepared.held_out)


@pytest.fixture
def long_base(tiny_base: Path, tmp_path: Path) -> Path:
    """The tiny base with room for rows of thousands of tokens."""
    folder = tmp_path / "long-base"
    shutil.copytree(tiny_base, folder)
    for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: 8192}), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_medical_rows_train_as_they_are(shared: Path, long_base: Path, home: Path) -> None:
    file = shared / "data" / "medical_cot" / "medical_o1_demo.json"
    given = [
        "data.limit=24", "lora.rank=16", "lora.targets=[q_proj, v_proj]", "train.batch_size=8", "train.epochs=1",
    ]  # fmt: skip
    run = api.train(file, quick(long_base, *given)).folder
    ledger = rundir.read_json(run.file(rundir.LEDGER))
    assert (ledger["rows_in"], ledger["kept"], ledger["left_out"]) == (24, 24, {})
    read = load(Data(train=[str(file)], limit=24), *find(Data(train=[str(file)])))
    base = template(long_base)
    assert ledger["tokens"] == sum(row.length for rows in base.render_many(read.chats) for row in rows)
    sizes = sorted(row.learned for rows in base.render_many(read.chats) for row in rows)
    most = f"data.max_length={sizes[12]}"
    with pytest.raises(DataError, match="longer than"):
        get_ready(load_recipe(str(file), quick(long_base, *given, most)), Listener())
    cut = get_ready(load_recipe(str(file), quick(long_base, *given, most, "data.too_long=truncate")), Listener())
    assert cut.prepared.ledger["left_out"]["answer_too_long"] >= 12, "never cut into its reasoning"
    assert {row.learned for row in cut.prepared.train} <= set(sizes)


@pytest.mark.slow
def test_gsm8k_is_scored_by_its_final_numbers(shared: Path, long_base: Path, home: Path) -> None:
    file = shared / "data" / "gsm8k" / "test.jsonl"
    given = ["data.limit=40", "data.columns.question=question", "data.columns.answer=answer", "checks=[number]"]
    run = api.train(file, quick(long_base, *given, "evaluate.rows=4", "train.max_steps=2")).folder
    evaluation = rundir.read_json(run.file(rundir.EVALUATION))
    assert evaluation["after"]["check: number"]["n"] == 4, "every reference of the file ends in a number"
    assert "finished_thinking" not in evaluation["after"]
