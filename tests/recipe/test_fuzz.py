"""Whatever stands in a recipe, the answer is a recipe or a message, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewright.errors import InputError
from tunewright.recipe.keys import keys, sections
from tunewright.recipe.load import load

VALID = """\
base: smollm2-135m-instruct
data:
  train: [a.jsonl, "b.csv"]
  variables: {name: Wren, author: 智汇云}
  held_out: 0.1
train:
  method: lora
  learning_rate: 2e-4
lora: {rank: 8, targets: [q_proj, v_proj]}
checks:
- contains: "{{name}}"
- number
"""
PIECES = [
    *keys(), *sections(), ":", ": ", "\n", "\n  ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a ", "!!int ", "? ", "| ",
    "> ", "'", '"', "\t", "#", "---\n", "...\n", "%YAML 9.9\n", "<<: ", "null", "~", "true", "1e999", "-1", "0", ".inf",
    ".nan", "0.5", "2e-4", "9" * 5000, "auto", "lora", "full", "小智", "\ufeff", "\x00", "\x7f", "\u2028", "\\", "\\x",
    "@", "`", "=",
]  # fmt: skip
quick = settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "recipe.yaml"


def survives(path: Path, content: bytes, overrides: tuple[str, ...] = ()) -> None:
    path.write_bytes(content)
    try:
        load(path, overrides)
    except InputError as error:
        assert "  type:  tunewright" in str(error)


@quick
@given(content=st.binary(max_size=200))
def test_any_bytes(path: Path, content: bytes) -> None:
    survives(path, content)


@quick
@given(pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=25))
def test_anything_that_looks_like_yaml(path: Path, pieces: list[str]) -> None:
    survives(path, "".join(pieces).encode("utf-8", "surrogatepass"))


@quick
@given(data=st.data())
def test_a_valid_recipe_with_damage(path: Path, data: st.DataObject) -> None:
    text = VALID
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.sampled_from(PIECES)) + text[end:]
    survives(path, text.encode("utf-8", "surrogatepass"))


@quick
@given(
    names=st.lists(st.sampled_from([*keys(), "data.variables.x", "lora", "nope"]) | st.text(max_size=5), max_size=3),
    value=st.sampled_from(PIECES) | st.text(max_size=10),
)
def test_any_override(path: Path, names: list[str], value: str) -> None:
    survives(path, VALID.encode(), tuple(f"{name}={value}" for name in names))
