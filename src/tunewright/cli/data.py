"""``tunewright data``: what a file holds, before anything is trained on it. Needs no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunewright.cli.main import after, emit, json_option, verb_group
from tunewright.text import _

if TYPE_CHECKING:
    from tunewright.data.codec import Codec
    from tunewright.data.load import Loaded, Reading
    from tunewright.example import Chat, Rendered
    from tunewright.recipe.schema import Recipe

_BAR = 40  # widest bar of the histogram, in characters


@verb_group(next="tunewright data check FILE")
def command() -> None:
    """Check, show and measure data."""


_source = click.argument("source")
_overrides = click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
_base = click.option("--base", metavar="NAME", help=_("Base whose template and tokenizer are used (the recipe's)."))


def _load(source: str, overrides: Sequence[str], base: str | None = None) -> tuple[Recipe, Reading, Loaded]:
    """The recipe with its task chosen (and its base, if ``base`` is to be used in its place), how rows are read, and
    the rows."""
    from tunewright.data.guess import guess_task, reading_of
    from tunewright.data.load import find, load
    from tunewright.recipe.load import changed, require_used
    from tunewright.recipe.load import load as load_recipe
    from tunewright.recipe.schema import Data

    if not Path(source).suffix.lower().startswith((".yaml", ".yml")) and not os.path.exists(source):
        find(Data(train=[source]))  # says which file may have been meant
    typed = load_recipe(source, overrides)
    recipe = typed.recipe
    if recipe.task == "auto":
        recipe = changed(recipe, {"task": guess_task(recipe.data)[0]})
        require_used(typed, recipe)
    if base is not None:
        recipe = changed(recipe, {"base": base})
    reading = reading_of(recipe)
    return recipe, reading, load(recipe.data, *find(recipe.data), reading)


def _require_page(html: str, source: str, recipe: Recipe, fix: str | None = None) -> None:
    """Raises DataError if a page at ``html`` would replace what it is about, or the copy that is written beside it."""
    from tunewright.data.fix import ledger_path
    from tunewright.data.load import find
    from tunewright.report.place import require

    sources = [one for found in find(recipe.data) for one in found]
    files = [one.path for file in sources for one in (file, file.beside) if one is not None]
    copies = [] if fix is None else [Path(fix), ledger_path(Path(fix))]
    folders = [one.folder for one in sources if one.folder is not None]
    require(Path(html), [Path(source), *files, *copies], folders)


def _codec(recipe: Recipe, labels: Sequence[str]) -> tuple[Codec, str]:
    """What writes the rows for the recipe's base, and that base's name."""
    from tunewright.data.template import ChatTemplate
    from tunewright.model.source import fetch
    from tunewright.recipe.load import Loaded as Typed
    from tunewright.train.decide import decide, decide_head

    recipe = decide(Typed(recipe, {}, None))[0]
    base = fetch(recipe.base)
    if recipe.task == "chat":  # without torch, so that it stays quick
        return ChatTemplate.from_folder(base.folder, recipe.data.chat_template, recipe.data.learn_thinking), recipe.base
    from tunewright.tasks import task_of

    recipe = decide_head(recipe, base.folder)[0]
    task = task_of(recipe)
    task.require(base.folder, base.name)
    return task.codec(base.folder, recipe, labels), recipe.base


def _context(base: str) -> int:
    """How many tokens the base can hold."""
    from tunewright.model.memory import describe
    from tunewright.model.source import fetch

    return describe(fetch(base).folder).max_length or 4096


# -- check -----------------------------------------------------------------------------------------------------------


@command.command(**after("tunewright data show FILE"))
@_source
@_overrides
@click.option("--base", metavar="NAME", help=_("Count tokens with this base; else long rows are estimated."))
@click.option("--html", metavar="OUT", type=click.Path(dir_okay=False), help=_("Write a page with examples, too."))
@click.option("--fix", metavar="OUT", help=_("Write a cleaned copy of the training rows (.jsonl, .json, .csv, .tsv)."))
@click.option("--overwrite", is_flag=True, help=_("Let --fix replace a file that exists."))
@json_option
@click.pass_context
def check(
    ctx: click.Context, source: str, overrides: tuple[str, ...], base: str | None, html: str | None, fix: str | None,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Look for everything odd in SOURCE (data or a recipe).

    --fix repairs what is mechanically certain (exact duplicates, broken and control characters, spaces around labels,
    rows with nothing to learn) in a copy, with a ledger beside it; SOURCE is never changed. Ends with 2 if a training
    would be refused, with --fix one on the copy.
    """
    from tunewright.cli import checking
    from tunewright.data.fix import fix as fix_rows
    from tunewright.data.inspect import inspect
    from tunewright.data.prepare import max_length

    recipe, reading, loaded = _load(source, overrides, base)
    if html is not None:
        _require_page(html, source, recipe, fix)
    if base is None:
        found = inspect(loaded, recipe.data, reading)
    else:
        codec, context = _codec(recipe, loaded.labels)[0], _context(recipe.base)
        found = inspect(loaded, recipe.data, reading, codec, max_length(recipe.data, context))
    if html is not None:
        from tunewright.report import findings as page

        page.write(Path(html), source, recipe.task, loaded, found)
    fixed = fix_rows(recipe.data, reading, Path(fix), overwrite) if fix is not None else None
    text = checking.as_text([source, *overrides], recipe.task, loaded, found, fixed, html)
    emit(as_json, checking.as_json(recipe.task, loaded, found, fixed), text)
    left = found if fixed is None else fixed.left
    ctx.exit(2 if any(finding.severity == "error" for finding in left) else 0)


