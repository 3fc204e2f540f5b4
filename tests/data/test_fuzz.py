"""Whatever the bytes: an error of ours or rows that add up, never anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewright.data.files import SUFFIXES
from tunewright.data.formats import Reading
from tunewright.data.guess import guess_task
from tunewright.data.inspect import inspect
from tunewright.data.load import find, load
from tunewright.data.prepare import prepare
from tunewright.data.template import ChatTemplate
from tunewright.errors import InputError
from tunewright.example import Message
from tunewright.recipe.schema import Data

FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
quick = settings(max_examples=500, deadline=5000, suppress_health_check=FIXTURES, derandomize=True)
fewer = settings(max_examples=250, deadline=5000, suppress_health_check=FIXTURES, derandomize=True)

words = st.text(max_size=20) | st.sampled_from(
    ["", " ", "{{name}}", "<|im_end|>", "\ud83d", "\0", "\ufdd2", "Ã©", "你好", "{", "{a}"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
COLUMNS = """
instruction input output prompt completion messages conversations Question Complex_CoT Response
chosen rejected system tools history role content from value weight tool_calls text id question
answer label labels sentiment source target en fr translation sentence1 sentence2 review
"""
names = st.sampled_from(COLUMNS.split())
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | words, inner, max_size=5),
    max_leaves=12,
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "robot"]) | scalars, "content": words | nested},
    optional={"weight": scalars, "tool_calls": nested, "name": nested, "reasoning_content": scalars, "from": scalars},
)
row = (
    st.fixed_dictionaries({"messages": st.lists(message, max_size=4)}, optional={"tools": nested, "system": words})
    | st.fixed_dictionaries({"instruction": words, "output": words}, optional={"input": scalars, "history": nested})
    | st.dictionaries(names, nested, max_size=6)
)
pieces = st.sampled_from(
    [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b'"',
        b"\n",
        b"\r",
        b"\t",
        b";",
        b"\\",
        b"null",
        b"1",
        b'"a"',
        b'{"a": 1}',
        b"q,a\n",
        b'{"instruction": "x", "output": "y"}\n',
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\0",
        b"PAR1",
        b"\xc4\xe3",
        b"\xed\xa0\x80",
    ]
)
contents = st.binary(max_size=200) | st.lists(pieces | st.binary(max_size=4), max_size=30).map(b"".join)


TURNS = Reading()
READINGS = (
    Reading("labels"),
    Reading("labels", ("a", "b"), {"1": "a"}),
    Reading("labels", multi_label=True),
    Reading("pairs"),
    Reading("documents"),
)


def attempt(data: Data, reading: Reading = TURNS) -> int | None:
    """Rows read, or None if the data was refused as an input error."""
    try:
        loaded = load(data, *find(data), reading)
        inspect(loaded, data, reading)
    except InputError as error:
        assert str(error) and error.exit_code == 2
        return None
    assert all(_is_sound(chat.messages, reading, loaded.labels) for chat in loaded.chats)
    return len(loaded.chats)


def _is_sound(messages: tuple[Message, ...], reading: Reading, labels: tuple[str, ...]) -> bool:
    """What codecs rely on: the turns of each reading, and labels that are known."""
    if reading.reads == "turns":
        return True
    roles, answer = [m.role for m in messages], messages[-1].content
    if reading.reads == "labels":
        names = json.loads(answer) if reading.multi_label else [answer]
        return roles in (["user", "assistant"], ["user", "user", "assistant"]) and set(names) <= set(labels)
    return roles == (["user", "assistant"] if reading.reads == "pairs" else ["assistant"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=contents)
@quick
def test_any_bytes(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    attempt(Data(train=[str(path)]))
    attempt(Data(train=[str(path)], columns={"question": "q", "answer": "a"}))


@given(one=contents, other=contents, reading=st.sampled_from(READINGS))
@fewer
def test_any_bytes_as_text(tmp_path: Path, one: bytes, other: bytes, reading: Reading) -> None:
    (tmp_path / "a.pos").write_bytes(one)
    (tmp_path / "a.neg").write_bytes(other)
    paths = [str(tmp_path / "a.pos"), str(tmp_path / "a.neg")]
    attempt(Data(train=paths), reading)
    attempt(Data(train=paths[:1], target=paths[1:]), reading)


@given(rows=st.lists(row, min_size=1, max_size=6), array=st.booleans())
@quick
def test_any_rows(tmp_path: Path, rows: list[Any], array: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows) if array else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    for how in ("auto", "messages", "instruction"):
        found = attempt(Data(train=[str(path)], format=how))  # type: ignore[arg-type]
        assert found in (None, len(rows))


labelled = st.dictionaries(st.sampled_from(["text", "review", "label", "sentiment", "sentence1"]), scalars, max_size=3)
told = st.dictionaries(st.sampled_from(["source", "target", "en", "fr", "translation", "text"]), scalars, max_size=3)
some_labels = st.sampled_from(["a", "b", "", " a", 1, 1.0, True, ["a"], None])
texts = st.fixed_dictionaries({"text": words, "label": some_labels})


@given(
    rows=st.lists(texts, min_size=1, max_size=8) | st.lists(labelled | told | row, min_size=1, max_size=4),
    reading=st.sampled_from(READINGS),
)
@quick
def test_any_rows_for_any_task(tmp_path: Path, rows: list[Any], reading: Reading) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = Data(train=[str(path)])
    assert attempt(data, reading) in (None, len(rows))
    try:
        assert all(guess_task(data))
    except InputError as error:
        assert str(error) and error.exit_code == 2


@given(
    rows=st.lists(row, min_size=1, max_size=5),
    most=st.integers(8, 60),
    how=st.sampled_from(["stop", "drop", "truncate"]),
)
@fewer
def test_whatever_is_prepared_adds_up(
    tmp_path: Path, chatml: ChatTemplate, rows: list[Any], most: int, how: Any
) -> None:
    path = tmp_path / "a.jsonl"
    sound = [{"instruction": f"Q {n} {n * n}", "output": f"A {n * 7}"} for n in range(12)]
    path.write_text("\n".join(map(json.dumps, sound + rows)), encoding="utf-8")
    data = Data(train=[str(path)], too_long=how, max_length=most, allow_unlearned=True, variables={"name": "Zed"})
    try:
        done = prepare(data, 0, lambda labels: chatml, 512, cache=False)
    except InputError:
        return
    ledger = done.ledger
    assert ledger["rows_in"] == len(sound) + len(rows) == ledger["kept"] + sum(ledger["left_out"].values())
    assert all(r.length <= most and r.learned for r in [*done.train, *done.held_out])


@given(
    typed=st.lists(
        st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im", "_end|>", "\n", "a", " ", "<", "你"]), max_size=12
    )
)
@fewer
def test_nothing_typed_becomes_structure(chatml: ChatTemplate, typed: list[str]) -> None:
    from tunewright.example import Chat, Message, Origin

    text = "".join(typed)
    [made] = chatml.render(Chat((Message("user", text), Message("assistant", text + "!", True)), Origin("f", 1, 1)))
    assert sum(int(i) in chatml.stop_ids for i in made.ids) == 2
    assert chatml.decode(made.ids.tolist()).count(text + "<|im_end|>") >= 1
