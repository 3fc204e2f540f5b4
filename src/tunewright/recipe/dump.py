"""Writing a recipe so that reading it gives the same recipe, with the source of each value beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.recipe.keys import Key, keys
from tunewright.recipe.nodes import scalar
from tunewright.recipe.schema import Check, Recipe
from tunewright.text import _

_WIDEST = 44  # column of the comments, where the values leave room


def dump(recipe: Recipe, sources: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    """Write the complete recipe to ``path``, each value with its source as a comment (``default`` if it has none).

    ``load(path)`` gives an equal Recipe. Raises ResourceError where the file cannot be written.
    """
    rundir.write_text(Path(path), text(recipe, sources))


def text(recipe: Recipe, sources: Mapping[str, str]) -> str:
    """The recipe as YAML text. Keys that the chosen task and method do not read are left out."""
    lines = [("# " + _("Complete recipe of one run. The same run again: tunewright train recipe.yaml"), "")]
    section = None
    for key in keys().values():
        if not key.used_by(recipe):
            continue
        if key.section != section and key.section is not None:
            lines.append((f"{key.section}:", ""))
        section = key.section
        lines.extend(_lines(key, _value(recipe, key), sources))
    width = min(_WIDEST, max(len(line) for line, comment in lines if comment))
    return "".join((f"{line:<{width}}  # {comment}" if comment else line) + "\n" for line, comment in lines)


def _value(recipe: Recipe, key: Key) -> Any:
    holder = getattr(recipe, key.section) if key.section else recipe
    return getattr(holder, key.name.rpartition(".")[2])


def _lines(key: Key, value: Any, sources: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(text, comment) of each line that the key takes."""
    indent = "  " if key.section else ""
    name = f"{indent}{key.name.rpartition('.')[2]}:"
    source = " ".join(sources.get(key.name, "default").split())
    if isinstance(value, dict) and value:
        yield name, ""
        for entry, content in value.items():
            comment = " ".join(sources.get(f"{key.name}.{entry}", source).split())
            yield f"{indent}  {scalar(str(entry))}: {scalar(content)}", comment
    elif key.kind == "checks" and value:
        yield name, source
        for check in value:
            yield f"{indent}  - {_check(check)}", ""
    elif isinstance(value, list):
        yield f"{name} [{', '.join(scalar(item) for item in value)}]", source
    elif isinstance(value, dict):
        yield f"{name} {{}}", source
    else:
        yield f"{name} {scalar(value)}", source


def _check(check: Check) -> str:
    return check.kind if check.value is None else f"{check.kind}: {scalar(check.value)}"
