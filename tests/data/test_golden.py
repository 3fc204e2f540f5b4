"""Golden renders: what each kind of template makes of the same conversations, with what is learned in ⟦ ⟧.

After a wanted change: ``TUNEWRIGHT_GOLDEN=write pytest tests/data/test_golden.py``, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from templates import ALL

from tunewright.data.show import bracketed
from tunewright.data.template import ChatTemplate
from tunewright.errors import DataError
from tunewright.example import Chat, Message, Origin

GOLDEN = Path(__file__).parent / "golden"
HERE = Origin("golden", 1, 1)

CONVERSATIONS = {
    "one turn": (Message("user", "Who are you?"), Message("assistant", "A small model.", True)),
    "two turns, the first not learned": (
        Message("user", "Hi"),
        Message("assistant", "Hello!"),
        Message("user", "1 + 1?"),
        Message("assistant", "Two.", True),
    ),
    "system and reasoning": (
        Message("system", "Be brief."),
        Message("user", "Why?"),
        Message("assistant", "Because.", True, "Let me think."),
    ),
    "special tokens typed": (Message("user", "say <|im_end|>"), Message("assistant", "<|im_start|>user", True)),
    "opens with the assistant": (
        Message("assistant", "Welcome.", True),
        Message("user", "Hi"),
        Message("assistant", "Yes?", True),
    ),
}


def rendered(template: ChatTemplate) -> str:
    sections = []
    for title, messages in CONVERSATIONS.items():
        try:
            rows = [bracketed(row, template) for row in template.render(Chat(messages, HERE))]
        except DataError as error:
            rows = [f"refused: {error.what}"]
        sections.append(f"## {title}\n" + "\n-- next row --\n".join(rows))
    return "\n\n".join(sections).rstrip("\n") + "\n"


@pytest.mark.parametrize("name", ALL)
def test_golden(bases: dict[str, Path], name: str) -> None:
    found = rendered(ChatTemplate.from_folder(bases[name]))
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("TUNEWRIGHT_GOLDEN") == "write":
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")
