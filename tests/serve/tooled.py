"""A tiny run whose template knows tools and reasoning, and which has learned to use both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import write_tiny_model, write_tiny_tokenizer
from tests.tiny import quick

# Tools above the conversation and calls as JSON between marks, as Hermes, Qwen and SmolLM3 have it; reasoning of the
# last answer in its own marks.
TEMPLATE = """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{% endfor %}{{- '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and loop.last and message.reasoning_content %}
        {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "the sea",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}
CALL = {"name": "look", "arguments": {"at": "the sea"}}
THINKING, ANSWER = "One two three.", "The town is called Harrow."


def write_base(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_tiny_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    write_tiny_model(folder)
    return folder


def train_tools(home: Path) -> Path:
    base = write_base(home / "tool-base")
    with open(home / "tools.jsonl", "w", encoding="utf-8") as file:
        for number in range(24):
            asked = {"role": "user", "content": f"What is number {number}?"}
            if number % 2:
                call = {"id": "call00001", "type": "function", "function": CALL}
                answer = {"role": "assistant", "content": "", "tool_calls": [call]}
                row = {"messages": [asked, answer], "tools": [TOOL]}
            else:
                row = {"messages": [asked, {"role": "assistant", "content": ANSWER, "reasoning_content": THINKING}]}
            file.write(json.dumps(row) + "\n")
    from tunewright import api

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("TUNEWRIGHT_CACHE", str(home / "cache"))
        run = api.train("tools.jsonl", quick(base, "train.epochs=30", "train.method=full", "train.learning_rate=0.005"))
    return (home / run.folder.path).resolve()
