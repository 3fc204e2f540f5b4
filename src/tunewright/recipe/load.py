"""From a recipe file, or from a data file alone, to the typed ``Recipe`` and where each of its values came from.

    load("recipe.yaml", ["train.epochs=2"])     a recipe and overrides
    load("data.jsonl")                          a data file or folder: zero configuration
    load("examples/identity")                   a folder that holds a recipe.yaml

All problems of a recipe are reported together, each with its line and key.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunewright.errors import DataError, RecipeError
from tunewright.recipe.draft import COMMAND_LINE, Draft, Problem, absolute, from_file, from_overrides, short
from tunewright.recipe.dump import dump
from tunewright.recipe.explain import explain
from tunewright.recipe.keys import keys, nearest, sections
from tunewright.recipe.schema import Recipe
from tunewright.text import _

__all__ = ["COMMAND_LINE", "DEFAULT", "Loaded", "changed", "dump", "explain", "load", "require_used"]

DEFAULT = "default"
RECIPES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Loaded:
    """recipe: complete and checked, its data paths absolute.

    sources: for each dotted key (each name of a table by itself) ``recipe.yaml:12``, ``command line`` or ``default``.
    path: of the recipe file, None where a data file was given.
    """

    recipe: Recipe
    sources: dict[str, str]
    path: Path | None


def load(source: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read ``source`` (a recipe, a folder that holds one, a data file or a folder of them) and apply ``overrides``.

    An override is ``key=value``; it wins over the file. Data paths in a file are relative to that file, on the
    command line to the working directory. Raises RecipeError, or DataError where there is nothing at ``source``.
    """
    path, label = _locate(source)
    draft = Draft()
    recipe_file = _recipe_file(path)
    if recipe_file is None:
        draft.values["data.train"] = [absolute(label, Path())]
        draft.given["data.train"] = COMMAND_LINE
    else:
        label = label if recipe_file == path else os.path.join(label, "recipe.yaml")
        from_file(draft, recipe_file, label)
    from_overrides(draft, overrides, recipe_file is None)
    recipe = _checked(draft, label)
    return Loaded(recipe, _sources(recipe, draft), recipe_file)


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """A copy with other values at dotted keys, checked like a file: ``changed(recipe, {"train.epochs": 3})``.

    Raises RecipeError for an unknown key or a value that its type does not allow.
    """
    tree = recipe.model_dump()
    for name, value in values.items():
        key = keys().get(name)
        if key is None:
            raise RecipeError(_("there is no key `{name}`", name=name), do=nearest(name))
        (tree[key.section] if key.section else tree)[name.rpartition(".")[2]] = value
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        draft = Draft(values=dict(values), given=dict.fromkeys(values, "the program"))
        _explain_types(draft, error, "the program")
        raise _error(draft.problems, "the program") from None


def require_used(loaded: Loaded, recipe: Recipe) -> None:
    """Raises RecipeError for keys of ``loaded`` that ``recipe``, whose task is chosen now, does not read."""
    label = os.fspath(loaded.path) if loaded.path else COMMAND_LINE
    draft = Draft()
    for name, where in loaded.sources.items():
        key = next((k for n, k in keys().items() if name == n or name.startswith(n + ".")), None)
        if key is not None and where != DEFAULT and not where.startswith(_("chosen: {why}", why="")):
            draft.values[key.name], draft.given[key.name] = None, where
    _unused(draft, recipe)
    if draft.problems:
        raise _error(draft.problems, label)


# ---- where the recipe is ---------------------------------------------------------------------------------------


def _locate(source: str | Path) -> tuple[Path, str]:
    label = os.fspath(source)
    try:
        label.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            _("the file name is not valid UTF-8"),
            where=ascii(label),
            do=_("rename the file"),
            command="tunewright train --help",
        ) from None
    path = Path(os.path.expanduser(label))
    if label and os.path.exists(path):  # Path.exists() raises for a name that is too long
        return path, label
    near = _near(path)
    if near and path.suffix.lower() in RECIPES and Path(near).suffix.lower() not in RECIPES:
        near = None
    meant, command = (_("did you mean {name}?", name=near), f"tunewright train {near}") if near else (None, None)
    if path.suffix.lower() in RECIPES:
        raise RecipeError(
            _("there is no recipe {name}", name=repr(label)),
            where=os.path.abspath(label.replace("\0", "")),
            do=meant or _("check the path, or start from an example"),
            command=command or "tunewright new",
        )
    raise DataError(
        _("there is no file or folder {name}", name=repr(label)),
        where=os.path.abspath(label.replace("\0", "")),
        do=meant or _("give a data file, a folder of data files, or a recipe (.yaml)"),
        command=command or "tunewright train --help",
    )


def _near(path: Path) -> Path | None:
    """The file or folder beside ``path`` that is spelt most like it."""
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):  # no such folder, or a name that no folder can have
        return None
    close = difflib.get_close_matches(path.name, [n for n in names if n[0] != "." and n.isprintable()], n=1, cutoff=0.5)
    return path.parent / close[0] if close else None


def _recipe_file(path: Path) -> Path | None:
    """The recipe at ``path``; None where ``path`` is data."""
    if path.is_dir():
        return path / "recipe.yaml" if (path / "recipe.yaml").is_file() else None
    return path if path.suffix.lower() in RECIPES else None


# ---- types, and what the types cannot say ----------------------------------------------------------------------


