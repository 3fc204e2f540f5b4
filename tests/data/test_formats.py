"""Columns become conversations, with a reason; what is unclear is asked, never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.files import sources
from tunewright.data.formats import Conversion, convert
from tunewright.data.read import Row, read
from tunewright.data.variables import fill_all
from tunewright.errors import DataError
from tunewright.example import Message, Origin
from tunewright.recipe.schema import Data


def turned(*fields: dict[str, Any], **data: Any) -> Conversion:
    return convert([Row(f, Origin("rows.jsonl", n, n)) for n, f in enumerate(fields, start=1)], Data(**data))


def one(*fields: dict[str, Any], **data: Any) -> list[tuple[str, str, bool]]:
    return [(m.role, m.content, m.learn) for m in turned(*fields, **data).chats[0].messages]


def refused(*fields: dict[str, Any], **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        turned(*fields, **data)
    return str(caught.value)


QA = [("user", "Q", False), ("assistant", "A", True)]


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, "sharegpt", QA),
        ({"conversations": [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}]}, "sharegpt", QA),
        ({"conversations": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}, "messages", QA),
        ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}, "messages", QA),
        ({"instruction": "Q", "input": "", "output": "A"}, "instruction", QA),
        ({"instruction": "Q", "output": "A"}, "instruction", QA),
        ({"instruction": "Do", "input": "this", "output": "A"}, "instruction", [("user", "Do\nthis", False), QA[1]]),
        ({"instruction": "Q", "output": 18}, "instruction", [QA[0], ("assistant", "18", True)]),
        ({"instruction": "Q", "output": "A", "system": "S"}, "instruction", [("system", "S", False), *QA]),
        (
            {"instruction": "Q", "output": "A", "history": [["Q0", "A0"]]},
            "instruction",
            [("user", "Q0", False), ("assistant", "A0", True), *QA],
        ),
        ({"prompt": "Q", "completion": "A"}, "prompt_completion", QA),
        (
            {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]},
            "prompt_completion",
            QA,
        ),
        ({"Question": "Q", "Complex_CoT": "C", "Response": "A"}, "reasoning", QA),
        (
            {"conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "Q"}]},
            "sharegpt",
            [("assistant", "Hi", True), ("user", "Q", False)],
        ),
    ],
)
def test_formats_are_detected(fields: dict[str, Any], name: str, expected: list[tuple[str, str, bool]]) -> None:
    done = turned(fields)
    assert done.name == name and done.reason
    assert [(m.role, m.content, m.learn) for m in done.chats[0].messages] == expected


def test_the_chain_of_thought_becomes_thinking_and_other_columns_do_not_confuse() -> None:
    done = turned(
        {"question": "x", "answer": "y", "options": {"A": "z"}, "Question": "Q", "Complex_CoT": "C", "Response": "A"}
    )
    assert done.chats[0].messages[1].thinking == "C"
    assert done.chats[0].origin.extra == {"question": "x", "answer": "y", "options": {"A": "z"}}
    assert "not learned: question, answer, options" in done.reason


def test_weight_decides_what_is_learned() -> None:
    messages = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A", "weight": 0},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A", "weight": 1},
    ]
    assert [learn for _role, _content, learn in one({"messages": messages})] == [False, False, False, True]
    assert "weight is 2" in refused({"messages": [{"role": "assistant", "content": "A", "weight": 2}]})
    assert "user has weight 1" in refused({"messages": [{"role": "user", "content": "A", "weight": 1}]})


@pytest.mark.parametrize("tools", ["[{bad json", "weather", "[" * 5000])
def test_tools_that_are_no_json_are_refused_with_their_row(tools: str) -> None:
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    told = refused({"messages": talk, "tools": tools})
    assert "tools is no JSON" in told and "rows.jsonl:1" in told


@pytest.mark.parametrize("tools", ["", " ", "[]", "null", None, []])
def test_no_tools_are_no_tools(tools: Any) -> None:
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert turned({"messages": talk, "tools": tools}).chats[0].tools == ()


def test_tools_calls_and_parts_of_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "S"}]},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
    ]
    [chat] = turned({"messages": messages, "tools": [{"type": "function"}]}).chats
    assert [m.role for m in chat.messages] == ["system", "user", "assistant", "tool"]
    assert (
        chat.messages[0].content == "S"
        and chat.messages[2].tool_calls == (call,)
        and chat.tools == ({"type": "function"},)
    )


def test_fields_of_messages_that_mean_nothing_are_counted() -> None:
    assert turned({"messages": [{"role": "user", "content": "Q", "loss": False, "ts": None}]}).ignored == {"loss": 1}


def test_columns_named_in_the_recipe() -> None:
    columns = {"question": "q", "answer": "a", "system": "s", "thinking": "t"}
    [chat] = turned({"q": "Q", "a": "A", "s": "S", "t": "T", "id": 7}, columns=columns).chats
    assert chat.messages == (Message("system", "S"), Message("user", "Q"), Message("assistant", "A", True, "T"))
    assert chat.origin.extra == {"id": 7}


def test_prompt_and_answer_written_in_the_recipe() -> None:
    fields = {"Question": "Q {x}", "Complex_CoT": "C", "Response": "A"}
    found = one(fields, prompt="诊断问题:{Question}\n详细分析:{Complex_CoT} {{name}}", answer="{Response}")
    assert found == [("user", "诊断问题:Q {x}\n详细分析:C {{name}}", False), ("assistant", "A", True)]


def test_system_is_added_only_where_the_recipe_says_so_and_the_row_has_none() -> None:
    assert one({"instruction": "Q", "output": "A"}, system="S")[0] == ("system", "S", False)
    own = {"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "Q"}]}
    assert one(own, system="S")[0] == ("system", "own", False)


@pytest.mark.parametrize(
    ("rows", "data", "words"),
    [
        (
            [{"text": "x", "label": "1"}],
            {},
            [
                "no known format has these columns: text, label",
                "messages:",
                "data.columns.question=text data.columns.answer=label",
            ],
        ),
        (
            [{"instruction": "Q", "output": "A", "prompt": "Q", "completion": "A"}],
            {},
            [
                "2 ways",
                "instruction:",
                "prompt_completion:",
                "data.format=instruction or data.format=prompt_completion",
            ],
        ),
        (
            [{"instruction": "Q", "output": "A"}, {"prompt": "Q", "completion": "A"}],
            {},
            ["two formats", "instruction", "prompt_completion", "rows.jsonl:1 and rows.jsonl:2"],
        ),
        (
            [
                {"conversations": [{"from": "human", "value": "Q"}]},
                {"conversations": [{"role": "user", "content": "Q"}]},
            ],
            {},
            ["two formats", "sharegpt and messages"],
        ),
        ([{"chosen": "A", "rejected": "B", "prompt": "Q"}], {}, ["preference pairs"]),
        (
            [{"instruction": "Q", "output": "A"}],
            {"format": "reasoning"},
            ["data.format is reasoning", "instruction, output"],
        ),
        ([{"data": [{"instruction": "Q", "output": "A"}]}], {}, ["stand below 'data'"]),
        (
            [{"q": "Q", "a": "A"}],
            {"columns": {"question": "qq", "answer": "a"}},
            ["no column 'qq'", "did you mean 'q'"],
        ),
        (
            [{"question": "Q", "a": "A"}],
            {"prompt": "{questoin}", "answer": "{a}"},
            ["questoin", "did you mean 'question'"],
        ),
        ([{"q": "Q", "a": "A"}], {"prompt": "{q}"}, ["data.answer is missing"]),
        ([{"q": "Q", "a": "A"}], {"prompt": "q", "answer": "{a}"}, ["data.prompt names no column"]),
        ([{"q": "Q", "a": "A"}, {"q": "Q"}], {"columns": {"question": "q", "answer": "a"}}, ["no a", "rows.jsonl:2"]),
        ([{"q": "Q", "a": "A"}], {"format": "columns"}, ["data.columns names none"]),
        ([{"instruction": ["Q"], "output": "A"}], {}, ["'instruction' holds a list", "rows.jsonl:1"]),
        ([{"instruction": True, "output": "A"}], {}, ["holds true or false"]),
        ([{"messages": "hello"}], {}, ["'messages' holds text, not a list"]),
        ([{"messages": []}], {}, ["no message", "rows.jsonl:1"]),
        ([{"messages": [{"role": "robot", "content": "x"}]}], {}, ["'robot' is no role", "message 1"]),
        (
            [{"messages": [{"role": "user", "content": "x"}, {"text": "x"}]}],
            {},
            ["neither 'role' nor 'from'", "message 2"],
        ),
        ([{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}], {}, ["part of type 'image_url'"]),
        ([{"messages": [{"role": "user"}]}], {}, ["no 'content'"]),
        ([{"messages": [{"role": "user", "content": "half \ud83d"}]}], {}, ["half a character", "U+D83D"]),
        ([{"messages": [{"role": "system", "content": "x"}], "system": "y"}], {}, ["system message and a column"]),
    ],
)
def test_what_cannot_be_read_says_why(rows: list[dict[str, Any]], data: dict[str, Any], words: list[str]) -> None:
    message = refused(*rows, **data)
    for word in words:
        assert word in message, message


def test_an_ambiguous_file_is_read_as_the_recipe_says() -> None:
    both = {"instruction": "Q", "output": "A", "prompt": "Q2", "completion": "A2"}
    assert one(both, format="prompt_completion") == [("user", "Q2", False), ("assistant", "A2", True)]


@pytest.mark.parametrize(
    ("path", "data", "name"),
    [
        ("identity/identity.json", {}, "instruction"),
        ("alpaca/alpaca_zh_demo.json", {}, "instruction"),
        ("medical_cot/medical_o1_demo.json", {}, "reasoning"),
        ("gsm8k/test.jsonl", {"columns": {"question": "question", "answer": "answer"}}, "columns"),
        ("preference/dpo_en_demo.json", {"format": "sharegpt"}, "sharegpt"),
    ],
)
def test_real_files(shared: Path, path: str, data: dict[str, Any], name: str) -> None:
    found = list(read(sources([str(shared / "data" / path)])))
    done = convert(found, Data(**data))
    assert done.name == name and len(done.chats) == len(found)


def test_variables_fill_what_is_said_and_thought_once() -> None:
    chats = turned({"Question": "{{ name }}?", "Complex_CoT": "{{name}}", "Response": "{{author}} {{other}}"}).chats
    filled = fill_all(chats, {"name": "{{author}}", "author": "Ann"})
    asked, told = filled.chats[0].messages
    assert (asked.content, told.thinking, told.content) == ("{{author}}?", "{{author}}", "Ann {{other}}")
    assert {name: [str(o) for o in rows] for name, rows in filled.missing.items()} == {"other": ["rows.jsonl:1"]}


def test_variables_fill_calls_and_keep_their_json() -> None:
    call = {"type": "function", "function": {"name": "mail", "arguments": '{"to": "{{name}}", "as": "{{other}}"}'}}
    more = {"function": {"name": "mail", "arguments": {"to": ["{{name}}"]}}}
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "tool_calls": [call, more]}]
    filled = fill_all(turned({"messages": talk}).chats, {"name": 'A "B"'})
    [one, two] = filled.chats[0].messages[1].tool_calls
    assert json.loads(one["function"]["arguments"]) == {"to": 'A "B"', "as": "{{other}}"}
    assert two["function"]["arguments"] == {"to": ['A "B"']}
    assert list(filled.missing) == ["other"]
