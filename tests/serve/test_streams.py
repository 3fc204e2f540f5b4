"""Tokens as text: all pieces joined are the whole, and nothing is shown that has to be taken back."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.data.templates import CHATML
from tests.serve.tooled import CALL, TEMPLATE, TOOL

from tunewright.data.template import ChatTemplate
from tunewright.data.thinking import Marks
from tunewright.infer.grammar import Grammars
from tunewright.infer.live import Step
from tunewright.serve.calls import Forms, calls_in, forced, forms_of
from tunewright.serve.parts import Part, Parts
from tunewright.serve.streams import Detokenizer, Piece, StopStrings, pieces

TEXTS = [
    "The river rises in the hills.", "你好，我是一个小模型。", "a 😀 b 👩‍👩‍👧 c",
    "def add(left):\n    return\n", "  two  blanks ", "é",
]  # fmt: skip


@pytest.fixture(scope="module")
def template(tiny_base: Path) -> ChatTemplate:
    return ChatTemplate.from_folder(tiny_base)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_joined_are_the_text(template: ChatTemplate, text: str) -> None:
    detokenizer, ids = Detokenizer(template), template.text_ids(text)
    made = [detokenizer.add(token) for token in ids]
    assert "".join(made) + detokenizer.rest() == text
    assert not any("\ufffd" in piece for piece in made)


def test_pieces_of_any_ids_are_what_they_decode_to(template: ChatTemplate) -> None:
    draw = random.Random(0)
    for _round in range(50):
        ids = [draw.randrange(3, template.vocabulary) for _number in range(40)]
        detokenizer = Detokenizer(template)
        joined = "".join(map(detokenizer.add, ids)) + detokenizer.rest()
        assert joined.replace("\ufffd", "") == template.decode(ids).replace("\ufffd", "")


def test_a_special_token_says_nothing_unless_it_is_kept(template: ChatTemplate) -> None:
    ids = template.text_ids("a<|endoftext|>b")
    assert "".join(map(Detokenizer(template).add, ids)) == "ab"
    assert "".join(map(Detokenizer(template, ["<|endoftext|>"]).add, ids)) == "a<|endoftext|>b"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_stop_string_ends_the_text_wherever_it_is_cut(size: int) -> None:
    text, stopping, shown = "One two. STop three STOP four", StopStrings(["STOP", "nowhere"]), ""
    for start in range(0, len(text), size):
        shown += stopping.add(text[start : start + size])
        assert "STOP" not in shown
        if stopping.found:
            break
    assert stopping.found and shown == "One two. STop three "


def test_of_two_stop_strings_the_first_in_the_text_counts() -> None:
    assert StopStrings(["two", "one"]).add("zero one two") == "zero "


async def _steps(ids: list[int], closed: list[bool]) -> AsyncIterator[Step]:
    try:
        for number, token in enumerate(ids):
            yield Step(token, "length" if number == len(ids) - 1 else None, -0.5)
    finally:
        closed.append(True)


def _read(template: ChatTemplate, said: str | list[int], stops: list[str]) -> tuple[list[Piece], list[bool]]:
    ids = template.text_ids(said) if isinstance(said, str) else said

    async def gathered() -> list[Piece]:
        return [piece async for piece in pieces(_steps(ids, closed), Detokenizer(template), stops)]

    closed: list[bool] = []
    return asyncio.run(gathered()), closed


def test_a_stop_string_closes_the_answer_and_keeps_the_tokens_before_it(template: ChatTemplate) -> None:
    made, closed = _read(template, "The river rises in the hills and runs", [" in the"])
    assert closed == [True] and made[-1].end == "stop"
    assert "".join(piece.text for piece in made) == "The river rises"
    kept = [step.token for piece in made for step in piece.steps]
    assert template.decode(kept) == "The river rises"
    assert made[-1].tokens > len(kept)  # what the stop string was made of was generated, too


def test_every_token_comes_with_a_piece(template: ChatTemplate) -> None:
    made, _closed = _read(template, "a 😀 b", [])
    assert [step.token for piece in made for step in piece.steps] == template.text_ids("a 😀 b")
    assert made[-1].end == "length" and made[-1].tokens == len(template.text_ids("a 😀 b"))


@pytest.mark.parametrize("text", [*TEXTS, "a<|endoftext|>你<|endoftext|>"])
@pytest.mark.parametrize("stops", [[], ["rises", "是", "b"]])
def test_each_token_says_where_its_text_begins(template: ChatTemplate, text: str, stops: list[str]) -> None:
    """A token that ends a character stands where that character begins, and one that says nothing takes no place."""
    made, _closed = _read(template, text, stops)
    places = [place for piece in made for place in piece.places]
    ids = [step.token for piece in made for step in piece.steps]
    assert places == [len(template.decode(ids[:number], True).rstrip("\ufffd")) for number in range(len(ids))]


def test_any_ids_stand_where_their_text_is(template: ChatTemplate) -> None:
    """Also between bytes that make no character."""
    draw = random.Random(1)
    for _round in range(50):
        ids = [draw.randrange(3, template.vocabulary) for _number in range(40)]
        made, _closed = _read(template, ids, [])
        text = "".join(piece.text for piece in made)
        places = [place for piece in made for place in piece.places]
        assert places == sorted(places) and len(places) == len(ids)
        for token, place in zip(ids, places, strict=True):
            own = template.decode([token])
            assert "\ufffd" in own or text.startswith(own, place)


# -- reasoning and calls ---------------------------------------------------------------------------------------------

HERMES = Forms("<tool_call>", "</tool_call>")
WRITTEN = json.dumps(CALL)


def fed(
    text: str, size: int, marks: Marks | None = None, forms: Forms | None = None, single: bool = False
) -> list[Part]:
    parts = Parts(marks, forms, single)
    found = [part for start in range(0, len(text), size) for part in parts.feed(text[start : start + size])]
    return found + parts.feed("", last=True)


def joined(parts: list[Part], kind: str) -> str:
    return "".join(part.text for part in parts if part.kind == kind)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "content"),
    [
        ("<think>\nSix and one.\n</think>\n\nSeven.", False, "Six and one.", "Seven."),
        ("\nSix and one.\n</think>\n\nSeven.", True, "Six and one.", "Seven."),
        ("<think>\nSix and one, or", False, "Six and one, or", ""),
        ("<think>\n\n</think>\n\nSeven.", False, "", "Seven."),
        ("Seven. <think> is a mark.", False, "", "Seven. <think> is a mark."),
        ("<thin ice>", False, "", "<thin ice>"),
        ("<thi", False, "", "<thi"),
    ],
)
def test_reasoning_is_told_apart(size: int, text: str, opened: bool, reasoning: str, content: str) -> None:
    found = fed(text, size, Marks(opened=opened))
    assert (joined(found, "reasoning"), joined(found, "content")) == (reasoning, content)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_calls_are_told_apart_from_what_is_said(size: int) -> None:
    text = f"I look.\n<tool_call>\n{WRITTEN}\n</tool_call>\n<tool_call>{WRITTEN}</tool_call>\n\n"
    found = fed(text, size, None, HERMES)
    calls = [part.call["function"] for part in found if part.call is not None]
    assert joined(found, "content") == "I look."
    assert calls == [{"name": "look", "arguments": json.dumps(CALL["arguments"])}] * 2
    assert len({part.call["id"] for part in found if part.call is not None}) == 2
    assert sum(part.kind == "call" for part in fed(text, size, None, HERMES, single=True)) == 1


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_mark_of_an_end_may_stand_in_an_argument(size: int) -> None:
    said = {"text": 'He wrote "</tool_call>" twice: </tool_call>'}
    text = f"<tool_call>{json.dumps({'name': 'note', 'arguments': said})}</tool_call> Noted. </tool_call>"
    found = fed(text, size, None, HERMES)
    assert [json.loads(part.call["function"]["arguments"]) for part in found if part.call is not None] == [said]
    assert joined(found, "content") == "Noted. </tool_call>"


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{broken</tool_call>",
        "a < b <tool",
        '<tool_call>{"name": "x"',
        '<tool_call>{"name": "a</tool_call> b',
    ],
)
def test_what_is_no_call_stays_text(size: int, text: str) -> None:
    found = fed(text, size, None, HERMES)
    assert joined(found, "content") == text and len({part.kind for part in found}) == 1


@pytest.mark.parametrize("size", [1, 1000])
def test_a_template_without_marks_calls_with_bare_json(size: int) -> None:
    assert [part.kind for part in fed(f" {WRITTEN}\n", size, None, Forms())] == ["call"]
    assert joined(fed("{1} is a set.", size, None, Forms()), "content") == "{1} is a set."
    assert joined(fed("Plain.", size, None, Forms()), "content") == "Plain."


@pytest.mark.parametrize("found", [None, 3, "x", [], {}, {"name": 3, "arguments": {}}, [CALL, {"other": 1}]])
def test_other_json_is_no_call(found: object) -> None:
    assert calls_in(found) == []


MISTRAL = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}]<|im_end|>"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
LLAMA = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    '{% if m.tool_calls %}{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
    "{{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("source", "forms"),
    [
        (TEMPLATE, Forms("<tool_call>", "</tool_call>")),
        (MISTRAL, Forms("[TOOL_CALLS]", "", listed=True)),
        (LLAMA, Forms(arguments="parameters")),
        (CHATML, None),
    ],
    ids=["hermes", "mistral", "llama", "chatml"],
)
def test_how_a_template_calls_is_found_out(tiny_base: Path, source: str, forms: Forms | None) -> None:
    assert forms_of(ChatTemplate.from_folder(tiny_base, source)) == forms


@pytest.mark.parametrize(
    ("source", "written"),
    [
        (TEMPLATE, '<tool_call>\n{"name": "look", "arguments": {"at": "the sea"}}\n</tool_call>'),
        (MISTRAL, '[TOOL_CALLS] [{"name": "look", "arguments": {"at": "the sea"}}]'),
        (
            MISTRAL.replace("[TOOL_CALLS]", "<|endoftext|>"),
            '<|endoftext|> [{"name": "look", "arguments": {"at": "the sea"}}]',
        ),
        (LLAMA, '{"name": "look", "parameters": {"at": "the sea"}}'),
    ],
    ids=["hermes", "mistral", "special", "llama"],
)
def test_a_forced_call_may_be_written_as_the_template_writes_it(tiny_base: Path, source: str, written: str) -> None:
    template = ChatTemplate.from_folder(tiny_base, source)
    forms = forms_of(template)
    assert forms is not None
    for text, fits in ((written, True), (written.replace("look", "bake"), False), ("The town", False)):
        held = Grammars(tiny_base, template.vocabulary).begin(forced(forms, [TOOL], template), template.stop_ids)
        taken = held.matcher.try_consume_tokens(template.text_ids(text))
        assert (taken == len(template.text_ids(text)) and held.matcher.is_accepting()) is fits


PLACE = {
    "type": "object",
    "properties": {
        "of": {"$ref": "#/$defs/Spot"},
        "beside": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "$ref": {"const": {"$ref": "#/nowhere"}},
        "enum": {"$ref": "#/properties/kind~1of"},
        "kind/of": {"enum": ["#/a", "#"]},
    },
    "required": ["of"],
    "additionalProperties": False,
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$defs": {
        "Spot": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "within": {"$ref": "#/$defs/Spot"}},
            "required": ["town"],
            "additionalProperties": False,
        }
    },
}
OTHER_PLACE = {
    "$ref": "#/definitions/Spot",
    "definitions": {"Spot": {"type": "object", "properties": {"at": {"enum": [1]}}, "additionalProperties": False}},
}  # fmt: skip
SPOT = {"town": "a", "within": {"town": "b", "within": {"town": "c"}}}
WHOLE = {"of": SPOT, "beside": {"of": SPOT}, "$ref": {"$ref": "#/nowhere"}, "enum": "#/a", "kind/of": "#"}


@pytest.mark.parametrize(("count", "named"), [(1, {}), (2, {}), (2, {"$id": "place.json"})], ids=["1", "2", "alike"])
@pytest.mark.parametrize("source", [TEMPLATE, MISTRAL, LLAMA], ids=["hermes", "mistral", "llama"])
def test_pointers_within_a_tools_schema_lead_to_its_own_parts(
    tiny_base: Path, source: str, count: int, named: dict[str, str]
) -> None:
    template = ChatTemplate.from_folder(tiny_base, source)
    forms = forms_of(template)
    assert forms is not None
    tools = [_tool("stand", named | PLACE), _tool("go", named | OTHER_PLACE)][:count]
    grammar = forced(forms, tools, template)

    def fits(name: str, arguments: object) -> bool:
        call = {"name": name, forms.arguments: arguments}
        written = forms.open + json.dumps([call] if forms.listed else call) + forms.close
        ids = template.text_ids(written)
        held = Grammars(tiny_base, template.vocabulary).begin(grammar, template.stop_ids)
        return held.matcher.try_consume_tokens(ids) == len(ids) and held.matcher.is_accepting()

    assert fits("stand", WHOLE) and fits("stand", {"of": SPOT})
    assert not fits("stand", {"of": {"town": "a", "within": {"town": 3}}})
    assert not fits("stand", {"of": SPOT, "beside": {"of": {}}})
    assert fits("go", {"at": 1}) is (count == 2) and not fits("go", SPOT)


def _tool(name: str, parameters: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}
