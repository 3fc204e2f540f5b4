"""transformers' Trainer with one thing of its own: what a step is.

A data-loader item is one step's rows. ``training_step`` cuts them into micro-batches under a token budget and divides
by the learned tokens of the whole step, so that a step has one gradient however it is cut, and running out of memory
only halves the budget and repeats the step. Optimizer, schedule, trackers and checkpoints stay the Trainer's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from tunewright.data.lengths import micro_batches
from tunewright.errors import ResourceError, TrainingError
from tunewright.example import Rendered
from tunewright.model.fast import give_back_memory
from tunewright.recipe.schema import Recipe
from tunewright.rundir import METRICS, RunDir, write_bytes
from tunewright.signals import hearing
from tunewright.tasks.interface import Objective
from tunewright.text import _
from tunewright.train import checkpoints
from tunewright.train.batches import Steps, shares
from tunewright.train.best import Best, Standing
from tunewright.train.ranks import ALONE, Ranks

TRIM_EVERY = 4  # steps
OnStep = Callable[[dict[str, Any]], None]

class StepTrainer(Trainer):
    """Trains ``model`` on ``steps``. token_budget is the only thing about memory, and may shrink on the way."""

    def __init__(
        self, model: torch.nn.Module, steps: Steps, recipe: Recipe, run: RunDir, token_budget: int, on_step: OnStep,
        open_objective: Callable[[], Objective], standing: Callable[[], Standing] | None = None,
        best: Best | None = None, ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        """open_objective: the task's loss of rows.  standing: how the model does on rows it is not trained on, asked at
        the end of each epoch; with ``best`` the best epoch's weights are kept.  ranks: this process among those that
        train together; only the first writes."""
        super().__init__(model=model, args=_arguments(recipe, run, len(steps), ranks), train_dataset=steps)  # type: ignore[arg-type]
        self.steps, self.recipe, self.run = steps, recipe, run
        self.token_budget, self.on_step = token_budget, on_step
        self.standing, self.best, self.ranks = standing, best, ranks
        self.enough = False
        self.rehearsed: int | None = None  # the step, from 1, that is run before any other for what it costs alone
        self.counted: dict[str, Any] = {}
        self.kept: checkpoints.Checkpoint | None = None
        # bf16 weights that are trained are kept in fp32 and multiplied in bf16.
        self.mixed = recipe.train.precision == "bf16" and recipe.train.method != "lora"
        with self.autocast():
            self.objective = open_objective()
        self.add_callback(_GiveBackMemory())
        self.add_callback(_Stop(ranks))
        self.add_callback(_EnoughEpochs(lambda: self.enough))
        self.remove_callback(PrinterCallback)  # the screen is the listener's

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.mixed)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Warm-up, then the fall. Unlike transformers' schedules the first step already moves: a step at a learning
        rate of zero would be arithmetic for nothing."""
        if self.lr_scheduler is None:  # type: ignore[has-type]
            train = self.recipe.train
            factor = partial(learning_rate_factor, train.schedule, num_training_steps, train.warmup)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- one step --------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=lambda items: items[0])  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: list[Rendered], num_items_in_batch: Any = None) -> torch.Tensor:  # type: ignore[override]
        """Gradient of one step: the mean over all learned tokens of its rows. Returns that loss, () fp32."""
        model.train()
        began = time.monotonic()
        learned = sum(row.learned for row in inputs)
        loss = self._step_loss(inputs, learned) if self.ranks.count == 1 else self._shared_loss(inputs, learned)
        self.counted = {
            "tokens": sum(row.length for row in inputs),
            "learned_tokens": sum(row.learned for row in inputs),
            "seconds": time.monotonic() - began,
            "rows": inputs,
        }
        return loss

    def _shared_loss(self, rows: list[Rendered], learned: int) -> torch.Tensor:
        """The same with several processes: each adds up the gradient of its part of the rows, divided by the learned
        tokens of all. The sum of them is the step's gradient, with which every process takes the same step."""
        mine = shares(rows, self.ranks.count)[self.ranks.number]
        # A seed for each step, so that dropout does not depend on where the run was interrupted.
        torch.manual_seed(hash((self.recipe.seed, self.state.global_step, self.ranks.number)))
        losses = self.ranks.each(lambda: float(self._step_loss(mine, learned)))
        self.ranks.sum_gradients(self.model.parameters())
        return torch.tensor(sum(losses), device=self.args.device)

    def _step_loss(self, rows: list[Rendered], learned: int) -> torch.Tensor:
        while True:
            try:
                return self.accumulate(rows, learned)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                lengths = [row.length for row in rows]
                groups = micro_batches(lengths, self.token_budget)
                if len(groups) == len(rows):  # each row is alone already
                    raise ResourceError(
                        _("one row of {count} tokens does not fit into memory", count=max(lengths)),
                        do=_(
                            "set data.max_length below {count} with data.too_long=drop, or take a smaller base",
                            count=max(lengths),
                        ),
                        command="tunewright plan DATA",
                    ) from error
            # Outside the handler, or the traceback would keep the tensors that did not fit.
            self._halve(max(len(group) * lengths[group[0]] for group in groups))

    def _halve(self, used: int) -> None:
        """used: tokens of the largest micro-batch; a budget far above them would be halved many times for nothing."""
        self.model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.token_budget = max(1, min(self.token_budget, used) // 2)
        note = _("out of memory: the step is repeated in micro-batches of {count} tokens", count=self.token_budget)
        self.on_step({"note": note})

    def accumulate(self, rows: list[Rendered], learned: int) -> torch.Tensor:
        """Adds the gradient of ``rows`` to the weights, one micro-batch after the other. Returns their part of the loss
        of a step that learns ``learned`` tokens."""
        total = torch.zeros((), dtype=torch.float32, device=self.args.device)
        for group in micro_batches([row.length for row in rows], self.token_budget):
            part = [rows[index] for index in group]
            with self.autocast():
                loss = self.objective(part) / learned
            if not torch.isfinite(loss):
                raise self._not_finite(_("the loss"), part)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        return self._require_finite(norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return self._require_finite(super()._get_grad_norm(model, grad_norm))

    def _require_finite(self, norm: Any) -> Any:
        if norm is not None and not math.isfinite(float(norm)):
            raise self._not_finite(_("the gradient"), self.counted["rows"])
        return norm

    def _not_finite(self, what: str, rows: list[Rendered]) -> TrainingError:
        where = _("rows {places}", places=", ".join(str(row.origin) for row in rows[:8]) + ", …" * (len(rows) > 8))
        command = f"tunewright data show {rows[0].origin.file} --row {rows[0].origin.row}"
        self.model.zero_grad()
        if self.rehearsed is not None:
            return TrainingError(
                _("{what} is not a finite number in the rehearsal of step {step}; nothing was trained yet",
                  what=what, step=self.rehearsed),
                where=where,
                do=_("look at these rows; then try train.precision=fp32, or another base"),
                command=command,
            )  # fmt: skip
        step = self.state.global_step + 1
        if self.kept:
            kept = _("The last good checkpoint is {folder}.", folder=self.kept.folder)
        else:
            kept = _("No step had been saved yet.")
        return TrainingError(
            _("{what} is not a finite number at step {step}; no weight was changed by it", what=what, step=step),
            where=where,
            do=_(
                "look at these rows; then try a lower train.learning_rate ({now:g} now), "
                "then train.precision=fp32. {kept}",
                now=float(self.args.learning_rate),
                kept=kept,
            ),
            command=command,
        )

    # ---- what is written -------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One line to ``metrics.jsonl``; then the trackers."""
        self.state.epoch = self.steps.epoch_after(self.state.global_step)
        if "loss" in logs:
            counted = self.counted
            line = {
                "step": self.state.global_step,
                "epoch": round(self.state.epoch, 4),
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": float(logs["grad_norm"]),
                "tokens": counted["tokens"],
                "learned_tokens": counted["learned_tokens"],
                "tokens_per_second": round(counted["tokens"] / max(counted["seconds"], 1e-9), 1),
            }
            line |= self._end_of_epoch(self.state.global_step)
            if self.ranks.first:
                self.run.append(METRICS, line)
            self.on_step(line)
        super().log(logs, start_time)

    def _end_of_epoch(self, step: int) -> dict[str, float]:
        """How the model stands, where an epoch has ended; after the last one only if the run may end with other
        weights, since those it ends with are measured in full."""
        last = step == len(self.steps)
        final = last and self.best is None and self.recipe.lora.settle is not True
        if self.standing is None or final or not (step % self.steps.per_epoch == 0 or last):
            return {}
        one, self.enough = self.ranks.of_first(lambda: self._stand(step))
        line = {"held_out_loss": one.loss} if math.isfinite(one.loss) else {}
        if one.divergence is not None and math.isfinite(one.divergence):
            line["divergence"] = one.divergence
        return line if one.accuracy is None else line | {"held_out_accuracy": one.accuracy}

    def _stand(self, step: int) -> tuple[Standing, bool]:
        """How the model stands after ``step``, and whether the best epoch is known by that."""
        assert self.standing is not None
        with self.autocast():
            one = self.standing()
        if self.best is not None:
            self.best.offer(step, one, self.model)
        return one, self.best is not None and self.best.enough

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.run.checkpoints / checkpoints.SAVING)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not self.ranks.first:
            return
        staging = self.run.checkpoints / checkpoints.SAVING
        shutil.rmtree(staging, ignore_errors=True)
        try:
            super()._save_checkpoint(model, trial)
            written = staging / f"checkpoint-{self.state.global_step}"
            self.kept = checkpoints.finish(written, self.run.checkpoints, self.state.global_step, self.token_budget)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(staging, ignore_errors=True)
            why = (str(error).splitlines() or [type(error).__name__])[0]
            full = any(os.strerror(number) in why for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
            what = _("the checkpoint cannot be written: {why}", why=why)
            if full:
                what = _("the disk is full: no checkpoint of step {step} could be written", step=self.state.global_step)
            raise ResourceError(
                what,
                where=str(self.run.checkpoints),
                do=_("free some space, then go on"),
                command=f"tunewright resume {self.run}",
            ) from error
        shutil.rmtree(staging, ignore_errors=True)
        checkpoints.prune(self.run.checkpoints, self.recipe.save.keep)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights only: tokenizer and template are frozen in the run once, not in each checkpoint."""
        more = {"save_embedding_layers": False} if hasattr(self.model, "peft_config") else {}
        self.model.save_pretrained(str(output_dir), state_dict=state_dict, **more)
        Path(str(output_dir), "README.md").unlink(missing_ok=True)


class _GiveBackMemory(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        if state.global_step % TRIM_EVERY == 0:
            give_back_memory()


class _Stop(TrainerCallback):
    """Ctrl-C or SIGTERM ends the step, saves and stops; a second one stops at once."""

    def __init__(self, ranks: Ranks) -> None:
        self.asked, self.ranks = False, ranks

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        def ask(_number: int, _frame: Any) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        with hearing(dict.fromkeys((signal.SIGINT, signal.SIGTERM), ask)):
            yield

    def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> Any:
        if any(self.ranks.each(lambda: self.asked)):
            control.should_save = control.should_training_stop = True
        return control


class _EnoughEpochs(TrainerCallback):
    """Stops when the best epoch is known. ``on_log`` comes after the epoch was measured."""

    def __init__(self, enough: Callable[[], bool]) -> None:
        self.enough = enough

    def on_log(self, args: Any, state: Any, control: Any, **_more: Any) -> Any:
        if self.enough():
            control.should_save = control.should_training_stop = True
        return control


def learning_rate_factor(schedule: str, steps: int, warmup: float, step: int) -> float:
    """Share of the peak learning rate at ``step`` (from 0) of ``steps``; ``warmup`` is the rising share of them."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def fit(trainer: StepTrainer, start: checkpoints.Checkpoint | None) -> bool:
    """Train to the end, from ``start`` if given. Returns False if the person stopped it (all is saved then)."""
    trainer.kept = start
    trainer.enough = trainer.best is not None and trainer.best.enough
    stop = next(c for c in trainer.callback_handler.callbacks if isinstance(c, _Stop))
    if not trainer.enough:
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(start.folder) if start else None)
    return trainer.enough or trainer.state.global_step >= len(trainer.steps)


def _arguments(recipe: Recipe, run: RunDir, steps: int, ranks: Ranks) -> TrainingArguments:
    train = recipe.train
    assert train.learning_rate != "auto" and recipe.save.every != "auto"  # choose.py has filled them
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=1,  # one item: the rows of one step
        gradient_accumulation_steps=1,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.save.every,
        report_to=list(train.report_to) if ranks.first else [],
        run_name=run.path.name,
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python said that there is no memory, on a CPU or a GPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text.lower()


def cut_metrics(run: RunDir, step: int) -> None:
    """Forget the lines of steps after ``step``: they are trained again."""
    path = run.file(METRICS)
    if path.exists():
        from_disk = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in from_disk if line.endswith(b"\n") and _line_step(line) <= step]
        write_bytes(path, b"".join(kept))


def _line_step(line: bytes) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62
