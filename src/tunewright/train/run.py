"""The whole story of a run, readable from top to bottom.

data and base meet -> every auto is chosen -> the run folder opens -> the base is measured -> training -> the tuned
model is measured the same way -> before and after are compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tunewright import __version__, rundir
from tunewright.data.prepare import Prepared, prepare
from tunewright.data.show import bracketed
from tunewright.data.template import ChatTemplate
from tunewright.errors import BaseModelError, MissingExtra, RunError
from tunewright.evaluate import checks as own_checks
from tunewright.evaluate.compare import Item, Measurement, compare, measure, work
from tunewright.evaluate.general import Asked, load_general
from tunewright.example import Rendered
from tunewright.infer.engine import Score
from tunewright.infer.transformers import TransformersEngine
from tunewright.model import adapter, fast, memory, source
from tunewright.model.generation import generation_config
from tunewright.model.load import DTYPES, fast_bf16, load, pick_device, quiet, require_decoder
from tunewright.model.memory import ModelFacts
from tunewright.model.source import Base
from tunewright.recipe.dump import dump, text
from tunewright.recipe.load import Loaded, changed
from tunewright.recipe.load import load as load_recipe
from tunewright.recipe.schema import Recipe
from tunewright.rundir import RunDir
from tunewright.tasks import TASKS, Task
from tunewright.text import _
from tunewright.train import checkpoints, choose, replay
from tunewright.train.batches import Steps
from tunewright.train.events import Listener
from tunewright.train.forecast import Plan, foresee
from tunewright.train.trainer import StepTrainer, cut_metrics, fit

WATCHED = 64  # held-out rows whose loss is taken at the end of each epoch
VERSIONS = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Ready:
    """Everything that is known before weights are loaded. sources: of each recipe key, ``chosen: why`` included."""

    recipe: Recipe
    sources: dict[str, str]
    base: Base
    facts: ModelFacts
    template: ChatTemplate
    task: Task
    prepared: Prepared
    items: list[Item]
    asked: list[Asked]
    plan: Plan


# ---- before weights ----------------------------------------------------------------------------------------------


def get_ready(loaded: Loaded, listener: Listener) -> Ready:
    """Fetch the base, read the data, choose what was left to us, foresee memory and time."""
    recipe = loaded.recipe
    base = source.fetch(recipe.base)
    require_decoder(base.folder, base.name)
    adapter.check(base.folder, recipe)
    _require_trackers(recipe.train.report_to)
    if base.source in ("folder", "gguf"):  # a path has to mean the same in every folder that the run is used from
        recipe = changed(recipe, {"base": str(Path(recipe.base).expanduser().resolve())})
    template = ChatTemplate.from_folder(base.folder)
    facts = memory.describe(base.folder)
    task = TASKS[recipe.task]
    context = facts.max_length or 4096
    prepared = _prepare(recipe, template, task, context, listener)
    device = pick_device()
    known = choose.Known(
        prepared.train, prepared.held_out, len(prepared.held_out_chats), prepared.max_length, prepared.longest, context,
        fast_bf16(device), device,
    )  # fmt: skip
    recipe, reasons = choose.fill(recipe, known)
    recipe = _with_variables(recipe)
    own_checks.validate(recipe.checks)
    sources = loaded.sources | {key: _("chosen: {why}", why=why) for key, why in reasons.items()}
    items = _items(prepared, task, template, recipe)
    asked = [Asked(q, task.ask(q.question, template, recipe.data.system)) for q in load_general()]
    prompts = len(replay.prompts()) if recipe.retain.share else 0
    _tell(listener, base, prepared, recipe, reasons)
    plan = foresee(recipe, facts, prepared.train, prepared.held_out, len(items) + len(asked), prompts, device)
    return Ready(recipe, sources, base, facts, template, task, prepared, items, asked, plan)


def _require_trackers(names: Sequence[str]) -> None:
    for name in names:
        known = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(find_spec(package) for package in known):
            raise MissingExtra(name, name, f"train.report_to={name}")


def _tell(listener: Listener, base: Base, prepared: Prepared, recipe: Recipe, reasons: dict[str, str]) -> None:
    """What was found and what was chosen, each with its reason."""
    ledger = prepared.ledger
    listener.say(_("Base:   {name} ({source}, sha256 {sha})", name=base.name, source=base.source, sha=base.sha256[:12]))
    listener.say(_("Data:   {name}: {why}", name=prepared.format_name, why=prepared.format_reason))
    listener.say(
        _("        {rows_in} rows in = {kept} kept + {out} left out; {train} to train, {held_out} held out",
          rows_in=ledger["rows_in"], kept=ledger["kept"], out=ledger["rows_in"] - ledger["kept"],
          train=ledger["train"], held_out=ledger["held_out"])
    )  # fmt: skip
    for finding in prepared.findings:
        listener.say(f"        {finding.code} {finding.severity}: {finding.message}")
    listener.say(_("Chosen:"))
    for line in choose.told(recipe, reasons):
        listener.say("  " + line)


def _prepare(recipe: Recipe, template: ChatTemplate, task: Task, context: int, listener: Listener) -> Prepared:
    shown: dict[str, int] = {}
    with listener.doing(_("Reading and rendering"), 0) as count:

        def progress(what: str, done: int, total: int) -> None:
            count(done - shown.get(what, 0))
            shown[what] = done

        return prepare(recipe.data, recipe.seed, template, task.renderer(template), context, progress)


def _with_variables(recipe: Recipe) -> Recipe:
    """``{{name}}`` in checks and the system message, filled as it is in the data."""

    def filled(value: str | None) -> str | None:
        for name, filling in recipe.data.variables.items():
            value = value.replace("{{" + name + "}}", filling) if value else value
        return value

    checks = [check.model_copy(update={"value": filled(check.value)}) for check in recipe.checks]
    data = recipe.data.model_copy(update={"system": filled(recipe.data.system)})
    return recipe.model_copy(update={"checks": checks, "data": data})


def _items(prepared: Prepared, task: Task, template: ChatTemplate, recipe: Recipe) -> list[Item]:
    items: list[Item] = []
    for chat in prepared.held_out_chats:
        question = task.question(chat, template)
        if question is not None and len(items) < recipe.evaluate.rows:
            items.append(Item(chat.origin, question.prompt, question.text, question.reference))
    return items


# ---- the run -----------------------------------------------------------------------------------------------------


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
            require_same(run, ready)
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
    run.set_status("preparing", pid=os.getpid(), started=_now())
    dump(ready.recipe, ready.sources, run.file(rundir.RECIPE))
    rundir.write_json(run.file(rundir.LEDGER), ready.prepared.ledger)
    lines = [json.dumps(finding.as_dict(), ensure_ascii=False) + "\n" for finding in ready.prepared.findings]
    rundir.write_text(run.file(rundir.FINDINGS), "".join(lines))
    shown = [f"{row.origin}\n{bracketed(row, ready.template)}\n" for row in list(ready.prepared.train)[:3]]
    rundir.write_text(run.file(rundir.SHOWN), "\n".join(shown))
    rundir.write_json(run.file(rundir.PLAN), {"foreseen": ready.plan.as_dict(), "measured": None})
    run.file(rundir.LOG).touch()
    run.checkpoints.mkdir(exist_ok=True)
    rundir.write_json(run.file(rundir.MANIFEST), _manifest(ready))
    rundir.remember(run)


def _finish(run: RunDir, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener) -> None:
    began = time.monotonic()
    try:
        _train_and_compare(run, ready, start, listener, began)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        run.set_status("stopped" if stopped else "failed", pid=os.getpid(), ended=_now(), reason=reason)
        raise


def _train_and_compare(
    run: RunDir, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener, began: float
) -> None:
    recipe = ready.recipe
    assert recipe.train.precision != "auto" and recipe.evaluate.max_new_tokens != "auto"
    generation = _generation(ready.base, ready.template)
    model: Any = load(ready.base, recipe.train.precision)
    engine = TransformersEngine(model, ready.template, generation)

    before = measured_as(engine, ready, _("Measuring the base"), listener)
    general = _replay(engine, ready, listener)

    model = adapter.prepare(model, recipe)
    listener.say(adapter.counts_line(model))
    steps = _steps(ready, general)
    trained = _fit(model, steps, run, ready, start, listener)
    if not trained:
        raise KeyboardInterrupt
    if recipe.train.method != "lora":  # what is measured is what is saved and later opened
        for parameter in model.parameters():  # not its buffers, which are fp32 in every precision
            parameter.data = parameter.data.to(DTYPES[recipe.train.precision])
    run.set_status("evaluating", pid=os.getpid(), step=len(steps), steps=len(steps))
    folder = run.file(rundir.ADAPTER if recipe.train.method == "lora" else rundir.MODEL)
    adapter.save(model, folder, ready.template.save, generation)

    engine = TransformersEngine(model, ready.template, generation)
    after = measured_as(engine, ready, _("Measuring the tuned model"), listener)
    rundir.write_json(run.file(rundir.EVALUATION), compare(before, after, recipe.seed))
    _measured(run, ready, time.monotonic() - began)
    run.set_status("done", step=len(steps), steps=len(steps), ended=_now())


def _generation(base: Base, template: ChatTemplate) -> dict[str, Any]:
    """Every id that ends an answer, whether the base's files name it or its template writes it."""
    config = generation_config(base)
    return config | {"eos_token_id": sorted({*config["eos_token_id"], *template.stop_ids})}


