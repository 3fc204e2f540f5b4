"""TRUST row 9: no key of a recipe is ignored. Each is read somewhere outside the room that loads recipes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewright.recipe import schema
from tunewright.recipe.keys import keys, nearest, sections

PACKAGE = Path(__file__).parents[2] / "src" / "tunewright"
CLASSES = {
    type(field.default).__name__: name for name, field in schema.Recipe.model_fields.items() if name in sections()
}


def reads(source: str) -> Iterator[str]:
    """Dotted keys read in a source text: ``recipe.train.epochs``, or ``x.epochs`` where x is a ``Train`` (by its
    annotation) or was taken from ``.train``."""
    tree = ast.parse(source)
    known: dict[str, str] = {}  # name of a variable -> section, "" for a recipe
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
            kind = ast.unparse(node.annotation).split(".")[-1].strip("'\"")
            if kind in CLASSES or kind == "Recipe":
                known[name] = CLASSES.get(kind, "")
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and node.value.attr in sections():
            known.update({ast.unparse(target): node.value.attr for target in node.targets})
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            last = owner.rpartition(".")[2]
            section = known.get(owner, last if last in sections() else "" if last == "recipe" else None)
            if section is not None:
                yield f"{section}.{node.attr}".lstrip(".")


def test_reads_are_seen_in_their_forms() -> None:
    assert "train.epochs" in set(reads("recipe.train.epochs"))
    assert "train.epochs" in set(reads("def f(settings: Train): return settings.epochs"))
    assert "train.epochs" in set(reads("t = loaded.recipe.train\nt.epochs"))
    assert "seed" in set(reads("loaded.recipe.seed"))
    assert "train.epochs" not in set(reads("other.epochs\n'train.epochs'"))


@pytest.fixture(scope="module")
def read() -> set[str]:
    files = [file for file in PACKAGE.rglob("*.py") if file.parent.name != "recipe"]
    return {key for file in files for key in reads(file.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("key", keys())
def test_every_key_is_read(key: str, read: set[str]) -> None:
    assert key in read, f"{key} can be set, and nothing reads it"


def test_nearest_is_the_key_that_was_meant() -> None:
    assert nearest("train.epohcs") == "train.epochs"
    assert nearest("rank") == "lora.rank"
    assert nearest("zzzzzz") is None
