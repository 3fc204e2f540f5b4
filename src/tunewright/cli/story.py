"""What ``train`` and ``resume`` show around the story: the end of it, and how to go on after Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.api import written
from tunewright.cli.screen import Screen, leave_terminal
from tunewright.evaluate import learned, table
from tunewright.rundir import RunDir
from tunewright.serve import server, snippets
from tunewright.signals import hearing
from tunewright.text import _
from tunewright.train.ranks import join


@dataclass(frozen=True)
class Told:
    data: dict[str, Any]
    text: str


@contextlib.contextmanager
def lasting(screen: Screen) -> Iterator[None]:
    """SIGTERM is heard like Ctrl-C. A terminal that closes (SIGHUP) ends no training: it goes on without one."""

    def closed(_number: int, _frame: Any) -> None:
        leave_terminal()
        screen.log(
            _("The terminal was closed; process {pid} goes on without it. To save and stop: kill {pid}",
              pid=os.getpid())
        )  # fmt: skip

    heard: dict[signal.Signals, Any] = {signal.SIGTERM: signal.default_int_handler}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what ``nohup`` does
        heard[signal.SIGHUP] = closed
    with hearing(heard):
        yield


def told(tell: Callable[[Screen], RunDir], set_log: Callable[[Path], None]) -> Told:
    """Run the story, write curve and page, and put the result into words and numbers."""
    screen = Screen(set_log)
    with lasting(screen):
        return _told(screen, tell)


def _told(screen: Screen, tell: Callable[[Screen], RunDir]) -> Told:
    try:
        run = tell(screen)
    except KeyboardInterrupt:
        if screen.run is None:
            raise
        screen.say(_("Stopped; everything up to the last checkpoint is saved."))
        screen.say(f"  type:  tunewright resume {screen.run}")
        raise SystemExit(130) from None
    except BaseException:
        if screen.run is not None:
            _page(screen.run)
        raise
    if not join().first:  # another process tells it
        raise SystemExit(0)
    written(run)
    evaluation = rundir.read_json(run.file(rundir.EVALUATION))
    screen.console.print()
    screen.console.print(table.table(evaluation))
    screen.console.print(table.legend(), style="dim")
    screen.console.print(table.answers(evaluation, 3))
    if line := learned.recited_line(evaluation):
        screen.say(line)
    lines = [evaluation["verdict"], "", _("Report:  {path}", path=run.file(rundir.REPORT)), *_next(run, evaluation)]
    return Told({"run": str(run), "verdict": evaluation["verdict"]}, "\n".join(lines))


def _next(run: RunDir, evaluation: dict[str, Any]) -> list[str]:
    """What one may type now: to talk to a model that answers, to hand rows to one that gives labels or outputs; and how
    a program calls it once it is served."""
    gives = evaluation.get("gives", "answers")
    if gives == "answers":
        lines = [_("Talk:    tunewright chat"), _("Ask:     tunewright chat -m \"…\" --compare")]
    elif gives == "likelihood":
        lines = []
    else:
        lines = [_("Predict: tunewright predict {run} FILE -o out.jsonl", run=run)]
    name = run.path.resolve().name
    asked = snippets.question([str(row.get("prompt") or row.get("text") or "") for row in evaluation.get("rows", [])])
    lines.append(_("Serve:   tunewright serve"))
    if (missing := server.missing_package()) is not None:  # the core alone is installed, as `make demo` does it
        lines.append(_("         ({do})", do=missing.do))
    lines += ["", snippets.curl(name, gives, asked)]
    return [*lines, "", snippets.python(name, gives, asked)]


def _page(run: RunDir) -> None:
    """A run that failed has a page as well, as far as it came; its own faults must not hide the first."""
    try:
        written(run)
    except Exception as error:
        with open(run.file(rundir.LOG), "a", encoding="utf-8") as log:
            log.write(f"the page could not be written: {error!r}\n")
