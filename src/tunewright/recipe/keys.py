"""What the schema says about each key, in a form that messages, ``recipe explain`` and the docs share.

Everything here is worked out from the declaration in ``schema.py``; nothing is written down twice.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tunewright.recipe.schema import ONLY_FOR_METHOD, ONLY_FOR_TASK, Check, Recipe, Section
from tunewright.text import _

Kind = Literal["value", "list", "table", "checks"]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the recipe.

    name: dotted, such as ``train.epochs``.  kind: ``value`` (a scalar), ``list`` of texts, ``table`` of texts by name
    or ``checks``.  text: a scalar stays the text that was typed (``no`` is a name, not a truth value).
    empty: ``null`` is allowed.  allowed: what may stand there, in words.  method: the only ``train.method`` that
    reads this key, or None for all.  tasks: the only tasks that read it, or None for all.
    """

    name: str
    kind: Kind
    text: bool
    empty: bool
    allowed: str
    default: Any
    description: str
    examples: tuple[str, ...]
    method: str | None
    tasks: tuple[str, ...] | None

    def used_by(self, recipe: Recipe) -> bool:
        """Whether a run of this recipe reads the key. A task that is not chosen yet may read anything."""
        of_task = self.tasks is None or recipe.task == "auto" or recipe.task in self.tasks
        return of_task and self.method in (None, recipe.train.method)

    @property
    def section(self) -> str | None:
        return self.name.rpartition(".")[0] or None


@cache
def keys() -> Mapping[str, Key]:
    """Every key by its dotted name, in the order of the declaration."""
    return {key.name: key for key in _of(Recipe, "")}


@cache
def sections() -> Mapping[str, str]:
    """Every section with its description."""
    fields = Recipe.model_fields
    return {name: field.description or "" for name, field in fields.items() if isinstance(field.default, Section)}


def _of(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        if isinstance(field.default, Section):
            yield from _of(type(field.default), f"{prefix}{name}.")
        else:
            yield _key(prefix + name, hints[name], field)


def _key(name: str, hint: Any, field: FieldInfo) -> Key:
    choices = list(_choices(hint))
    kinds = {get_origin(choice) or choice for choice, _bounds in choices}
    kind: Kind = "value"
    if dict in kinds:
        kind = "table"
    elif list in kinds:
        kind = "checks" if _element(choices) is Check else "list"
    return Key(
        name=name,
        kind=kind,
        text=str in kinds,
        empty=type(None) in kinds,
        allowed=_allowed(choices, kind),
        default=field.default,
        description=field.description or "",
        examples=tuple(str(example) for example in field.examples or ()),
        method=ONLY_FOR_METHOD.get(name.split(".")[0]),
        tasks=ONLY_FOR_TASK.get(name) or ONLY_FOR_TASK.get(name.split(".")[0]),
    )


def _choices(hint: Any, bounds: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The alternatives of a type, each with its bounds: ``Auto | Positive`` gives a Literal and an int with Ge(1)."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        found = [m for extra in extras for m in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
        yield from _choices(inner, (*bounds, *found))
    elif get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _choices(part, bounds)
    else:
        yield hint, bounds


def _element(choices: list[tuple[Any, tuple[Any, ...]]]) -> Any:
    for choice, _bounds in choices:
        if get_origin(choice) is list:
            return next(_choices(get_args(choice)[0]))[0]
    return None


def _allowed(choices: list[tuple[Any, tuple[Any, ...]]], kind: Kind) -> str:
    if kind == "checks":
        kinds = ", ".join(f"`{name}`" for name in get_args(Check.model_fields["kind"].annotation))
        return _("a list of checks, each `kind` or `kind: value`, of the kinds {kinds}", kinds=kinds)
    words = [_words(choice, bounds) for choice, bounds in choices if choice is not type(None)]
    if any(choice is type(None) for choice, _bounds in choices):
        words.append(_("`null` for none"))
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + _(" or ") + words[-1]


def _words(choice: Any, bounds: tuple[Any, ...]) -> str:
    if get_origin(choice) is Literal:
        names = [f"`{value}`" for value in get_args(choice)]
        return names[0] if len(names) == 1 else _("one of ") + ", ".join(names)
    if get_origin(choice) is dict:
        name = get_args(choice)[0]
        if get_origin(name) is Literal:
            return _("names with texts, the names being {names}", names=", ".join(f"`{n}`" for n in get_args(name)))
        return _("names with texts")
    if get_origin(choice) is list:
        return _("a text or a list of texts")
    plain = {str: _("a text"), bool: _("`true` or `false`"), int: _("a whole number"), float: _("a number")}
    return plain[choice] + _bounds(bounds)


def _bounds(bounds: tuple[Any, ...]) -> str:
    words = []
    for bound in bounds:
        if isinstance(bound, Ge):
            words.append(_("{limit} or more", limit=bound.ge))
        elif isinstance(bound, Gt):
            words.append(_("above {limit}", limit=bound.gt))
        elif isinstance(bound, Le):
            words.append(_("at most {limit}", limit=bound.le))
        elif isinstance(bound, Lt):
            words.append(_("below {limit}", limit=bound.lt))
    return " (" + ", ".join(words) + ")" if words else ""


def nearest(name: str) -> str | None:
    """The key (or section) that was probably meant: by its whole name, or by its last part (``epochs``)."""
    known = [*keys(), *sections()]
    by_last: dict[str, str] = {}
    for key in known:
        by_last.setdefault(key.rpartition(".")[2], key)
    last = name.rpartition(".")[2].lower().replace("-", "_")
    if last in by_last:
        return by_last[last]
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.7)
    if close:
        return close[0]
    close = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.65)
    return by_last[close[0]] if close else None
