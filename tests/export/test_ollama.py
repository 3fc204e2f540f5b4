"""The Modelfile's template writes what the run's own does, for each kind of template it can be written of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.data import templates
from tests.shapes import SHAPES, write_tokenizer

from tunewright.data.template import ChatTemplate
from tunewright.errors import RunError
from tunewright.example import Message
from tunewright.export import ollama

Turn = tuple[str, str]
CHAT: list[Turn] = [("user", "Who are you?"), ("assistant", "你好 {{ x }}"), ("user", "And\n\nyou?"),
                    ("assistant", "1 < 2"), ("user", "Bye")]  # fmt: skip


def go(template: str, messages: list[Turn]) -> str:
    """Go's text/template as far as ours goes: if, else if, else, end, range over Messages."""
    system = "\n\n".join(content for role, content in messages if role == "system")
    tokens = [token for token in re.split(r"(\{\{.*?\}\})", template, flags=re.DOTALL) if token]

    def block(place: int, message: Turn | None, number: int, quiet: bool) -> tuple[str, int]:
        """The text up to the else or end that closes this block, and where that stands."""
        text = ""
        while place < len(tokens):
            token = tokens[place].strip("{} ") if tokens[place].startswith("{{") else None
            if token is None:
                text, place = text + ("" if quiet else tokens[place]), place + 1
            elif token == "end" or token.startswith("else"):
                return text, place
            elif token.startswith("range"):
                inner, end = "", place
                for index, one in enumerate(messages):
                    said, end = block(place + 1, one, index, quiet)
                    inner += said
                text, place = text + inner, end + 1
            elif token.startswith("if"):
                done, inner = False, ""
                while token is not None and token != "end":
                    holds = not done and not quiet and true(token.removeprefix("else").strip(), message, number)
                    said, place = block(place + 1, message, number, quiet or not holds)
                    inner, done = inner + said, done or holds
                    token = tokens[place].strip("{} ")
                text, place = text + inner, place + 1
            else:
                value = {".System": system, ".Content": message[1] if message else ""}[token]
                text, place = text + ("" if quiet else value), place + 1
        return text, place

    def true(condition: str, message: Turn | None, number: int) -> bool:
        if condition == "":
            return True
        if condition == "if .System":
            return bool(system)
        if condition == "if eq (len (slice $.Messages $i)) 1":
            return number == len(messages) - 1
        found = re.fullmatch(r'if eq \.Role "(\w+)"', condition)
        assert found and message
        return message[0] == found.group(1)

    return block(0, None, 0, False)[0]


def own(folder: Path, kind: str, **other: str) -> ChatTemplate:
    return ChatTemplate.from_folder(write_tokenizer(folder, kind, **other))


@pytest.mark.parametrize(("kind", "opening"), [
    ("qwen2", ""), ("qwen3", ""), ("llama", "<|begin_of_text|>"), ("llama", ""),
])  # fmt: skip
def test_it_writes_what_the_runs_own_does(tmp_path: Path, kind: str, opening: str) -> None:
    template = own(tmp_path, kind)
    written = ollama.turns_of(template, opening, "here").go()
    for count in (1, 3, 5):
        for system in ([], [("system", "Be brief.")]):
            messages = [*system, *CHAT[:count]]
            expected = template.text([Message(role, content) for role, content in messages], prompt=True)
            assert opening + go(written, messages) == expected if opening else go(written, messages) == expected


def test_a_prompt_that_opens_otherwise_than_earlier_answers(tmp_path: Path) -> None:
    """The last message is followed by a mark that earlier answers do not have, as with reasoning models."""
    prompt = "{{ '<|im_start|>assistant\\n"
    text = SHAPES["qwen2"]["template"].replace(prompt, prompt + "<think>")
    template = own(tmp_path, "qwen2", template=text)
    written = ollama.turns_of(template, "", "here").go()
    assert "slice $.Messages" in written and go(written, CHAT).count("<think>") == 1
    assert go(written, CHAT) == template.text([Message(role, content) for role, content in CHAT], prompt=True)


@pytest.mark.parametrize("text", [
    templates.INST,  # takes no system message
    SHAPES["qwen2"]["template"].replace("message.content", "message.content.replace('you', 'thou')"),
    SHAPES["qwen2"]["template"].replace("'<|im_start|>' +", "loop.index ~ '<|im_start|>' +"),
    SHAPES["qwen2"]["template"].replace("<|im_end|>\\n'", "<|im_end|>}} \\n'"),
], ids=["no system", "changes contents", "counts", "has Go's marks"])  # fmt: skip
def test_a_template_that_does_more_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunError, match="more than Ollama's templates can say exactly") as error:
        ollama.turns_of(own(tmp_path, "qwen2", template=text), "", "here")
    assert error.value.command == "tunewright export --to gguf"


def test_the_modelfile(tmp_path: Path) -> None:
    turns = ollama.turns_of(own(tmp_path, "qwen2"), "", "here")
    text = ollama.modelfile("m.gguf", turns, ["<|im_end|>", 'a"b'], "Be brief.", ["about it"])
    lines = text.splitlines()
    assert lines[:2] == ["# about it", "FROM ./m.gguf"] and lines[-1] == 'SYSTEM """Be brief."""'
    assert 'PARAMETER stop "<|im_end|>"' in lines and 'PARAMETER stop "a\\"b"' in lines
    with pytest.raises(RunError, match="three quotation marks"):
        ollama.modelfile("m.gguf", turns, [], 'Say """x"""', [])
