"""Rows to be answered are read as training rows are, with or without what is wanted."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.asked import asking, is_blank, line_column
from tunewright.data.files import Source
from tunewright.data.formats import Reading
from tunewright.data.read import Row, read
from tunewright.data.stream import stream
from tunewright.errors import DataError
from tunewright.example import Origin
from tunewright.recipe.schema import Data

LABELS = Reading("labels", ("bad", "good"))
SEVERAL = Reading("labels", ("bad", "good"), multi_label=True)
PAIRS, TURNS = Reading("pairs"), Reading("turns")


def rows(*fields: dict[str, Any]) -> list[Row]:
    return [Row(one, Origin("new.jsonl", number, number)) for number, one in enumerate(fields, start=1)]


def asked(fields: dict[str, Any], reading: Reading, **data: Any) -> list[tuple[str, str]]:
    """What is said before the answer, and by whom."""
    given = rows(fields)
    [chat] = asking(given, Data(**data), reading).chats(given)
    assert chat.last_answer() == len(chat.messages) - 1
    return [(message.role, message.content) for message in chat.messages[:-1]]


OWN_TEXT = {"columns": {"text": "body", "label": "y"}}
OWN_SOURCE = {"columns": {"source": "fr", "target": "en"}}
GIVEN: dict[str, tuple[dict[str, Any], Reading, dict[str, Any], list[str]]] = {
    "a text": ({"text": "A film."}, LABELS, {}, ["A film."]),
    "a text with its label": ({"review": "A film.", "label": "good"}, LABELS, {}, ["A film."]),
    "a label that nobody knows": ({"text": "A film.", "label": -1}, LABELS, {}, ["A film."]),
    "a label that is missing": ({"text": "A film.", "label": None}, LABELS, {}, ["A film."]),
    "several labels": ({"text": "A film.", "labels": ["odd"]}, SEVERAL, {}, ["A film."]),
    "two texts": ({"premise": "A.", "hypothesis": "B."}, LABELS, {}, ["A.", "B."]),
    "the run's own column": ({"body": "A film.", "text": "x"}, LABELS, OWN_TEXT, ["A film."]),
    "the only column of text": ({"n": 1, "Zeile": "A film."}, LABELS, {}, ["A film."]),
    "a question for a label": ({"prompt": "A film."}, LABELS, {}, ["A film."]),
    "a source": ({"source": "Bread"}, PAIRS, {}, ["Bread"]),
    "a source and a target": ({"en": "Bread", "fr": "Pain"}, PAIRS, {}, ["Bread"]),
    "a source in its language": ({"id": "a", "en": "Bread"}, PAIRS, {}, ["Bread"]),
    "the hub's translations": ({"translation": {"en": "Bread", "fr": "Pain"}}, PAIRS, {}, ["Bread"]),
    "the run's own source": ({"en": "Bread", "fr": "Pain"}, PAIRS, OWN_SOURCE, ["Pain"]),
    "an instruction for a pair": ({"instruction": "Say", "input": "Bread"}, PAIRS, {}, ["Say\nBread"]),
    "an instruction": ({"instruction": "Say", "input": "Hi", "output": "x"}, TURNS, {}, ["Say\nHi"]),
    "a prompt": ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, TURNS, {}, ["Hi"]),
    "a prompt of messages": ({"prompt": [{"role": "user", "content": "Hi"}]}, TURNS, {}, ["Hi"]),
    "a question": ({"question": "Why?", "answer": "So."}, TURNS, {}, ["Why?"]),
    "a question with reasoning": ({"Question": "Why?", "Complex_CoT": "Hm", "Response": "So."}, TURNS, {}, ["Why?"]),
    "the run's own prompt": ({"a": "1", "b": "2"}, TURNS, {"prompt": "{a} and {b}", "answer": "{c}"}, ["1 and 2"]),
    "a placeholder": ({"text": "I am {{name}}"}, TURNS, {"variables": {"name": "Wren"}}, ["I am Wren"]),
}  # fmt: skip


@pytest.mark.parametrize("case", GIVEN)
def test_what_is_asked(case: str) -> None:
    fields, reading, data, texts = GIVEN[case]
    assert asked(fields, reading, **data) == [("user", text) for text in texts]


def test_a_conversation_ends_with_what_the_model_is_told_last() -> None:
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", "So.")]
    fields = {"messages": [{"role": role, "content": content} for role, content in turns]}
    assert asked(fields, TURNS, system="Be brief.") == [("system", "Be brief."), *turns[:3]]


def test_a_row_has_as_many_texts_as_the_run_was_trained_on() -> None:
    one, two = {"text": "A."}, {"premise": "A.", "hypothesis": "B."}
    for texts, fields in ((1, one), (2, two)):
        assert len(asked(fields, Reading("labels", ("bad", "good"), texts=texts))) == texts
    for texts, fields, said in ((2, one, "has one text"), (1, two, "has two texts")):
        with pytest.raises(DataError, match=said) as caught:
            asked(fields, Reading("labels", ("bad", "good"), texts=texts))
        assert caught.value.where == "new.jsonl:1"
    assert asked(two, Reading("labels", ("bad", "good"), texts=1), columns={"text": "premise"}) == [("user", "A.")]


def test_what_is_wanted_is_put_aside_and_said() -> None:
    given = rows({"text": "A film.", "label": "good"})
    found = asking(given, Data(), LABELS)
    assert found.unused == ("label",) and asking(rows({"text": "A film."}), Data(), LABELS).unused == ()
    assert found.chats(given) == asking(given, Data(), LABELS).chats(rows({"text": "A film.", "label": "bad"}))


@pytest.mark.parametrize(
    ("fields", "reading"),
    [({"text": "a", "review": "b"}, LABELS), ({"n": 1}, LABELS), ({"a": "x", "b": "y"}, PAIRS), ({"n": 1}, TURNS)],
)
def test_columns_that_say_nothing_are_asked_about(fields: dict[str, Any], reading: Reading) -> None:
    with pytest.raises(DataError, match=r"data\.columns") as error:
        asking(rows(fields), Data(), reading)
    assert error.value.command == "tunewright predict --help"


def test_a_later_row_without_the_column_is_named() -> None:
    found = asking(rows({"text": "a"}), Data(), LABELS)
    with pytest.raises(DataError, match=r"new\.jsonl:2"):
        found.chats(rows({"text": "a"}, {"txt": "b"}))


def test_a_line_of_text_stands_for_the_column_that_is_read() -> None:
    assert line_column(Data()) == "text"
    assert line_column(Data(columns={"source": "en", "target": "fr"})) == "en"
    assert line_column(Data(prompt="Review: {r}\nGood?", answer="{l}")) == "r"
    with pytest.raises(DataError, match=r"cannot fill \{a\}, \{b\}"):
        line_column(Data(prompt="{a} and {b}", answer="{c}"))


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_row_without_text_is_blank(text: str) -> None:
    given = rows({"text": text}, {"text": "a"})
    assert [is_blank(chat) for chat in asking(given, Data(), LABELS).chats(given)] == [True, False]


FILES = {
    "a.jsonl": '{"text": "ä"}\n\n{"text": "b", "n": 1}\r\n', "a.json": '[{"text": "ä"},\n {"text": "b"}]',
    "b.json": '{"text": "ä"}\n{"text": "b"}\n', "c.json": '{\n "text": "ä"}\n{"text": "b"}',
    "a.csv": '\ufefftext;n\n"ä\nb";1\n\nc;2\n', "b.csv": "text,n\r\nä,1\r\n", "a.tsv": "text\tn\nä\t1\n",
}  # fmt: skip
BROKEN = {
    "a.jsonl": '{"text": "a"}\n{"text": }\n', "b.jsonl": '{"text": "a"}\n3\n', "c.jsonl": '{"a": 1, "a": 2}\n',
    "d.jsonl": '{"text": "a"}\n{"text": "b\0"}\n', "a.csv": "a,b\n1\n", "b.csv": "a,a\n1,2\n", "c.csv": 'a\n"x"y\n',
    "d.csv": "a\n", "e.jsonl": "\n", "a.json": "[{}, 3]",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_stream_gives_the_rows_of_the_whole_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    assert list(stream(Source(path, name))) == list(read([Source(path, name)]))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_the_same_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name].encode())
    with pytest.raises(DataError) as whole:
        list(read([Source(path, name)]))
    with pytest.raises(DataError) as streamed:
        list(stream(Source(path, name)))
    assert str(streamed.value) == str(whole.value)


def test_lines_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\n\ntwo\u2028half\n \n\n".encode())
    got = [(row.fields["text"], row.origin.line) for row in stream(Source(path, "a.txt"))]
    assert got == [("one", 1), ("", 2), ("two\u2028half", 3)]
    path.write_bytes("Stra\xdfe\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        list(stream(Source(path, "a.txt")))


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(20_000):
            file.write(f'{{"text": "{"the river and the bridge " * 20}", "n": {number}}}\n')
    source = Source(path, "large.jsonl")
    found = asking(list(islice(stream(source), 10)), Data(), LABELS)
    tracemalloc.start()
    rows, count = stream(source), 0
    while piece := list(islice(rows, 500)):
        count += len(found.chats(piece))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and path.stat().st_size > 10_000_000 > 5 * peak
