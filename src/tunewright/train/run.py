"""The whole story of a run, readable from top to bottom.

data and base meet, every auto is chosen (``ready.py``) -> the run folder opens -> the base is measured -> training ->
the tuned model is measured the same way -> before and after are compared (``measuring.py``).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.data.show import bracketed
from tunewright.data.template import ChatTemplate
from tunewright.errors import RunError
from tunewright.example import Rendered
from tunewright.infer.engines import engine_for, frozen_generation, labels_of
from tunewright.model import adapter, fast
from tunewright.model.load import DTYPES, load, quiet
from tunewright.recipe.dump import dump
from tunewright.recipe.load import Loaded
from tunewright.recipe.load import load as load_recipe
from tunewright.recipe.schema import Recipe
from tunewright.rundir import RunDir
from tunewright.text import _
from tunewright.train import checkpoints, replay
from tunewright.train.batches import Steps
from tunewright.train.best import Best, Standing
from tunewright.train.events import Listener
from tunewright.train.manifest import manifest, now, peak_memory, require_same
from tunewright.train.measuring import compared, measured_as, standing
from tunewright.train.ready import Ready, get_ready
from tunewright.train.trainer import StepTrainer, cut_metrics, fit


def train(loaded: Loaded, out: str | os.PathLike[str] | None = None, listener: Listener | None = None) -> RunDir:
    """Train, measure, write the run folder. Raises the errors of ``tunewright.errors``."""
    listener = listener or Listener()
    rundir.require_free(out)
    ready = get_ready(loaded, listener)
    run = rundir.create(_name(ready.recipe), out)
    with run.lock():
        listener.opened(run)
        _open(run, ready)
        _finish(run, ready, None, listener)
    return run


def resume(run: RunDir, listener: Listener | None = None) -> RunDir:
    """Go on with an interrupted run from its last whole checkpoint. Refuses a changed base, data or recipe."""
    listener = listener or Listener()
    with run.lock():
        if run.status().get("state") == "done":
            what = _("this run is finished")
            raise RunError(what, where=str(run), do=_("talk to it"), command=f"tunewright chat {run}")
        listener.opened(run)
        ready = get_ready(load_recipe(run.file(rundir.RECIPE)), listener)
        if run.file(rundir.MANIFEST).exists():
            require_same(run, manifest(ready.recipe, ready.base, ready.prepared))
        else:  # it ended while the folder was being opened
            _open(run, ready)
        start, skipped = checkpoints.newest(run.checkpoints)
        for sentence in skipped:
            listener.say(sentence)
        step = start.step if start else 0
        listener.say(_("Going on after step {step}.", step=step) if start else _("No checkpoint yet; starting over."))
        cut_metrics(run, step)
        _finish(run, ready, start, listener)
    return run


def _name(recipe: Recipe) -> str:
    return recipe.name or (Path(recipe.data.train[0]).stem if recipe.data.train else recipe.task)


def _open(run: RunDir, ready: Ready) -> None:
    """All that is known before training, on disk before training. The manifest comes last: where it is, all is."""
    run.set_status("preparing", pid=os.getpid(), started=now())
    dump(ready.recipe, ready.sources, run.file(rundir.RECIPE))
    rundir.write_json(run.file(rundir.LEDGER), ready.prepared.ledger)
    lines = [json.dumps(finding.as_dict(), ensure_ascii=False) + "\n" for finding in ready.prepared.findings]
    rundir.write_text(run.file(rundir.FINDINGS), "".join(lines))
    shown = [f"{row.origin}\n{bracketed(row, ready.prepared.codec)}\n" for row in list(ready.prepared.train[:3])]
    rundir.write_text(run.file(rundir.SHOWN), "\n".join(shown))
    rundir.write_json(run.file(rundir.PLAN), {"foreseen": ready.plan.as_dict(), "measured": None})
    run.file(rundir.LOG).touch()
    run.checkpoints.mkdir(exist_ok=True)
    rundir.write_json(run.file(rundir.MANIFEST), manifest(ready.recipe, ready.base, ready.prepared))
    rundir.remember(run)


def _finish(run: RunDir, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener) -> None:
    began = time.monotonic()
    try:
        _train_and_compare(run, ready, start, listener, began)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        run.set_status("stopped" if stopped else "failed", pid=os.getpid(), ended=now(), reason=reason)
        raise


def _train_and_compare(
    run: RunDir, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener, began: float
) -> None:
    recipe, task, codec = ready.recipe, ready.task, ready.prepared.codec
    precision = recipe.train.precision
    assert precision != "auto"
    generation = frozen_generation(task, ready.base, codec)
    model: Any = load(ready.base, precision, head=task.head, labels=labels_of(recipe, ready.prepared.labels))
    engine = engine_for(task, model, codec, generation, recipe)

    before = measured_as(engine, ready, _("Measuring the base"), listener)
    general = _replay(engine, ready, listener)

    model = adapter.prepare(model, recipe)
    listener.say(adapter.counts_line(model))
    steps = _steps(ready, general)
    best = None
    if recipe.train.keep == "best":
        best = Best(run.checkpoints, recipe.train.patience, start.step if start else 0)
    trained = _fit(model, steps, run, ready, generation, start, best, listener)
    if not trained:
        raise KeyboardInterrupt
    if recipe.train.method != "lora":  # what is measured is what is saved and later opened
        for parameter in model.parameters():  # not its buffers, which are fp32 in every precision
            parameter.data = parameter.data.to(DTYPES[precision])
    run.set_status("evaluating", pid=os.getpid(), step=len(steps), steps=len(steps))
    folder = run.file(rundir.ADAPTER if recipe.train.method == "lora" else rundir.MODEL)
    adapter.save(model, folder, codec.save, generation)

    engine = engine_for(task, model, codec, generation, recipe)
    after = measured_as(engine, ready, _("Measuring the tuned model"), listener)
    rundir.write_json(run.file(rundir.EVALUATION), compared(before, after, ready, listener))
    measured = {"memory_bytes": peak_memory(), "seconds": round(time.monotonic() - began, 1)}
    rundir.write_json(run.file(rundir.PLAN), {"foreseen": ready.plan.as_dict(), "measured": measured})
    if best is not None:  # until now a crash would have had to go on from it
        best.forget()
    run.set_status("done", step=len(steps), steps=len(steps), ended=now())


def _replay(engine: Any, ready: Ready, listener: Listener) -> Sequence[Rendered]:
    if not ready.recipe.retain.share:
        return []
    codec = ready.prepared.codec
    assert isinstance(codec, ChatTemplate)
    with listener.doing(_("Keeping the base's own answers"), len(replay.prompts())) as progress:
        return replay.answered(engine, codec, ready.base.sha256, ready.recipe.data.system, progress)


def _steps(ready: Ready, general: Sequence[Rendered]) -> Steps:
    settings, share = ready.recipe.train, ready.recipe.retain.share
    assert settings.batch_size != "auto" and settings.epochs != "auto" and share != "auto"
    return Steps(
        ready.prepared.train, settings.batch_size, settings.epochs, ready.recipe.seed, settings.max_steps, general,
        share,
    )  # fmt: skip


def _fit(
    model: Any, steps: Steps, run: RunDir, ready: Ready, generation: dict[str, Any],
    start: checkpoints.Checkpoint | None, best: Best | None, listener: Listener,
) -> bool:  # fmt: skip
    """Train to the end, or until the best epoch is known. False if the person stopped it."""
    recipe, task, codec = ready.recipe, ready.task, ready.prepared.codec
    budget, done = recipe.train.token_budget, start.step if start else 0
    assert budget != "auto"
    told = {"at": 0.0}
    with listener.training(len(steps), done) as show, quiet(), fast.kernels(model):

        def on_step(line: dict[str, Any]) -> None:
            show(line)
            if "step" in line and (time.monotonic() - told["at"] > 1 or line["step"] == 1):
                told["at"] = time.monotonic()
                run.set_status("training", pid=os.getpid(), step=line["step"], steps=len(steps), loss=line["loss"])

        engine = engine_for(task, model, codec, generation, recipe)
        trainer = StepTrainer(
            model, steps, recipe, run, start.token_budget if start else budget, on_step,
            lambda: task.objective(model, codec), lambda: standing(engine, ready), best,
        )  # fmt: skip
        finished = fit(trainer, start)
    if finished and best is not None and best.step is not None:
        best.restore(model)
        _say_best(best, len(steps), steps, listener)
    return finished


def _say_best(best: Best, total: int, steps: Steps, listener: Listener) -> None:
    last = best.history[-1][0]
    at: dict[int, Standing] = dict(best.history)
    assert best.step is not None
    listener.say(
        _("Kept:   epoch {epoch} of {epochs}, the best on the rows held out for choosing (loss {loss})",
          epoch=f"{steps.epoch_after(best.step):.3g}", epochs=f"{steps.epoch_after(last):.3g}",
          loss=f"{at[best.step].loss:.3f}")
    )  # fmt: skip
    if last < total:
        epochs = f"{steps.epoch_after(total):.3g}"
        listener.say(_("        stopped early; {epochs} epochs were allowed", epochs=epochs))


__all__ = ["Ready", "get_ready", "resume", "train"]