# -- show ------------------------------------------------------------------------------------------------------------


@command.command(**after("tunewright train FILE"))
@_source
@_overrides
@click.option("--row", type=click.IntRange(min=1), default=1, show_default=True, help=_("Which conversation, from 1."))
@_base
@click.option("--html", type=click.Path(dir_okay=False), help=_("Write a page instead of colours."))
@click.option("--plain", is_flag=True, help=_("Brackets ⟦ ⟧ around what is learned instead of colours."))
@json_option
def show(
    source: str, overrides: tuple[str, ...], row: int, base: str | None, html: str | None, plain: bool, as_json: bool
) -> None:
    """Show one row of SOURCE as the model sees it: grey is context, bright is learned."""
    recipe, reading, loaded = _load(source, overrides, base)
    if html is not None:
        _require_page(html, source, recipe)
    from tunewright.data.findings import short

    chat = _chat(loaded, row)
    codec, _base_name = _codec(recipe, loaded.labels)
    [rows] = codec.render_many([chat])
    place = short(chat.origin)
    if html is not None:
        from tunewright.data.show import page
        from tunewright.report.place import write

        write(Path(html), page(rows, codec, place))
        emit(as_json, {"file": html}, _("wrote {file}", file=html))
        return
    painted = plain or not sys.stdout.isatty()
    text = [_paint(rendered, codec, painted) for rendered in rows]
    tail = "\n".join(_show_notes(chat, rows, codec, reading, place))
    if as_json:
        emit(True, {"row": row, "place": place, "rendered": [_tokens(r, codec) for r in rows]}, "")
        return
    click.echo("\n\n".join(text) or _("Nothing is learned from this row."), color=not painted)
    click.echo("\n" + tail, err=True)


def _chat(loaded: Loaded, row: int) -> Chat:
    from tunewright.errors import DataError

    chats = [*loaded.chats, *loaded.validation]
    if row > len(chats):
        raise DataError(
            _("there are {count} rows", count=len(chats)), where=f"--row {row}", do=_("give a smaller number")
        )
    return chats[row - 1]


