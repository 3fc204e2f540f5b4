"""``tunewright new``: copies an example that comes with Tunewright, with your own names in its recipe."""

from __future__ import annotations

from pathlib import Path

import click

from tunewright.cli.main import emit, json_option, verb
from tunewright.errors import InputError, RunError
from tunewright.text import _

_SKIPPED = ("runs", "__pycache__")


@verb(next="tunewright train identity")
@click.argument("example", metavar="[NAME]", required=False)
@click.option("--name", help=_("The model's new name (data.variables.name)."))
@click.option("--author", help=_("Who made it (data.variables.author)."))
@click.option("--out", metavar="DIR", help=_("Folder to write; the example's name by default."))
@json_option
def command(example: str | None, name: str | None, author: str | None, out: str | None, as_json: bool) -> None:
    """Start from the example NAME: copies its data and recipe into a new folder. Without NAME, list the examples.

    The names go into the recipe, not into the data: placeholders such as {{name}} stay, and are filled when the
    recipe is trained. Nothing is ever overwritten.
    """
    found = examples()
    if example is None:
        lines = [f"{folder.name:<12} {_title(folder)}" for folder in found.values()]
        text = "\n".join([*lines, "", _("Next: {command}", command=f"tunewright new {next(iter(found))}")])
        emit(as_json, [{"name": key, "title": _title(folder)} for key, folder in found.items()], text)
        return
    if example not in found:
        raise InputError(
            _("there is no example {name}", name=repr(example)),
            do=_("examples: {names}", names=", ".join(found)),
            command="tunewright new",
        )
    target = Path(out or example)
    values = {"data.variables.name": name, "data.variables.author": author}
    _copy(found[example], target, {key: value for key, value in values.items() if value is not None})
    emit(
        as_json,
        {"folder": str(target), "recipe": str(target / "recipe.yaml")},
        _("wrote {folder}", folder=target) + "\n\n" + _("Next: {command}", command=f"tunewright train {target}"),
    )


def examples() -> dict[str, Path]:
    """The example folders by name: from the installed package, or from the working copy it was installed from."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples", package.parents[1] / "examples"):
        found = {path.parent.name: path.parent for path in sorted(place.glob("*/recipe.yaml"))}
        if found:
            return found
    raise InputError(_("this installation came without its examples"), command="tunewright doctor")


def _title(folder: Path) -> str:
    readme = folder / "README.md"
    first = readme.read_text(encoding="utf-8").splitlines()[:1] if readme.exists() else []
    return first[0].lstrip("# ") if first else ""


def _copy(source: Path, target: Path, values: dict[str, str]) -> None:
    """All files of ``source`` into the new folder ``target``. Everything is read before the first byte is written."""
    from tunewright import rundir
    from tunewright.recipe.nodes import replaced

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(
            _("the folder exists already"),
            where=str(target),
            do=_("give another one with --out"),
            command="tunewright new --help",
        )
    contents = {
        file.relative_to(source): file.read_bytes()
        for file in sorted(source.rglob("*"))
        if file.is_file()
        and not any(part in _SKIPPED or part.startswith(".") for part in file.relative_to(source).parts)
    }
    recipe = Path("recipe.yaml")
    contents[recipe] = replaced(contents[recipe].decode("utf-8"), str(source / recipe), values).encode("utf-8")
    for name, content in contents.items():
        rundir.write_bytes(target / name, content)
