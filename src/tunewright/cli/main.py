"""The frame of the command line: which verbs there are, how errors end, and what a verb file looks like.

A verb is one file ``cli/NAME.py`` with an attribute ``command``; its name, group and one line of help stand in
``VERBS`` below, so that ``tunewright --help`` imports no verb. It looks like this::

    import click
    from tunewright.cli.main import emit, json_option, set_log, verb

    @verb(next="tunewright chat")                     # click.command, with the help's last line
    @click.argument("run", required=False)
    @json_option                                      # adds --json and the argument as_json
    def command(run: str | None, as_json: bool) -> None:
        \"\"\"One sentence: what the verb does.

        More, if it needs saying.
        \"\"\"
        from tunewright.report.page import build      # heavy imports inside, so that --help stays quick

        emit(as_json, {"path": path}, f"wrote {path}")  # JSON for programs, or the text for people

A verb with verbs of its own (``data check``) is a ``@verb_group(next=…)`` with ``@command.command(**after("…"))``.
A verb raises the errors of ``tunewright.errors`` and catches none: ``main`` turns them into a message and an exit code
(0 done, 1 our fault, 2 the input's fault, 130 interrupted, 141 the reader of a pipe went away).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tunewright import __version__
from tunewright.errors import InputError, ResourceError, TunewrightError
from tunewright.settings import before_torch, settings
from tunewright.text import _

# group -> verb -> (one line of help). The module is tunewright.cli.VERB.
VERBS: dict[str, dict[str, str]] = {
    "Start": {
        "new": "Start from an example, filled in with your names.",
        "train": "Train on a data file or a recipe, and measure before and after.",
        "chat": "Talk to a run (the last one by default), or to a base.",
    },
    "Before training": {
        "data": "Check, show and measure data.",
        "plan": "Foresee memory, time and disk before anything is loaded.",
        "models": "List the bases on offer.",
        "recipe": "Explain what a key of a recipe does.",
    },
    "After training": {
        "predict": "Labels, translations or answers of a run for the rows of a file.",
        "evaluate": "Measure a run again, on its held-out rows or on other data.",
        "compare": "Put runs on the same held-out rows side by side.",
        "report": "Write the page of a run anew.",
        "serve": "Serve runs to clients of OpenAI's API.",
        "export": "Hand a run to other software: adapter, merged, GGUF, Ollama, model card.",
        "verify": "Prove that a run is what it says: template, stops, merge, resume.",
        "resume": "Go on with a run that was interrupted.",
        "rerun": "Repeat a finished run from its folder, and compare the two.",
    },
    "When something is wrong": {
        "doctor": "Check this machine and this installation.",
    },
}

# What a system says of a path that it cannot follow, or that it does not let one use. A file that is not there is none
# of these: that a verb can ask beforehand.
ITS_PATH = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENXIO,
)  # fmt: skip
_LONGEST_PATH = 300  # characters of one that are shown

_log: Path | None = None


def set_log(path: str | os.PathLike[str] | None) -> None:
    """From now on tracebacks of our own faults go to this file (a run's ``log.txt``)."""
    global _log
    _log = None if path is None else Path(path)


# ---- what verb files use ---------------------------------------------------------------------------------------


def after(next: str) -> dict[str, Any]:
    """Keyword arguments for a click command or group: its help ends with what to type next.

    Each command has the settings of help itself, for click remembers the help option of the first call: made outside
    of the app, as some programs do, it would lack ``-h`` ever after.
    """
    return {
        "epilog": _("Next: {command}", command=next),
        "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 80},
    }


def verb(next: str) -> Callable[[Callable[..., Any]], click.Command]:
    """``click.command`` whose help ends with what to type next."""
    decorate: Callable[[Callable[..., Any]], click.Command] = click.command(**after(next))
    return decorate


def verb_group(next: str) -> Callable[[Callable[..., Any]], click.Group]:
    """``click.group`` whose help ends with what to type next; without a verb of its own it prints that help."""

    def decorate(function: Callable[..., Any]) -> click.Group:
        return click.group(cls=_Group, **after(next))(function)

    return decorate


json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help=_("Print JSON for programs instead of text for people.")
)


def emit(as_json: bool, data: Any, text: str) -> None:
    """A result on standard output: ``data`` as one JSON document, or ``text``."""
    click.echo(json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) if as_json else text)


# ---- the groups ------------------------------------------------------------------------------------------------


class _Group(click.Group):
    """A group that prints its help when it is called alone, and names the nearest verb to a misspelt one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(0)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            import difflib

            close = difflib.get_close_matches(args[0].lower(), self.list_commands(ctx), n=1, cutoff=0.5)
            hint = "; " + _("did you mean `{name}`?", name=close[0]) if close else ""
            raise click.UsageError(_("there is no verb `{name}`", name=args[0]) + hint, ctx=ctx)
        return super().resolve_command(ctx, args)


class _Verbs(_Group):
    """The verbs of the table, each imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for verbs in VERBS.values() for name in verbs]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"tunewright.cli.{name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"tunewright.cli.{name}.command is no click command")
        command.name = name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.list_commands(ctx))
        for group, verbs in VERBS.items():
            with formatter.section(_(group)):
                formatter.write_dl([(name.ljust(width), _(line)) for name, line in verbs.items()])


