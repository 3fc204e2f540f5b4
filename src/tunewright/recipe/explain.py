"""What a key does, as text: for ``tunewright recipe explain`` and, through the same facts, for ``docs/recipe.md``."""

from __future__ import annotations

import shlex

from tunewright.errors import RecipeError
from tunewright.recipe.keys import Key, keys, nearest, sections
from tunewright.recipe.nodes import scalar
from tunewright.text import _


def explain(key: str) -> str:
    """What ``key`` (or a section, or an entry such as ``data.variables.name``) means, allows and is by default.

    Raises RecipeError, with the nearest name, where there is no such key.
    """
    if key in sections():
        return _section(key)
    found = keys().get(key) or next(
        (k for k in keys().values() if k.kind == "table" and key.startswith(k.name + ".")), None
    )
    if found is None:
        guess = nearest(key)
        raise RecipeError(
            _("there is no key `{name}`", name=key) + (_("; did you mean `{guess}`?", guess=guess) if guess else ""),
            do=_("without a key, all of them are listed"),
            command=f"tunewright recipe explain {guess}" if guess else "tunewright recipe explain",
        )
    return _key(found)


def default_text(key: Key) -> str:
    """The default as it would be written in a recipe."""
    if isinstance(key.default, list):
        return "[" + ", ".join(scalar(item) for item in key.default) + "]"
    return "{}" if isinstance(key.default, dict) else scalar(key.default)


def example_text(key: Key) -> str:
    """The key as an override on the command line, with a value that is allowed."""
    return shlex.quote(f"{key.name}={key.examples[0] if key.examples else default_text(key)}")


def _key(key: Key) -> str:
    only = [_("`train.method: {method}` only", method=key.method)] if key.method else []
    only += [_("`task: {tasks}` only", tasks=_(" or ").join(key.tasks))] if key.tasks else []
    used = ", ".join(only) or _("every task and method")
    return "\n".join(
        [
            key.name,
            f"  {key.description}",
            "",
            "  " + _("allowed:  {allowed}", allowed=key.allowed),
            "  " + _("default:  {default}", default=default_text(key)),
            "  " + _("used by:  {used}", used=used),
            "  " + _("example:  tunewright train recipe.yaml {example}", example=example_text(key)),
        ]
    )


def _section(name: str) -> str:
    lines = [name, f"  {sections()[name]}", ""]
    lines += [f"  {key.name:<24}{key.description}" for key in keys().values() if key.section == name]
    return "\n".join(lines)


def overview() -> str:
    """All keys as a tree, one to a line, each with its default and the first sentence of its description."""
    lines: list[str] = []
    section = None
    for key in keys().values():
        if key.section != section and key.section is not None:
            lines += ["", f"{key.section}:  {sections()[key.section]}"]
        section = key.section
        name = ("  " if section else "") + key.name.rpartition(".")[2]
        lines.append(f"{name:<20} {shortened(default_text(key), 14):<14} {shortened(key.description, 44)}".rstrip())
    return "\n".join(lines)


def shortened(text: str, limit: int) -> str:
    """The first sentence, cut to ``limit`` characters."""
    first = text.split(". ")[0].removesuffix(".")
    return first if len(first) <= limit else first[: limit - 1] + "…"


def facts() -> list[dict[str, str | None]]:
    """The same for programs: one entry a key."""
    return [
        {
            "key": key.name,
            "section": key.section,
            "description": key.description,
            "allowed": key.allowed,
            "default": default_text(key),
            "method": key.method,
            "tasks": " ".join(key.tasks) if key.tasks else None,
            "example": example_text(key),
        }
        for key in keys().values()
    ]