def measured_as(engine: TransformersEngine, ready: Ready, what: str, listener: Listener) -> Measurement:
    rows, limit = ready.prepared.held_out, ready.recipe.evaluate.max_new_tokens
    assert limit != "auto"
    with listener.doing(what, work(rows, ready.items, ready.asked)) as progress:
        return measure(engine, rows, ready.items, ready.recipe.checks, limit, ready.asked, progress)


def _replay(engine: TransformersEngine, ready: Ready, listener: Listener) -> Sequence[Rendered]:
    if not ready.recipe.retain.share:
        return []
    with listener.doing(_("Keeping the base's own answers"), len(replay.prompts())) as progress:
        system = ready.recipe.data.system
        return replay.answered(engine, ready.task, ready.template, ready.base.sha256, system, progress)


def _steps(ready: Ready, general: Sequence[Rendered]) -> Steps:
    settings, share = ready.recipe.train, ready.recipe.retain.share
    assert settings.batch_size != "auto" and settings.epochs != "auto" and share != "auto"
    return Steps(
        ready.prepared.train, settings.batch_size, settings.epochs, ready.recipe.seed, settings.max_steps, general,
        share,
    )  # fmt: skip


def _fit(
    model: Any, steps: Steps, run: RunDir, ready: Ready, start: checkpoints.Checkpoint | None, listener: Listener
) -> bool:
    budget = ready.recipe.train.token_budget
    assert budget != "auto"
    told = {"at": 0.0}
    with listener.training(len(steps), start.step if start else 0) as show, quiet(), fast.kernels(model):

        def on_step(line: dict[str, Any]) -> None:
            show(line)
            if "step" in line and (time.monotonic() - told["at"] > 1 or line["step"] == 1):
                told["at"] = time.monotonic()
                run.set_status("training", pid=os.getpid(), step=line["step"], steps=len(steps), loss=line["loss"])

        trainer = StepTrainer(model, steps, ready.recipe, run, start.token_budget if start else budget, on_step)
        engine = TransformersEngine(model, ready.template, _generation(ready.base, ready.template))

        def held_out_loss() -> float:
            with torch.autocast(trainer.args.device.type, torch.bfloat16, enabled=trainer.mixed):
                return _loss(engine.score(ready.prepared.held_out[:WATCHED]))

        trainer.held_out_loss = held_out_loss
        return fit(trainer, start)