@click.group(
    cls=_Verbs,
    help=_("From a data file to a measurably better chat model.\n\nThe shortest way: `tunewright train data.jsonl`."),
    **after("tunewright new identity --name Wren"),
)
@click.version_option(__version__, "--version", message="tunewright %(version)s")
def app() -> None:
    """The verbs. ``main`` is what runs them."""


# ---- how it ends -----------------------------------------------------------------------------------------------


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Every error, whatever it is, ends here."""
    before_torch()
    words = list(sys.argv[1:] if args is None else args)
    as_json = "--json" in words
    set_log(None)
    try:
        result = app.main(words, prog_name="tunewright", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        return _report(_usage(error), as_json)
    except InputError as error:
        return _report(error, as_json)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\n" + _("interrupted") + "\n  type:  tunewright --help", err=True)
        return 130
    except BrokenPipeError:
        return _quiet()
    except MemoryError:
        return _report(_no_memory(), as_json)
    except RuntimeError as error:
        return _report(_no_memory(), as_json) if _wants_memory(error) else _our_fault(error, words, as_json)
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _quiet()
        if error.errno == errno.ENOMEM:
            return _report(_no_memory(), as_json)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return _report(_disk_full(error), as_json)
        its_path = error.errno in ITS_PATH and error.filename is not None
        return _report(_unusable(error, words), as_json) if its_path else _our_fault(error, words, as_json)
    except ValueError as error:
        its_path = "embedded null" in str(error)  # what Python says of a NUL in a path, which no system has
        return _report(_nul(words), as_json) if its_path else _our_fault(error, words, as_json)
    except SystemExit as error:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # click met the broken pipe before us
            return 141
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        return _our_fault(error, words, as_json)


def _report(error: TunewrightError, as_json: bool) -> int:
    """The message on standard error, as JSON on standard output too if that was asked for."""
    if as_json:
        click.echo(json.dumps(error.as_dict(), ensure_ascii=False))
    click.echo(_("error: {message}", message=error), err=True)
    return error.exit_code


def _usage(error: click.ClickException) -> TunewrightError:
    """A mistake on the command line as one of our errors, ending in the help of the verb it belongs to."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "tunewright"
    message = error.format_message().rstrip(".")
    return InputError(message[:1].lower() + message[1:], command=f"{path} --help")


def _no_memory() -> TunewrightError:
    return ResourceError(
        _("there is not enough memory"),
        do=_("close other programs, or take a smaller base or shorter rows"),
        command="tunewright plan --help",
    )


def _wants_memory(error: RuntimeError) -> bool:
    """torch's way of saying it, on a CPU and on a GPU; torch itself may not be imported here."""
    said = str(error).lower()
    return any(text in said for text in ("can't allocate memory", "out of memory", "cannot allocate memory"))


def _disk_full(error: OSError) -> TunewrightError:
    return ResourceError(
        _("the disk is full"),
        where=str(error.filename) if error.filename else None,
        do=_("free some space, or give another folder with --out"),
        command="tunewright doctor",
    )


def _unusable(error: OSError, words: Sequence[str]) -> TunewrightError:
    """Of a path that the system refuses, whichever verb it was given to."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return ResourceError(
        _("this path cannot be used: {why}", why=error.strerror or error),
        where=path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH - 40]}…{path[-40:]}",
        do=_("give another path, or the right to use this one"), command=_help(words),
    )  # fmt: skip


def _nul(words: Sequence[str]) -> TunewrightError:
    given = next((word for word in words if "\0" in word), None)
    return ResourceError(
        _("a path holds a NUL byte, which no path can"), where=repr(given) if given else None,
        do=_("write the path without it"), command=_help(words),
    )  # fmt: skip


def _help(words: Sequence[str]) -> str:
    """That of the verb that was asked for."""
    verbs = {name for group in VERBS.values() for name in group}
    return " ".join(["tunewright", *(word for word in words[:1] if word in verbs), "--help"])


def _quiet() -> int:
    """The reader of our output went away (``| head``): nothing to say, and nobody to say it to."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
    return 141


def _our_fault(error: BaseException, words: Sequence[str], as_json: bool) -> int:
    """One line on the screen, the traceback in a file that the line names."""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    text = "".join(traceback.format_exception(error))
    place = None
    for path in (_log, settings().cache / "crash.log"):
        if path is not None and place is None:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(f"tunewright {__version__}: tunewright {' '.join(words)}\n{text}\n")
                place = path
    if place is None:
        click.echo(text, err=True)
    fault = TunewrightError(
        _("this is a fault of Tunewright's own: {what}", what=what),
        where=_("traceback in {file}", file=place) if place else None,
        do=_("please report it with that file"),
    )
    return _report(fault, as_json)