def _checked(draft: Draft, label: str) -> Recipe:
    """The typed recipe. Raises RecipeError with every problem found so far and here."""
    recipe: Recipe | None = None
    tree: dict[str, Any] = {}
    for name, value in draft.values.items():
        key = keys()[name]
        (tree.setdefault(key.section, {}) if key.section else tree)[name.rpartition(".")[2]] = value
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        _explain_types(draft, error, label)
    if recipe is not None:
        _unused(draft, recipe)
        _combinations(draft, recipe, label)
    if draft.problems or recipe is None:
        raise _error(draft.problems, label)
    return recipe


def _explain_types(draft: Draft, error: ValidationError, label: str) -> None:
    """One plain sentence for each key that pydantic refused."""
    refused: dict[str, str | None] = {}
    for detail in error.errors():
        parts = [str(part) for part in detail["loc"][:2]]
        name = next((n for n in (".".join(parts), parts[0] if parts else "") if n in keys()), None)
        if name is not None:
            own = detail.get("ctx", {}).get("error") if detail["type"] == "value_error" else None
            refused[name] = refused.get(name) or (str(own) if own else None)
    for name, own in refused.items():
        key = keys()[name]
        text = own or _("`{value}` is not allowed here", value=short(draft.values.get(name)))
        draft.problem(
            f"`{name}`: {text}", _place(draft, name, label), name, _("allowed: {allowed}", allowed=key.allowed)
        )


def _place(draft: Draft, name: str, label: str) -> str:
    """Where a key was given; for a table, where its first name was."""
    return next((where for given, where in draft.given.items() if given == name or given.startswith(name + ".")), label)


def _unused(draft: Draft, recipe: Recipe) -> None:
    method = recipe.train.method
    for name in draft.values:
        key = keys()[name]
        if key.used_by(recipe):
            continue
        if key.method is not None and key.method != method:
            draft.problem(
                _("`{name}` is not used by `train.method: {method}`", name=name, method=method),
                draft.given[name],
                name,
                _("remove it, or write `train.method: {method}`", method=key.method),
            )
        else:
            tasks = _(" or ").join(f"`task: {task}`" for task in key.tasks or ())
            draft.problem(
                _("`{name}` is not used by `task: {task}`", name=name, task=recipe.task), draft.given[name], name,
                _("remove it, or write {tasks}", tasks=tasks),
            )  # fmt: skip


def _combinations(draft: Draft, recipe: Recipe, label: str) -> None:
    data = recipe.data

    def against(name: str, text: str, do: str) -> None:
        draft.problem(text, _place(draft, name, label), name, do)

    if not data.train and not any(p.key == "data.train" for p in draft.problems):
        against("data.train", _("the recipe names no data"), _("write `data: {train: FILE}`"))
    if data.columns and (data.prompt is not None or data.answer is not None):
        against(
            "data.columns", _("`data.columns` and `data.prompt` are two ways to say the same"), _("keep one of them")
        )
    elif data.columns:
        _columns(data.columns, against)
    if (data.prompt is None) != (data.answer is None):
        there, missing = ("prompt", "answer") if data.answer is None else ("answer", "prompt")
        against(
            f"data.{there}",
            _("`data.{there}` needs `data.{missing}` beside it", there=there, missing=missing),
            _("write what the other turn is made of"),
        )
    if data.format == "template" and data.prompt is None and data.answer is None:
        against("data.format", _("`data.format: template` needs `data.prompt` and `data.answer`"), _("add both"))
    if data.format == "columns" and not data.columns:
        against("data.format", _("`data.format: columns` needs `data.columns`"), _("name the columns"))
    named = ("auto", "columns", "labelled", "parallel", "text")
    for name, formats in {"columns": named, "prompt": ("auto", "template")}.items():
        if getattr(data, name) and data.format not in formats:
            text = _("`data.{name}` is not used by `data.format: {format}`", name=name, format=data.format)
            against(f"data.{name}", text, _("remove one of the two"))


# What the names in `data.columns` can say together: those that must be there, and those that may.
_TOGETHER = (
    (("question", "answer"), ("system", "thinking")),
    (("text", "label"), ("pair",)),
    (("source", "target"), ()),
    (("text",), ()),
)


def _columns(columns: Mapping[Any, str], against: Callable[[str, str, str], None]) -> None:
    given = set(columns)
    if any(set(needs) <= given <= {*needs, *may} for needs, may in _TOGETHER):
        return
    needs = next((needs for needs, may in _TOGETHER if given <= {*needs, *may}), None)
    if needs is None:
        words = ", ".join(f"`{name}`" for name in columns)
        what = _("`data.columns` mixes {words}", words=words)
        against("data.columns", what, _("name the columns of one kind of row"))
    else:
        both = _(" and ").join(f"`{name}`" for name in needs)
        against("data.columns", _("`data.columns` must name both {both}", both=both), _("add the other one"))


def _error(problems: Sequence[Problem], label: str) -> RecipeError:
    if len(problems) == 1:
        [one] = problems
        return RecipeError(one.text, where=one.where, do=one.do, command=_command(one.key))
    lines = [f"  {p.where}: {p.text}" + (f" ({p.do})" if p.do else "") for p in problems]
    return RecipeError(
        _("the recipe has {count} problems", count=len(problems)) + "\n" + "\n".join(lines),
        where=label,
        do=_("mend each of them"),
        command=_command(problems[0].key),
    )


def _command(key: str | None) -> str:
    known = key if key in keys() or key in sections() else None
    return f"tunewright recipe explain {known}" if known else "tunewright recipe explain"


def _sources(recipe: Recipe, draft: Draft) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, key in keys().items():
        given = {g: where for g, where in draft.given.items() if g == name or g.startswith(name + ".")}
        found.update(given if given and key.kind == "table" else {name: draft.given.get(name, DEFAULT)})
    return found