def _loss(scores: Sequence[Score]) -> float:
    return sum(score.loss for score in scores) / max(1, sum(score.tokens for score in scores))


# ---- what is written about it ------------------------------------------------------------------------------------


def _manifest(ready: Ready) -> dict[str, Any]:
    recipe = text(ready.recipe, {})
    return {
        "tunewright": __version__,
        "base": {
            "name": ready.base.name, "source": ready.base.source, "folder": str(ready.base.folder),
            "sha256": ready.base.sha256, "files": ready.base.files,
        },
        "data": ready.prepared.files,
        "data_sha256": ready.prepared.data_sha256,
        "format": {"name": ready.prepared.format_name, "reason": ready.prepared.format_reason},
        "template_sha256": ready.template.sha256,
        "template_notes": list(ready.template.notes),
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
        "recipe": _flat(ready.recipe),
        "seed": ready.recipe.seed,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}},
        "hardware": {
            "machine": platform.machine(), "system": f"{platform.system()} {platform.release()}",
            "threads": torch.get_num_threads(), "device": _device_name(),
        },
        "started": _now(),
    }  # fmt: skip


def require_same(run: RunDir, ready: Ready) -> None:
    """Raises RunError, with what differs, unless base, data, template and recipe are those the run began with."""
    manifest, now = rundir.read_json(run.file(rundir.MANIFEST)), _manifest(ready)
    for what, same, difference in (
        (_("the base"), manifest["base"]["sha256"] == now["base"]["sha256"],
         _differing(manifest["base"]["files"], now["base"]["files"])),
        (_("the data"), manifest["data_sha256"] == now["data_sha256"],
         _differing(_data_hashes(manifest), _data_hashes(now))),
        (_("the template"), manifest["template_sha256"] == now["template_sha256"], []),
        (_("the recipe"), manifest["recipe_sha256"] == now["recipe_sha256"],
         _differing(manifest["recipe"], now["recipe"], values=True)),
    ):  # fmt: skip
        if not same:
            raise RunError(
                _("{what} is not what it was when the run began", what=what),
                where=f"{run}: " + "; ".join(difference or [what]),
                do=_("bring it back, or train anew"), command="tunewright train " + str(run.file(rundir.RECIPE)),
            )  # fmt: skip


