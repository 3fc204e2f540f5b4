"""Labelled rows: which column is the label, how a label is written, and what stops a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.check import nothing_to_learn
from tunewright.data.formats import Reading
from tunewright.data.inspect import inspect
from tunewright.data.load import Loaded, find, load
from tunewright.errors import DataError
from tunewright.example import Finding
from tunewright.recipe.schema import Data

SUBJECTS = ["rivers", "bread", "bridges", "moss", "tides", "lamps", "wool", "maps", "bees", "clay", "snow", "rust"]
LABELS = Reading("labels")


def sound(count: int = 60, labels: tuple[Any, ...] = ("bad", "good")) -> list[dict[str, Any]]:
    return [
        {"text": f"Fact {n} on {SUBJECTS[n % 12]} and {SUBJECTS[n % 7]} is {n * n}.", "label": labels[n % len(labels)]}
        for n in range(count)
    ]


def put(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def loaded(folder: Path, rows: list[dict[str, Any]], reading: Reading = LABELS, **data: Any) -> Loaded:
    given = Data(train=[put(folder, rows)], **data)
    return load(given, *find(given), reading)


def turns(done: Loaded) -> list[list[tuple[str, str, bool]]]:
    return [[(m.role, m.content, m.learn) for m in chat.messages] for chat in done.chats]


def refused(folder: Path, rows: list[dict[str, Any]], reading: Reading = LABELS, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        loaded(folder, rows, reading, **data)
    return str(caught.value)


def found(folder: Path, rows: list[dict[str, Any]], reading: Reading = LABELS, **data: Any) -> dict[str, Finding]:
    done = loaded(folder, rows, reading, **data)
    return {finding.code: finding for finding in inspect(done, Data(**data), reading)}


# -- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"text": "T", "label": "L"},
        {"review": "T", "sentiment": "L"},
        {"Sentence": "T", "Class": "L"},
        {"id": 7, "title": "x", "content": "T", "category": "L"},
        {"headline": "T", "topic": "L"},
        {"utterance_en": "T", "intent": "L"},
        {"instruction": "T", "output": "L"},
        {"messages": [{"role": "user", "content": "T"}, {"role": "assistant", "content": "L"}]},
    ],
)
def test_text_and_label_are_found_by_name(tmp_path: Path, row: dict[str, Any]) -> None:
    done = loaded(tmp_path, [row])
    assert turns(done) == [[("user", "T", False), ("assistant", "L", True)]] and done.labels == ("L",)
    assert done.format_reason


@pytest.mark.parametrize(
    ("one", "other"), [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "passage")]
)
def test_a_pair_of_texts_is_two_turns(tmp_path: Path, one: str, other: str) -> None:
    done = loaded(tmp_path, [{one: "A", other: "B", "label": "L"}])
    assert turns(done) == [[("user", "A", False), ("user", "B", False), ("assistant", "L", True)]]
    assert one in done.format_reason and other in done.format_reason


def test_columns_of_the_recipe_win(tmp_path: Path) -> None:
    row = {"text": "no", "label": "no", "a": "A", "b": "B", "c": "C"}
    done = loaded(tmp_path, [row], columns={"text": "a", "pair": "b", "label": "c"})
    assert [content for _role, content, _learn in turns(done)[0]] == ["A", "B", "C"]
    assert done.chats[0].origin.extra == {"text": "no", "label": "no"}


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"text": "T", "review": "R", "label": "L"}, "data.columns.text=review data.columns.label=label"),
        ({"text": "T", "label": "L", "topic": "M"}, "data.columns.text=text data.columns.label=topic"),
    ],
)
def test_two_readings_are_shown_with_the_words_that_choose_one(tmp_path: Path, row: dict[str, Any], shown: str) -> None:
    message = refused(tmp_path, [row])
    assert "2 ways" in message and shown in message and "rows.jsonl:1" in message
    words = dict(word.removeprefix("data.columns.").split("=") for word in shown.split())
    assert loaded(tmp_path, [row], columns=words).format_name == "labelled"


@pytest.mark.parametrize(
    ("row", "data", "expected"),
    [
        ({"a": "x", "b": "y", "c": "z"}, {}, "a, b, c"),
        ({"text": "T", "label": "L"}, {"columns": {"label": "labell"}}, "did you mean 'label'"),
        ({"text": "T", "label": "L"}, {"columns": {"question": "text"}}, "data.columns.question"),
        ({"text": ["T"], "label": "L"}, {}, "holds a list, not text"),
    ],
)
def test_columns_that_cannot_be_read(tmp_path: Path, row: dict[str, Any], data: dict[str, Any], expected: str) -> None:
    assert expected in refused(tmp_path, [row], **data)


def test_a_conversation_is_no_labelled_row(tmp_path: Path) -> None:
    said = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    assert "task=chat" in refused(tmp_path, [{"messages": said}])


# -- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "B"], ("B", "a", "b")),
        ([10, 9, 2], ("2", "9", "10")),
        ([1.0, 0, "2.0"], ("0", "1", "2")),
        ([True, False], ("false", "true")),
        (["3.10", "3.9"], ("3.10", "3.9")),
    ],
)
def test_labels_are_numbered_in_the_order_of_their_values(
    tmp_path: Path, values: list[Any], expected: tuple[str, ...]
) -> None:
    done = loaded(tmp_path, [{"text": f"T{n}", "label": value} for n, value in enumerate(values)])
    assert done.labels == expected
    assert {chat.messages[-1].content for chat in done.chats} == set(expected)


def test_better_names_keep_the_numbers_of_the_data(tmp_path: Path) -> None:
    rows = [{"text": "T", "label": value} for value in (1, 0, 2.0)]
    done = loaded(tmp_path, rows, Reading("labels", names={"0": "terrible", "1": "bad", "2": "fine"}))
    assert done.labels == ("terrible", "bad", "fine")
    assert [chat.messages[-1].content for chat in done.chats] == ["bad", "terrible", "fine"]


def test_given_labels_keep_their_order_and_may_be_written_as_their_numbers(tmp_path: Path) -> None:
    given = Reading("labels", ("no", "maybe", "yes"))
    done = loaded(tmp_path, [{"text": "T", "label": value} for value in ("yes", "no")], given)
    assert done.labels == ("no", "maybe", "yes") and done.chats[0].messages[-1].content == "yes"
    numbered = loaded(tmp_path, [{"text": "T", "label": value} for value in (2, 0)], given)
    assert [c.messages[-1].content for c in numbered.chats] == ["yes", "no"]
    assert "numbers from 0 to 2" in numbered.format_reason
    order = loaded(tmp_path, [{"text": "T", "label": value} for value in (1, 0)], Reading("labels", ("1", "0")))
    assert [c.messages[-1].content for c in order.chats] == ["1", "0"]  # the labels are these numbers
    assert "'3' is not among classify.labels" in refused(tmp_path, [{"text": "T", "label": 3}], given)


@pytest.mark.parametrize(
    "value", [["b", "a"], "a, b", '["a", "b"]', ["a", "b", "a"]], ids=["list", "commas", "json", "twice"]
)
def test_several_labels_stand_in_the_order_of_the_labels(tmp_path: Path, value: Any) -> None:
    many = Reading("labels", multi_label=True)
    rows = [{"text": "T", "labels": value}, {"text": "U", "labels": []}, {"text": "V", "labels": "c"}]
    done = loaded(tmp_path, rows, many)
    assert [chat.messages[-1].content for chat in done.chats] == ['["a", "b"]', "[]", '["c"]']
    assert done.labels == ("a", "b", "c")


def test_a_column_of_0_and_1_to_each_label(tmp_path: Path) -> None:
    many = Reading("labels", multi_label=True)
    rows = [
        {"id": 0, "text": "T", "rude": 1, "threat": "0"}, {"id": 1, "text": "U", "rude": 0, "threat": False},
        {"id": 1, "text": "V", "rude": 1.0, "threat": "true"},
    ]  # fmt: skip
    done = loaded(tmp_path, rows, many)
    assert [chat.messages[-1].content for chat in done.chats] == ['["rude"]', "[]", '["rude", "threat"]']
    assert done.labels == ("rude", "threat") and "a 0 or 1 for each label in rude, threat" in done.format_reason
    test = put(tmp_path, [{"text": "T", "rude": 1, "threat": 0}, {"text": "U", "rude": 2, "threat": 0}], "test.jsonl")
    message = refused(tmp_path, rows, many, validation=[test])
    assert "test.jsonl:2" in message and "'rude' is 2" in message


def test_a_list_where_a_row_has_one_label_says_which_key_it_wants(tmp_path: Path) -> None:
    assert "classify.multi_label=true" in refused(tmp_path, [{"text": "T", "label": ["a", "b"]}])


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_a_missing_label_stops_at_its_row(tmp_path: Path, value: Any) -> None:
    message = refused(tmp_path, [*sound(3), {"text": "T", "label": value}])
    assert "no label" in message and "rows.jsonl:4" in message
    del (absent := {"text": "T", "label": value})["label"]
    assert "rows.jsonl:4" in refused(tmp_path, [*sound(3), absent])


def test_a_quantity_is_no_label(tmp_path: Path) -> None:
    message = refused(tmp_path, [{"text": "T", "label": 0.37}])
    assert "0.37" in message and "rows.jsonl:1" in message


@pytest.mark.parametrize("label", ["goood", "Good", "good "])
def test_a_label_that_only_the_validation_has_is_named_with_its_near_match(tmp_path: Path, label: str) -> None:
    test = put(tmp_path, [*sound(2), {"text": "T", "label": label}], "test.jsonl")
    message = refused(tmp_path, sound(), validation=[test])
    assert "test.jsonl:3" in message and repr(label) in message and "no training row" in message
    assert "did you mean 'good'" in message and "known are 'bad', 'good'" in message


def test_validation_rows_have_as_many_texts_as_training_rows(tmp_path: Path) -> None:
    pairs = [{"premise": row["text"], "hypothesis": "So.", "label": row["label"]} for row in sound()]
    for train, other, said in ((pairs, sound(), "one text"), (sound(), pairs, "two texts")):
        message = refused(tmp_path, train, validation=[put(tmp_path, other, "test.jsonl")])
        assert said in message and "test.jsonl:1" in message and "data.columns.text" in message


def test_unknown_columns_are_asked_for_as_text_and_label(tmp_path: Path) -> None:
    rows = [{"mood": "x", "said": "y"} for _row in sound()]
    for data in ({}, {"validation": [put(tmp_path, rows, "test.jsonl")]}):
        message = refused(tmp_path, rows if not data else sound(), **data)
        assert "mood, said" in message and "data.columns.label" in message and "conversations" not in message


def test_a_label_is_never_filled_like_a_text(tmp_path: Path) -> None:
    rows = [{"text": "{{name}} is here", "label": "{{name}}"}]
    done = loaded(tmp_path, rows, variables={"name": "Wren"})
    assert [m.content for m in done.chats[0].messages] == ["Wren is here", "{{name}}"] and not done.missing


# -- one file a label ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("rt.pos", "rt.neg"), ("pos.txt", "neg.txt")])
def test_a_file_for_each_label(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).write_text(f"{name} one\nline two\r\n\n", encoding="utf-8")
    for train in ([str(tmp_path / name) for name in names], [str(tmp_path)]):
        data = Data(train=train)
        done = load(data, *find(data), LABELS)
        assert done.labels == ("neg", "pos") and len(done.chats) == 4
        assert {chat.messages[0].content for chat in done.chats} == {f"{name} one" for name in names} | {"line two"}
        assert sorted(chat.origin.line for chat in done.chats) == [1, 1, 2, 2]


def test_a_limit_takes_as_many_of_each_file(tmp_path: Path) -> None:
    for name in ("a.pos", "a.neg", "a.odd"):
        (tmp_path / name).write_text("\n".join(f"line {n}" for n in range(50)), encoding="utf-8")
    data = Data(train=[str(tmp_path)], limit=30)
    done = load(data, *find(data), LABELS)
    assert [chat.messages[-1].content for chat in done.chats] == ["neg", "odd", "pos"] * 10


def test_a_folder_for_each_label(tmp_path: Path) -> None:
    for side in ("train", "test"):
        for label in ("pos", "neg"):
            folder = tmp_path / side / label
            folder.mkdir(parents=True)
            for n in range(3):
                (folder / f"{n}_7.txt").write_text(f"{side} {label}\n\nreview {n}\n", encoding="utf-8")
    train = [str(tmp_path / "train" / "pos"), str(tmp_path / "train" / "neg")]
    for given in (train, [str(tmp_path / "train")]):
        data = Data(train=given, validation=[str(tmp_path / "test")])
        done = load(data, *find(data), LABELS)
        assert len(done.chats) == len(done.validation) == 6 and done.labels == ("neg", "pos")
        assert done.chats[0].messages[0].content == "train neg\n\nreview 0"


def test_one_text_file_alone_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("one\ntwo\n", encoding="utf-8")
    data = Data(train=[str(tmp_path / "reviews.txt")])
    with pytest.raises(DataError, match="one label, 'reviews'"):
        load(data, *find(data), LABELS)


def test_an_empty_line_of_a_label_file_is_found(tmp_path: Path) -> None:
    for name in ("a.pos", "a.neg"):
        (tmp_path / name).write_text("\n".join(f"{name} line {n}" for n in range(12)), encoding="utf-8")
    (tmp_path / "a.pos").write_text("one\n\ntwo\n", encoding="utf-8")
    data = Data(train=[str(tmp_path)])
    codes = {f.code: f for f in inspect(load(data, *find(data), LABELS), data, LABELS)}
    assert codes["D508"].severity == "error" and [str(row) for row in codes["D508"].rows] == [f"{tmp_path}/a.pos:2"]


def test_rotten_tomatoes_as_it_comes(shared: Path) -> None:
    folder = shared / "data" / "rotten_tomatoes"
    data = Data(train=[str(folder / "rt-polarity.pos"), str(folder / "rt-polarity.neg")])
    done = load(data, *find(data), LABELS)
    assert len(done.chats) == 2 * 5331 and done.labels == ("neg", "pos")


# -- findings --------------------------------------------------------------------------------------------------------


def test_sound_labels_have_no_findings_but_their_balance(tmp_path: Path) -> None:
    findings = found(tmp_path, sound())
    assert set(findings) == {"D509", "D210"}
    assert "'bad' 30 (50 %), 'good' 30 (50 %)" in findings["D509"].message


def test_one_class_only_stops(tmp_path: Path) -> None:
    assert found(tmp_path, sound(labels=("good",)))["D501"].severity == "error"


def test_classes_of_very_different_sizes(tmp_path: Path) -> None:
    assert "D502" not in found(tmp_path, sound(labels=("a", "b", "b", "b")))
    message = found(tmp_path, sound(120, labels=("a", *["b"] * 9)))["D502"].message
    assert "12" in message and "108" in message and "10 %" in message


def test_contradictory_labels_are_named_with_both_rows(tmp_path: Path) -> None:
    rows = [*sound(), {"text": sound()[4]["text"].upper() + "  ", "label": "good"}]
    findings = found(tmp_path, rows)
    assert sorted(row.line for row in findings["D503"].rows) == [5, 61] and findings["D503"].severity == "warning"
    assert not {"D201", "D202", "D203"} & set(findings)


def test_copies_with_the_same_label_are_duplicates(tmp_path: Path) -> None:
    findings = found(tmp_path, [*sound(), sound()[4]])
    assert findings["D201"].rows[0].line == 61 and "D503" not in findings


@pytest.mark.parametrize("stray", ["Good", " good", "good ", "go od"])
def test_labels_that_differ_only_in_writing_are_both_named(tmp_path: Path, stray: str) -> None:
    rows = [*sound(), *({"text": f"More of it, {n}", "label": stray} for n in range(10))]
    finding = found(tmp_path, rows)["D504"]
    assert repr(stray) in finding.message and "'good'" in finding.message and finding.count == 10


@pytest.mark.parametrize("labels", [("C", "C++", "C#"), ("1", "-1"), ("2.0", "2.5"), ("a-b", "a+b")])
def test_labels_that_differ_in_what_they_say_are_no_stray_ones(tmp_path: Path, labels: tuple[str, ...]) -> None:
    assert "D504" not in found(tmp_path, sound(labels=labels))


def test_the_advice_on_stray_labels_joins_them(tmp_path: Path) -> None:
    rows = [*sound(), *({"text": f"More of it, {n}", "label": "Good"} for n in range(10))]
    joined = Reading("labels", names={"Good": "good"})
    assert loaded(tmp_path, rows, joined).labels == ("bad", "good")
    assert "D504" not in found(tmp_path, rows, joined)


def test_an_empty_text_stops_unless_it_may_be_left_out(tmp_path: Path) -> None:
    rows = [*sound(), {"text": "  ", "label": "good"}]
    finding = found(tmp_path, rows)["D508"]
    assert finding.severity == "error" and finding.rows[0].line == 61
    assert found(tmp_path, rows, allow_unlearned=True)["D508"].severity == "warning"


def test_classes_with_few_rows_are_named(tmp_path: Path) -> None:
    rows = [*sound(), *({"text": f"More of it, {n}", "label": "rare"} for n in range(4))]
    assert "'rare' (4)" in found(tmp_path, rows)["D505"].message
    assert "D505" not in found(tmp_path, sound())


def test_labels_of_the_recipe_without_rows_are_named(tmp_path: Path) -> None:
    assert "'ugly'" in found(tmp_path, sound(), Reading("labels", ("bad", "good", "ugly")))["D506"].message
    assert "'fine'" in found(tmp_path, sound(), Reading("labels", names={"ok": "fine"}))["D506"].message


def test_a_column_of_free_text_is_no_label(tmp_path: Path) -> None:
    rows = [{"text": f"Fact {n}", "label": f"answer {n}"} for n in range(40)]
    assert found(tmp_path, rows)["D507"].severity == "error"


@pytest.mark.parametrize("text", [sound()[0]["text"], "fact 0, on rivers: and rivers, is 0!", ":)"])
def test_the_same_text_with_another_label_in_the_validation_is_a_leak(tmp_path: Path, text: str) -> None:
    fresh, known = {"text": "Something new about cheese", "label": "bad"}, {"text": text, "label": "good"}
    test = put(tmp_path, [fresh, known], "t.jsonl")
    rows = [*sound(), {"text": ":)", "label": "bad"}]
    assert "D202" not in found(tmp_path, [*rows, {"text": ":(", "label": "bad"}])
    assert [row.line for row in found(tmp_path, rows, validation=[test])["D401"].rows] == [2]


def test_a_labelled_row_without_a_text_has_nothing_to_learn(tmp_path: Path) -> None:
    [chat] = loaded(tmp_path, [{"sentence1": "A", "sentence2": " ", "label": "good"}]).chats
    assert nothing_to_learn(chat, "labels") and nothing_to_learn(chat, "turns") is None
