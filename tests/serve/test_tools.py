"""Calls of tools and reasoning, written by a model that learned them, come back as the parts they are."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from tests.serve.conftest import Server
from tests.serve.tooled import ANSWER, CALL, THINKING, TOOL

ASK: dict[str, Any] = {
    "model": "tools-1",
    "temperature": 0,
    "messages": [{"role": "user", "content": "What is number 3?"}],
}


def test_a_call_is_a_call(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(**ASK, tools=[TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    calls = choice.message.tool_calls or []
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        (CALL["name"], CALL["arguments"])
    ]


def test_a_streamed_call_is_the_same_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ASK, tools=[TOOL]) as stream:
        for _event in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    assert [json.loads(call.function.arguments) for call in message.tool_calls or []] == [CALL["arguments"]]


def test_reasoning_stands_apart_from_the_answer(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(**ASK).choices[0].message
    assert message.content == ANSWER
    assert message.reasoning_content == THINKING  # type: ignore[attr-defined]


def test_streamed_reasoning_is_the_same(client: openai.OpenAI) -> None:
    parts: dict[str, str] = {"content": "", "reasoning_content": ""}
    for chunk in client.chat.completions.create(**ASK, stream=True):
        for name in parts:
            parts[name] += getattr(chunk.choices[0].delta, name, None) or ""
    assert parts == {"content": ANSWER, "reasoning_content": THINKING}


def test_a_conversation_goes_on_behind_a_call(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(**ASK, tools=[TOOL]).choices[0].message
    calls = first.tool_calls or []
    told = {"role": "tool", "tool_call_id": calls[0].id, "content": "It is blue."}
    again = client.chat.completions.create(
        **ASK | {"messages": [*ASK["messages"], first.model_dump(), told]}, tools=[TOOL], max_tokens=4
    )
    assert again.usage is not None and again.usage.completion_tokens <= 4


def test_tool_choice_none_shows_no_tools(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(**ASK, tools=[TOOL], tool_choice="none").choices[0].message.content == ANSWER


WHAT = {"what": {"enum": ["bread", "salt"]}}
SCHEMA = {"type": "object", "properties": WHAT, "required": ["what"], "additionalProperties": False}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "bake", "parameters": SCHEMA}}


def test_a_call_can_be_forced(client: openai.OpenAI) -> None:
    asked = ASK | {"tools": [OTHER, TOOL], "max_tokens": 100}
    named = {"type": "function", "function": {"name": "bake"}}
    choice = client.chat.completions.create(**asked, tool_choice=named).choices[0]
    call = (choice.message.tool_calls or [])[0].function
    assert call.name == "bake" and json.loads(call.arguments)["what"] in ("bread", "salt")
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    choice = client.chat.completions.create(**asked, tool_choice="required").choices[0]
    assert (choice.message.tool_calls or [])[0].function.name in ("bake", "look")


class Spot(BaseModel):
    town: Literal["Harrow", "Moor"]


class Walk(BaseModel):
    to: Spot


def test_a_forced_call_follows_nested_models(client: openai.OpenAI) -> None:
    """Their schemas point at parts of themselves, as pydantic writes them."""
    asked: dict[str, Any] = ASK | {"temperature": 1, "max_tokens": 100, "tool_choice": "required"}
    for seed in range(20):
        choice = client.chat.completions.create(
            **asked, seed=seed, tools=[openai.pydantic_function_tool(Walk, name="walk")]
        ).choices[0]
        if choice.message.tool_calls:
            call = choice.message.tool_calls[0].function
            assert call.name == "walk" and Walk.model_validate_json(call.arguments).to.town in ("Harrow", "Moor")
            return
    pytest.fail("no call ended within its tokens")


@pytest.mark.parametrize(
    "more",
    [
        {"tool_choice": {"type": "function", "function": {"name": "nothing"}}, "tools": [TOOL]},
        {"tool_choice": "always", "tools": [TOOL]},
        {"tool_choice": "required"},
    ],
)
def test_a_choice_that_is_none_is_refused(client: openai.OpenAI, more: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        client.chat.completions.create(**ASK, **more)


def test_a_template_without_tools_refuses_them(server: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not know tools") as caught:
        client.chat.completions.create(**ASK | {"model": server.models[0]["id"]}, tools=[TOOL])
    assert caught.value.param == "tools"


@pytest.mark.parametrize("name", ["a</tool_call>b", "two words", "höhe", "a" * 65, "look\n", ""])
def test_a_name_that_no_tool_may_have_is_refused(client: openai.OpenAI, name: str) -> None:
    """It could end the call in its middle."""
    wrong = TOOL | {"function": TOOL["function"] | {"name": name}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK, tools=[TOOL, wrong], tool_choice="required")
    assert (caught.value.param, caught.value.code) == ("tools[1].function.name", "invalid_value")


def test_a_conversation_may_hold_calls_of_other_names(client: openai.OpenAI) -> None:
    call = {"id": "call00001", "type": "function", "function": {"name": "maps.look up", "arguments": "{}"}}
    messages = [*ASK["messages"], {"role": "assistant", "content": None, "tool_calls": [call]}, *ASK["messages"]]
    assert client.chat.completions.create(**ASK | {"messages": messages}, tools=[TOOL], max_tokens=4).choices