def _paint(rendered: Rendered, codec: Codec, plain: bool) -> str:
    from tunewright.data.show import bracketed

    if plain:
        return bracketed(rendered, codec)
    pieces = codec.pieces(rendered)
    painted = []
    for number, (piece, learned) in enumerate(zip(pieces, rendered.learn.tolist(), strict=True)):
        # Every other token a shade darker, so that the eye sees where tokens end.
        colour = ("bright_green", "green")[number % 2] if learned else ("bright_black", "white")[number % 2]
        painted.append(click.style(piece, fg=colour, bold=learned or None, dim=None if learned else True))
    return "".join(painted)


def _tokens(rendered: Rendered, codec: Codec) -> list[dict[str, Any]]:
    ids = rendered.ids.tolist()
    return [
        {"id": token, "text": piece, "learned": learned}
        for token, piece, learned in zip(ids, codec.pieces(rendered), rendered.learn.tolist(), strict=True)
    ]


def _show_notes(chat: Chat, rows: Sequence[Rendered], codec: Codec, reading: Reading, place: str) -> list[str]:
    from tunewright.data.thinking import thinks

    total, learned = sum(row.length for row in rows), sum(row.learned for row in rows)
    lines = [_("{place}: {total} tokens, {learned} of them learned", place=place, total=total, learned=learned)]
    if reading.reads == "labels":
        total = sum(codec.size(row) for row in rows)
        lines = [_("{place}: {total} tokens, and the label is learned", place=place, total=total)]
    added = codec.adds_system()
    if added and not any(message.role == "system" for message in chat.messages):
        lines.append(_("the template adds a system prompt by itself: {text}", text=repr(added)))
    typed = sorted({word for message in chat.messages for word in codec.specials_in(message.content)})
    if typed:
        lines.append(_("special tokens typed in the text, kept as text: {names}", names=", ".join(typed)))
    thinking = thinks(chat)
    if thinking and not getattr(codec, "learn_thinking", True):
        lines.append(_("the chain of thought is context: data.learn_thinking is false"))
    return [*lines, *(note for note in codec.notes if thinking or "<think>" not in note)]


# -- stats -----------------------------------------------------------------------------------------------------------


@command.command(**after("tunewright train FILE"))
@_source
@_overrides
@_base
@json_option
def stats(source: str, overrides: tuple[str, ...], base: str | None, as_json: bool) -> None:
    """Measure SOURCE: lengths in tokens, share learned, languages, duplicates."""
    from tunewright.data.inspect import measure

    recipe, reading, loaded = _load(source, overrides, base)
    codec, name = _codec(recipe, loaded.labels)
    measured = measure(loaded, codec, reading)
    emit(as_json, {"base": name, **measured}, _stats_text(measured, name, " ".join([source, *overrides])))


def _stats_text(measured: dict[str, Any], base: str, source: str) -> str:
    first = _("{rows} rows, {tokens} tokens", rows=measured["rows"], tokens=measured["tokens"])
    if "labels" in measured:
        names = ", ".join(f"{name} ({count})" for name, count in measured["labels"].items())
        first += _(", labels: {names}", names=names)
    else:
        first += _(", {share} % of them learned", share=f"{100 * measured['learned_share']:.0f}")
    lines = [first, "", _("tokens to a row (tokenizer of {base})", base=base)]
    widest = max((bar["rows"] for bar in measured["histogram"]), default=0)
    for bar in measured["histogram"]:
        length = round(_BAR * bar["rows"] / widest) if widest else 0
        drawn = "█" * length or ("▏" if bar["rows"] else "")
        lines.append(f"{bar['from']:>7} - {bar['to']:<7} {drawn:<{_BAR}} {bar['rows']}")
    lines += [
        "",
        _("mean {mean}, median {median}, 95 of 100 rows up to {p95}, longest {longest}", **measured["lengths"]),
        _(
            "written in: {names}",
            names=", ".join(f"{n} ({c})" for n, c in measured["languages"].items()) or _("nothing"),
        ),
        _("copies of another row: {exact} exact, {near} near", **measured["duplicates"]),
        "",
        _("  type:  tunewright train {source}", source=source),
    ]
    return "\n".join(lines)
