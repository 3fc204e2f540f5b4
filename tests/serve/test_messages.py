"""Clients' messages as the run reads them."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.infer.live import Served
from tunewright.serve.errors import ApiError
from tunewright.serve.messages import messages_of, source_of
from tunewright.serve.protocol import ChatMessage


def served(system: str | None) -> Served:
    return Served("run", 0, "base", "answers", None, None, system=system)  # type: ignore[arg-type]


def asked(*messages: dict[str, Any]) -> list[ChatMessage]:
    return [ChatMessage.model_validate(message) for message in messages]


USER = {"role": "user", "content": "Who are you?"}


def test_the_runs_own_system_message_stands_first_where_the_client_sends_none() -> None:
    found = messages_of(asked(USER), served("You are Wren."))
    assert [(message.role, message.content) for message in found] == [
        ("system", "You are Wren."), ("user", "Who are you?"),
    ]  # fmt: skip
    for role in ("system", "developer"):
        own = messages_of(asked({"role": role, "content": "Be brief."}, USER), served("You are Wren."))
        assert (own[0].role, own[0].content, len(own)) == ("system", "Be brief.", 2)
    assert len(messages_of(asked(USER), served(None))) == 1


def test_parts_of_text_are_joined_and_an_answer_may_be_sent_back() -> None:
    parts = [{"type": "text", "text": "Who "}, {"type": "text", "text": "are you?"}]
    back = {
        "role": "assistant", "content": "Wren.", "refusal": None, "annotations": [], "audio": None,
        "function_call": None, "tool_calls": None, "reasoning_content": "A name.",
    }  # fmt: skip
    found = messages_of(asked({"role": "user", "content": parts}, back), served(None))
    assert found[0].content == "Who are you?" and found[1].thinking == "A name."


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": None}, {"role": "tool", "content": "x"}, {"role": "assistant"},
        {"role": "user", "content": []}, {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"type": "text", "text": "a", "weight": 1}]},
        {"role": "user", "content": "a", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
    ],
)  # fmt: skip
def test_what_lacks_a_part_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        messages_of(asked(message), served(None))
    assert caught.value.status == 400 and (caught.value.param or "").startswith("messages[0]")


def test_an_encoder_decoder_reads_the_last_user() -> None:
    system = {"role": "system", "content": "To French."}
    conversation = asked(system, USER, {"role": "assistant", "content": "Wren."}, {"role": "user", "content": "Bread."})
    assert source_of(conversation) == "To French.\n\nBread."
    with pytest.raises(ApiError):
        source_of(asked(system))
