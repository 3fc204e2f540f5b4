"""What a person typed in a recipe file and on the command line, key by key, before any type is applied.

Shapes are checked here (one value, a list, a table), misspelt and repeated keys are found, and each value keeps its
place. What a value may be is the schema's business, in ``load.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunewright.errors import RecipeError, ResourceError
from tunewright.recipe.keys import Key, keys, nearest, sections
from tunewright.recipe.nodes import MAX_BYTES, compose, is_blank, is_null
from tunewright.recipe.schema import FORMERLY
from tunewright.text import _

COMMAND_LINE = "command line"
_PATHS = ("data.train", "data.validation", "data.target", "data.validation_target")


@dataclass(frozen=True, slots=True)
class Problem:
    """key: which one to explain; of a misspelt one the nearest that there is."""

    text: str
    where: str
    key: str | None = None
    do: str | None = None
    misspelt: bool = False


@dataclass(slots=True)
class Draft:
    """Values as they were typed (texts, lists and tables of texts), before any type is applied.

    given: source of each key; a table's names are keys of their own (``data.variables.name``).
    """

    values: dict[str, Any] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, text: str, where: str, key: str | None = None, do: str | None = None) -> None:
        self.problems.append(Problem(text, f"{where}, key {key}" if key else where, key, do))

    def unknown(self, name: str, where: str) -> None:
        guess = nearest(name)
        text = _("there is no key `{name}`", name=name)
        if guess is None:
            self.problem(text, where, do=_("the keys are listed by: tunewright recipe explain"))
        else:
            text += "; " + _("did you mean `{guess}`?", guess=guess)
            self.problems.append(Problem(text, where, guess, misspelt=True))


# ---- from a file -----------------------------------------------------------------------------------------------


def from_file(draft: Draft, path: Path, label: str) -> None:
    root = compose(_text(path, label), label)
    if root is None or is_null(root):
        raise RecipeError(
            _("the recipe is empty"),
            where=label,
            do=_(
                "write at least `data: {train: FILE}`",
            ),
            command="tunewright recipe explain data.train",
        )
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(
            _("a recipe is `key: value` lines, and this is {kind}", kind=_kind(root)),
            where=f"{label}:1",
            do=_("is it a data file? Those do not end in .yaml"),
        )
    _section(draft, root, "", lambda node: f"{label}:{node.start_mark.line + 1}", path.parent)


Where = Callable[[yaml.Node], str]


def _section(draft: Draft, section: yaml.MappingNode, prefix: str, where: Where, folder: Path) -> None:
    seen: set[str] = set()
    for name_node, node in section.value:
        here = where(name_node)
        if not isinstance(name_node, yaml.ScalarNode):
            draft.problem(_("a key must be a word, and this is {kind}", kind=_kind(name_node)), here)
            continue
        name = FORMERLY.get(prefix + name_node.value, prefix + name_node.value)
        if name in seen or name in draft.given:
            draft.problem(_("`{name}` is written twice", name=name), here, name, _("keep one of the two"))
        elif name in sections():
            if isinstance(node, yaml.MappingNode):
                _section(draft, node, name + ".", where, folder)
            elif not is_null(node):
                draft.problem(
                    _("`{name}` is a section of keys, and this is {kind}", name=name, kind=_kind(node)), here, name
                )
        elif name in FORMERLY.values() and isinstance(node, yaml.MappingNode):  # a key that was a section
            _section(draft, node, name + ".", where, folder)
        elif name in keys():
            _key(draft, keys()[name], node, where, here, folder)
        else:
            draft.unknown(name, here)
        seen.add(name)


def _key(draft: Draft, key: Key, node: yaml.Node, where: Where, here: str, folder: Path) -> None:
    """Take the value of one key from its node, if it has the right shape."""
    if key.kind == "table":
        _table(draft, key, node, where, here)
        return
    shaped = {"value": _scalar, "list": _list, "checks": _checks}[key.kind](key, node)
    if isinstance(shaped, _Wrong):
        draft.problem(f"`{key.name}` {shaped.text}", here, key.name, _("allowed: {allowed}", allowed=key.allowed))
        return
    draft.values[key.name] = _placed(key, shaped, folder)
    draft.given[key.name] = here


@dataclass(frozen=True, slots=True)
class _Wrong:
    text: str


def _scalar(key: Key, node: yaml.Node) -> str | _Wrong | None:
    if not isinstance(node, yaml.ScalarNode):
        return _Wrong(_("takes one value, and this is {kind}", kind=_kind(node)))
    if is_null(node) and (key.empty or not key.text or is_blank(node)):
        return None if key.empty else _Wrong(_("has no value"))
    return str(node.value)


def _list(key: Key, node: yaml.Node) -> list[str] | _Wrong:
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if is_null(node):
        return _Wrong(_("has no value (an empty list is written [])"))
    texts: list[str] = []
    for item in items:
        if not isinstance(item, yaml.ScalarNode) or is_blank(item):
            return _Wrong(_("holds {kind} where a text is expected", kind=_kind(item)))
        texts.append(item.value)
    return texts


def _checks(key: Key, node: yaml.Node) -> list[Any] | _Wrong:
    """``[number, {contains: x}]``; a lone ``contains: x`` is a list of one."""
    if is_null(node):
        return _Wrong(_("has no value (an empty list is written [])"))
    checks: list[Any] = []
    for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(item, yaml.ScalarNode):
            checks.append(item.value)
            continue
        pairs = item.value if isinstance(item, yaml.MappingNode) else []
        scalars = all(isinstance(name, yaml.ScalarNode) and isinstance(v, yaml.ScalarNode) for name, v in pairs)
        entry = {name.value: None if is_blank(v) else v.value for name, v in pairs} if scalars else {}
        if len(entry) != len(pairs) or not (len(entry) == 1 or set(entry) == {"kind", "value"}):
            return _Wrong(_("holds a check that is neither `kind` nor `kind: value`"))
        checks.append(entry)
    return checks


def _table(draft: Draft, key: Key, node: yaml.Node, where: Where, here: str) -> None:
    if is_blank(node):
        return
    if not isinstance(node, yaml.MappingNode):
        draft.problem(
            _("`{name}` takes names with texts, and this is {kind}", name=key.name, kind=_kind(node)),
            here,
            key.name,
            _("write `name: text` lines below it"),
        )
        return
    draft.values[key.name] = {}
    for name, value in node.value:
        entry = f"{key.name}.{name.value if isinstance(name, yaml.ScalarNode) else '?'}"
        here = where(name)
        if not (isinstance(name, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)) or is_blank(value):
            draft.problem(
                _("`{name}` takes one text, and this is {kind}", name=entry, kind=_kind(value)), here, key.name
            )
        elif entry in draft.given:
            draft.problem(_("`{name}` is written twice", name=entry), here, key.name, _("keep one of the two"))
        else:
            draft.values[key.name][name.value] = value.value
            draft.given[entry] = here


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return _("a list")
    if isinstance(node, yaml.MappingNode):
        return _("a section of keys")
    return _("nothing") if is_blank(node) else _("the single value `{value}`", value=short(node.value))


# ---- overrides -------------------------------------------------------------------------------------------------


def from_overrides(draft: Draft, overrides: Sequence[str], data_given: bool) -> None:
    seen = {"data.train"} if data_given else set()
    for override in overrides:
        name, equals, text = override.partition("=")
        name = FORMERLY.get(name.strip(), name.strip())
        if not equals or not name:
            draft.problem(
                _("`{override}` is no `key=value`", override=short(override)),
                COMMAND_LINE,
                do=_("several data files are given as data.train='[a.jsonl, b.jsonl]'"),
            )
        elif name in seen:
            draft.problem(_("`{name}` is given twice", name=name), COMMAND_LINE, name, _("keep one of the two"))
        else:
            _override(draft, name, text)
        seen.add(name)


def _override(draft: Draft, name: str, text: str) -> None:
    if not is_utf8(text):
        draft.problem(_("`{name}` is not valid UTF-8", name=name), COMMAND_LINE, name if name in keys() else None)
        return
    table = next((key for key in keys().values() if key.kind == "table" and name.startswith(key.name + ".")), None)
    if table is not None:
        _override_entry(draft, table, name, text)
        return
    key = keys().get(name)
    if key is None:
        if name in sections():
            example = next(k for k in keys() if k.startswith(name + "."))
            draft.problem(_("`{name}` is a section; name a key of it", name=name), COMMAND_LINE, name, f"{example}=…")
        else:
            draft.unknown(name, COMMAND_LINE)
        return
    for given in [g for g in draft.given if g == name or g.startswith(name + ".")]:
        del draft.given[given]
    draft.values.pop(name, None)
    # What the file said here no longer matters; a key that it misspells is still one that nobody reads.
    draft.problems[:] = [p for p in draft.problems if p.key != name or p.misspelt]
    _key(draft, key, _node(key, text), lambda node: COMMAND_LINE, COMMAND_LINE, Path())


def _override_entry(draft: Draft, table: Key, name: str, text: str) -> None:
    if not text:
        draft.problem(_("`{name}` has no value", name=name), COMMAND_LINE, table.name)
        return
    draft.values.setdefault(table.name, {})[name[len(table.name) + 1 :]] = text
    draft.given[name] = COMMAND_LINE


def _node(key: Key, text: str) -> yaml.Node:
    """What was typed after ``=`` as a node. Only lists, tables and checks are read as YAML: a text is a text."""
    if key.kind in ("table", "checks") or (key.kind == "list" and text.lstrip().startswith("[")):
        found = compose(text, f"{COMMAND_LINE}, key {key.name}")
        if found is not None:
            return found
    return yaml.ScalarNode("tag:yaml.org,2002:str", text if key.text else text.strip())


# ---- small things ----------------------------------------------------------------------------------------------


def _text(path: Path, label: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ResourceError(
            _("cannot read the recipe: {reason}", reason=error.strerror or error),
            where=label,
            do=_("check the permissions of the file"),
        ) from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(
            _("this file is too large for a recipe (over {limit} bytes)", limit=MAX_BYTES),
            where=label,
            do=_("is it a data file? Those do not end in .yaml"),
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            _("the recipe is not valid UTF-8"),
            where=f"{label}:{raw.count(b'%c' % 10, 0, error.start) + 1}",
            do=_("save it as UTF-8 in your editor"),
        ) from None


def _placed(key: Key, value: Any, folder: Path) -> Any:
    """Paths made absolute: those of the data, a template's file, and a base that is a folder or a file."""
    if key.name in _PATHS:
        return [absolute(path, folder) for path in value]
    if key.name == "data.chat_template" and value and value.endswith(".jinja"):
        return absolute(value, folder)
    return absolute(value, folder) if key.name == "base" and _is_path(value, folder) else value


def _is_path(base: str, folder: Path) -> bool:
    """``./mine``, ``weights.gguf``, or a folder that is there; not ``org/name`` on a hub."""
    path = os.path.expanduser(base)
    if path.startswith(("/", "./", "../")):
        return True
    return ":" not in path and (path.endswith(".gguf") or ("/" in path and os.path.exists(folder / path)))


def absolute(path: str, folder: Path) -> str:
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def short(value: Any, limit: int = 60) -> str:
    text = " ".join(str("null" if value is None else value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
