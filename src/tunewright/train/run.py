"""The whole story of a run, readable from top to bottom.

data and base meet, every auto is chosen (``ready.py``) -> the run folder opens -> the base is measured -> training ->
the tuned model is measured the same way -> before and after are compared (``measuring.py``).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.data.show import bracketed
from tunewright.data.template import ChatTemplate
from tunewright.errors import RunError
from tunewright.evaluate import learned, retention
from tunewright.evaluate.kept import Retained, settled_line
from tunewright.example import Rendered
from tunewright.model import adapter, fast
from tunewright.model.load import DTYPES, quiet
from tunewright.recipe.dump import dump
from tunewright.recipe.load import Loaded, changed
from tunewright.recipe.load import load as load_recipe
from tunewright.recipe.schema import Recipe
from tunewright.rundir import RunDir
from tunewright.text import _
from tunewright.train import checkpoints, rehearse, replay, space
from tunewright.train.batches import Steps
from tunewright.train.best import Best, Standing
from tunewright.train.choose import SIZES
from tunewright.train.events import Listener
from tunewright.train.learner import Learner
from tunewright.train.manifest import manifest, note_trained, now, peak_memory, require_same
from tunewright.train.measuring import Measured, compared, measured_as, retained_of, standing, with_epochs
from tunewright.train.ranks import ALONE, Ranks, join
from tunewright.train.ready import Ready, get_fitting, get_ready
from tunewright.train.settle import Settled, sample, settle
from tunewright.train.trainer import StepTrainer, cut_metrics, fit

Measure = Callable[[Sequence[Rendered]], Standing]

def train(
    loaded: Loaded, out: str | os.PathLike[str] | None = None, listener: Listener | None = None,
    like: RunDir | None = None,
) -> RunDir:  # fmt: skip
    """Train, measure, write the run folder. Raises the errors of ``tunewright.errors``.

    like: a run whose base, data, template and recipe this one must have, or it does not begin.
    Where a launcher started several processes, all call this; the first of them writes and is heard.
    """
    ranks = join()
    listener = listener if listener and ranks.first else Listener()
    ranks.alone(lambda: rundir.require_free(out))
    ready = _ready(lambda: get_fitting(loaded, listener), ranks, listener)
    if like is not None:
        require_same(like, manifest(ready.recipe, ready.base, ready.prepared))
    run = ranks.of_first(lambda: rundir.create(_name(ready.recipe), out))
    with ranks.holding(run):
        listener.opened(run)
        ranks.alone(lambda: _open(run, ready))
        _finish(run, ready, None, listener, ranks)
    return run


def resume(run: RunDir, listener: Listener | None = None) -> RunDir:
    """Go on with an interrupted run from its last whole checkpoint. Refuses a changed base, data or recipe."""
    ranks = join()
    listener = listener if listener and ranks.first else Listener()
    with ranks.holding(run):
        ranks.alone(lambda: _require_unfinished(run))
        listener.opened(run)
        ready = _ready(lambda: get_ready(load_recipe(run.file(rundir.RECIPE)), listener), ranks, listener)
        start = ranks.of_first(lambda: _start(run, ready, listener))
        _finish(run, ready, start, listener, ranks)
    return run


def _ready(get: Callable[[], Ready], ranks: Ranks, listener: Listener) -> Ready:
    ready = ranks.in_turn(get)
    if ranks.count > 1:
        known = manifest(ready.recipe, ready.base, ready.prepared)
        names = ("base", "data_sha256", "template_sha256", "recipe_sha256")
        all_known = ranks.each(lambda: [known[name]["sha256"] if name == "base" else known[name] for name in names])
        if any(one != all_known[0] for one in all_known):
            raise RunError(_("the processes do not see the same base, data and recipe"),
                           do=_("give all of them the same files and versions"))  # fmt: skip
        listener.say(_("Train:  {count} processes, each with its part of every step's rows", count=ranks.count))
    return ready


def _require_unfinished(run: RunDir) -> None:
    if run.file(rundir.STATUS).exists() and run.status().get("state") == "done":
        what = _("this run is finished")
        raise RunError(what, where=str(run), do=_("talk to it"), command=f"tunewright chat {run}")


def _start(run: RunDir, ready: Ready, listener: Listener) -> checkpoints.Checkpoint | None:
    """The checkpoint to go on from, if there is one; what was written after it is forgotten."""
    run.sweep()
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
    return start


def steps_alone(run: RunDir, listener: Listener | None = None) -> None:
    """The steps of ``run``'s recipe, from its newest checkpoint if there is one, and nothing else: neither manifest nor
    measuring. What ``verify`` repeats in a folder of its own."""
    listener = listener or Listener()
    ready = get_ready(load_recipe(run.file(rundir.RECIPE)), listener)
    start, _skipped = checkpoints.newest(run.checkpoints)
    cut_metrics(run, start.step if start else 0)
    learner = Learner(ready)
    general = _replay(learner.engine(), ready, listener)
    learner.adapt()
    _fit(learner, _steps(ready, general), run, start, None, listener)


def _name(recipe: Recipe) -> str:
    return recipe.name or (Path(recipe.data.train[0]).stem if recipe.data.train else recipe.task)


def _open(run: RunDir, ready: Ready) -> None:
    """All that is known before training, on disk before training. The manifest comes last: where it is, all is."""
    dump(ready.recipe, ready.sources, run.file(rundir.RECIPE))  # first: with it alone the run can be resumed
    run.set_status("preparing", pid=os.getpid(), started=now())
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


def _finish(
    run: RunDir, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener, ranks: Ranks
) -> None:
    began = time.monotonic()
    try:
        _train_and_compare(run, ready, start, listener, ranks, began)
    except BaseException as error:
        if not ranks.first:
            raise
        stopped = isinstance(error, KeyboardInterrupt)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        run.set_status("stopped" if stopped else "failed", pid=os.getpid(), ended=now(), reason=reason)
        raise


def _train_and_compare(
    run: RunDir, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener, ranks: Ranks, began: float
) -> None:
    recipe, learner = ready.recipe, Learner(ready)
    engine = learner.engine()

    before = ranks.alone(lambda: measured_as(engine, ready, _("Measuring the base"), listener))
    general = ranks.in_turn(lambda: _replay(engine, ready, listener))

    learner.adapt()
    listener.say(adapter.counts_line(learner.model))
    steps = _steps(ready, general)
    best = None
    if recipe.train.keep == "best":
        best = Best(run.checkpoints, recipe.train.patience, start.step if start else 0)
    trained = _fit(
        learner, steps, run, start, best, listener, ranks,
        lambda trainer, measure: _rehearse(trainer, measure, ready, start, listener), retained_of(before),
    )  # fmt: skip
    if not trained:
        raise KeyboardInterrupt
    if ranks.first:
        run.set_status("evaluating", pid=os.getpid(), step=len(steps), steps=len(steps))
    ranks.alone(lambda: _compare(run, learner, before, listener, began))
    if ranks.first:
        run.set_status("done", step=len(steps), steps=len(steps), ended=now())
        if best is not None:  # until now a crash would have had to go on from it
            best.forget()


def _compare(run: RunDir, learner: Learner, before: Measured | None, listener: Listener, began: float) -> None:
    """Save the tuned model, measure it as its base was measured, and put the two side by side."""
    ready, model = learner.ready, learner.model
    recipe, precision = ready.recipe, ready.recipe.train.precision
    assert precision != "auto" and before is not None
    lines = rundir.read_lines(run.file(rundir.METRICS))
    settled = _settle(learner, lines, before, listener)
    if recipe.train.method != "lora":  # what is measured is what is saved and later opened
        for parameter in model.parameters():  # not its buffers, which are fp32 in every precision
            parameter.data = parameter.data.to(DTYPES[precision])
    folder = run.file(rundir.ADAPTER if recipe.train.method == "lora" else rundir.MODEL)
    adapter.save(model, folder, ready.prepared.codec.save, learner.generation)
    note_trained(run, folder, settled)

    after = measured_as(learner.engine(), ready, _("Measuring the tuned model"), listener, before)
    evaluation = compared(before, after, ready, listener)
    evaluation = with_epochs(evaluation, lines, after, ready)
    rundir.write_json(run.file(rundir.EVALUATION), evaluation)
    measured = {"memory_bytes": peak_memory(), "seconds": round(time.monotonic() - began, 1)}
    rundir.write_json(run.file(rundir.PLAN), rundir.read_json(run.file(rundir.PLAN)) | {"measured": measured})


def _settle(learner: Learner, lines: Sequence[dict[str, Any]], before: Measured, listener: Listener) -> Settled | None:
    """Makes the adapter as large as it stays; nothing where the recipe does not ask for it. lines: of the steps."""
    ready, recipe, base = learner.ready, learner.ready.recipe, retained_of(before)
    if recipe.lora.settle is not True or base is None:  # true for adapters alone: another method refuses the key
        return None
    engine = learner.engine()
    moved = lines[-1].get("divergence") if recipe.train.keep == "last" else None  # else of another step's weights
    moved = retention.moved(engine, base) if moved is None else float(moved)
    rows = sample(ready.prepared.train, sum(line["tokens"] for line in lines), recipe.seed)
    doing = listener.doing(_("Settling between task and base"), len(SIZES))
    with doing as progress, fast.kernels(learner.model):  # as in the steps: nothing that is reported is measured here
        found = settle(learner.model, engine, rows, moved, progress)
    listener.say(_("Settled: {line}", line=settled_line(found.as_dict())))
    return found


def _replay(engine: Any, ready: Ready, listener: Listener) -> Sequence[Rendered]:
    if not replay.share(ready.recipe):
        return []
    codec = ready.prepared.codec
    assert isinstance(codec, ChatTemplate)
    with listener.doing(_("Keeping the base's own answers"), len(replay.prompts())) as progress:
        general = replay.answered(engine, codec, ready.base.sha256, ready.recipe.data.system, progress)
    pull = replay.pull(ready.prepared.train, general)
    return [replace(row, pull=pull) for row in general]


def _steps(ready: Ready, general: Sequence[Rendered]) -> Steps:
    settings = ready.recipe.train
    assert settings.batch_size != "auto" and settings.epochs != "auto"
    return Steps(
        ready.prepared.train, settings.batch_size, settings.epochs, ready.recipe.seed, settings.max_steps, general,
        replay.share(ready.recipe),
    )  # fmt: skip


def _fit(
    learner: Learner, steps: Steps, run: RunDir, start: checkpoints.Checkpoint | None, best: Best | None,
    listener: Listener, ranks: Ranks = ALONE, rehearsal: Callable[[StepTrainer, Measure], int] | None = None,
    base: Retained | None = None,
) -> bool:  # fmt: skip
    """Train to the end, or until the best epoch is known. False if the person stopped it.

    rehearsal: called before step 1; says how many tokens a micro-batch may have.  base: what the model has moved from.
    """
    ready, model, recipe = learner.ready, learner.model, learner.ready.recipe
    budget, done = recipe.train.token_budget, start.step if start else 0
    assert budget != "auto"
    told = {"at": 0.0}
    lines = rundir.read_lines(run.file(rundir.METRICS))
    with listener.training(len(steps), done) as show, quiet(), fast.kernels(model):

        def on_step(line: dict[str, Any]) -> None:
            show(line)
            if "step" in line:
                lines.append(line)
            if "held_out_loss" in line and (rising := learned.rising(learned.epochs(lines))):
                show({"note": rising})
            if ranks.first and "step" in line and (time.monotonic() - told["at"] > 1 or line["step"] == 1):
                told["at"] = time.monotonic()
                run.set_status("training", pid=os.getpid(), step=line["step"], steps=len(steps), loss=line["loss"])

        engine = learner.engine()
        trainer = StepTrainer(
            model, steps, recipe, run, start.token_budget if start else budget, on_step,
            lambda: ready.task.objective(model, ready.prepared.codec), lambda: standing(engine, ready, base=base), best,
            ranks,
        )  # fmt: skip
        if rehearsal is not None:
            trainer.token_budget = ranks.of_first(
                lambda: rehearsal(trainer, lambda rows: standing(engine, ready, rows))
            )  # fmt: skip
        finished = fit(trainer, start)
    if finished and ranks.first and best is not None and best.step is not None:
        best.restore(model)
        _say_best(best, len(steps), steps, listener)
    return finished


def _rehearse(
    trainer: StepTrainer, measure: Measure, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener
) -> int:
    """The longest step, an evaluation and a save before step 1, compared with the plan. Returns the token budget."""
    run, known = trainer.run, rehearse.before(trainer.run.file(rundir.PLAN))
    there = space.room(ready.device)
    if start is not None and known is not None and known["memory_bytes"] <= there.bytes:
        listener.say(
            _("Rehearsed when the run began: {peak:.2f} GB at most; {there:.1f} GB are {bound}",
              peak=known["memory_bytes"] / 1e9, there=there.bytes / 1e9, bound=there.bound)
        )  # fmt: skip
        return trainer.token_budget
    found = rehearse.rehearse(trainer, ready, measure, ready.device)
    for line in rehearse.told(found, ready.plan, there, len(trainer.steps)):
        listener.say(line)
    if found.token_budget < trainer.token_budget:
        _note_budget(run, ready, found.token_budget, listener)
    plan = {"foreseen": ready.plan.as_dict(), "rehearsed": found.as_dict(), "measured": None}
    rundir.write_json(run.file(rundir.PLAN), plan)
    return found.token_budget


def _note_budget(run: RunDir, ready: Ready, budget: int, listener: Listener) -> None:
    """``train.fit: auto`` has made micro-batches smaller: the run's recipe says so. The manifest, which holds the
    recipe's hash, is away meanwhile: a run without one is opened anew when it goes on."""
    listener.say(_("Changed to fit: train.token_budget={budget}, which changes no result", budget=budget))
    recipe = changed(ready.recipe, {"train.token_budget": budget})
    why = _("chosen: the rehearsal did not fit into memory with {more}", more=ready.recipe.train.token_budget)
    run.file(rundir.MANIFEST).unlink()
    dump(recipe, ready.sources | {"train.token_budget": why}, run.file(rundir.RECIPE))
    rundir.write_json(run.file(rundir.MANIFEST), manifest(recipe, ready.base, ready.prepared))


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