def _data_hashes(manifest: dict[str, Any]) -> dict[str, str]:
    return {file["path"]: f"{file['sha256']}, {file['rows']}" for file in manifest["data"]}


def _differing(then: dict[str, Any], now: dict[str, Any], values: bool = False) -> list[str]:
    """One piece of text for each name whose value changed; the values themselves only if they say something."""
    names = [name for name in (then | now) if then.get(name) != now.get(name)]
    if values:
        return [_("{name} was {then}, is {now}", name=name, then=then.get(name), now=now.get(name)) for name in names]
    return [_("{name} has changed", name=name) for name in names]


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Dotted keys and their values."""
    flat: dict[str, Any] = {}
    for name, value in recipe.model_dump(mode="json").items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _measured(run: RunDir, ready: Ready, seconds: float) -> None:
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    measured = {"memory_bytes": peak, "seconds": round(seconds, 1)}
    rundir.write_json(run.file(rundir.PLAN), {"foreseen": ready.plan.as_dict(), "measured": measured})


def _device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    told = Path("/proc/cpuinfo")
    for line in told.read_text(errors="replace").splitlines() if told.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ---- a finished run, for the verbs that use it -------------------------------------------------------------------


def open_engine(run: RunDir, tuned: bool = True) -> tuple[TransformersEngine, Recipe]:
    """The run's model ready to answer, exactly as it was trained: its own template, stop ids and base."""
    recipe = load_recipe(run.file(rundir.RECIPE)).recipe
    manifest = rundir.read_json(run.file(rundir.MANIFEST))
    folder = run.file(rundir.ADAPTER if recipe.train.method == "lora" else rundir.MODEL)
    if not folder.exists():
        raise RunError(
            _("this run has no trained weights yet"), where=str(folder), do=_("let it finish"),
            command=f"tunewright resume {run}",
        )  # fmt: skip
    base = source.fetch(recipe.base)
    if base.sha256 != manifest["base"]["sha256"]:
        raise BaseModelError(
            _("the base {name} is not the one this run was trained on", name=base.name), where=str(base.folder),
            do=_("bring back the base with sha256 {sha}", sha=manifest["base"]["sha256"][:12]),
        )  # fmt: skip
    assert recipe.train.precision != "auto"
    model: Any = load(base, recipe.train.precision)
    if tuned:
        model = adapter.load_run(model, folder)
    template = ChatTemplate.from_folder(folder)
    return TransformersEngine(model, template, rundir.read_json(folder / "generation_config.json")), recipe


def open_base(name: str) -> TransformersEngine:
    """A base as it is, ready to answer."""
    base = source.fetch(name)
    template = ChatTemplate.from_folder(base.folder)
    return TransformersEngine(load(base, "bf16" if fast_bf16()[0] else "fp32"), template, _generation(base, template))


__all__ = ["Ready", "get_ready", "measured_as", "open_base", "open_engine", "require_same", "resume", "train"]
