"""YAML text as a tree of nodes that still know their lines, with everything a recipe has no use for refused.

A scalar stays the text that was typed: the declared type of its key decides later whether ``2e-4`` is a number and
``no`` a name, so YAML's own guesses (PyYAML reads ``2e-4`` as text and ``no`` as false) never matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tunewright.errors import RecipeError
from tunewright.text import _

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
# Texts that every YAML reader, not only ours, takes for a text without quotes.
_SAFE = re.compile(r"[A-Za-z_/][\w./+-]*", re.ASCII)
_WORDS = frozenset(["null", "true", "false", "yes", "no", "on", "off", "y", "n"])
_PLAIN_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


class _Nodes(yaml.BaseLoader):
    """Composes nodes only; no Python object is ever built from a tag."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem=_("a recipe has no anchors (&) and aliases (*); quote the text if it is one"),
                problem_mark=event.start_mark,
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=_("nested too deeply"), problem_mark=event.start_mark)
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in _PLAIN_TAGS:
            raise yaml.MarkedYAMLError(
                problem=_("a recipe has no tags (!); quote the text if it is one"), problem_mark=node.start_mark
            )
        return node


def compose(text: str, where: str) -> yaml.Node | None:
    """The root node of one document; None if there is none. ``where`` is named in errors.

    Raises RecipeError where the text is no YAML.
    """
    try:
        return _composed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RecipeError(
            _("this is not valid YAML: {problem}", problem=_plain(error)),
            where=f"{where}:{mark.line + 1}" if mark else where,
            do=_("write `key: value` lines, indented with spaces"),
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(
            _("this is not valid YAML: the character {code} may not stand in it", code=f"U+{error.character:04X}"),
            where=f"{where}:{line}",
            do=_("remove it, or write it as an escape in double quotes"),
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError, IndexError) as error:
        # The last two are the parser's own slips on malformed escapes and directives.
        raise RecipeError(_("this is not valid YAML: {problem}", problem=error), where=where) from None


def _composed(text: str) -> yaml.Node | None:
    loader = _Nodes(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


def _plain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or str(error)
    if "'\\t'" in problem:
        return _("a tab cannot indent a line; use spaces")
    if "single document" in str(error.context or ""):
        return _("a second document starts here (---); a recipe is one")
    return " ".join(problem.split())


def is_null(node: yaml.Node) -> bool:
    """Nothing, ``null`` or ``~`` was typed, without quotes."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("", "~", "null", "Null", "NULL")


def is_blank(node: yaml.Node) -> bool:
    """Nothing at all was typed after the colon."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value == ""


def replaced(text: str, where: str, values: Mapping[str, str]) -> str:
    """The same text, comments and all, with other values at dotted keys that it already has.

    Raises RecipeError where a key is not in the text, or a value is empty.
    """
    spots: list[tuple[int, int, str]] = []
    for name, value in values.items():
        node = compose(text, where)
        for part in name.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            node = next((v for k, v in pairs if k.value == part), None)
        if not isinstance(node, yaml.ScalarNode):
            raise RecipeError(_("this recipe has no key `{name}`", name=name), where=where)
        if not value.strip():
            raise RecipeError(_("`{name}` has no value", name=name), where=_("command line"))
        spots.append((node.start_mark.index, node.end_mark.index, scalar(value)))
    for start, end, new in sorted(spots, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def scalar(value: Any) -> str:
    """One value as YAML. A text is quoted wherever a reader could take it for something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else _float(value)
    if isinstance(value, int):
        return str(value)
    if _SAFE.fullmatch(value) and value.lower() not in _WORDS:
        return str(value)
    quoted = yaml.dump(value, default_style='"', allow_unicode=True, width=2**31 - 1)
    return quoted.rstrip("\n")


def _float(value: float) -> str:
    """``1e-05`` as ``1.0e-05``: without the point other YAML readers would see a text."""
    mantissa, e, exponent = repr(value).partition("e")
    return repr(value) if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
