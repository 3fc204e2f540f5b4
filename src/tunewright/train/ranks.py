"""Several processes that train one model: each computes its part of a step, and the gradients are summed.

A launcher such as ``torchrun`` starts the same command several times and gives each process a number. It is taken here
once; to transformers and accelerate every process then looks like a training of its own, because they would deal out
whole steps instead of rows, and would average gradients of parts that hold unequal numbers of learned tokens. What is
left to do together is little and stands in this file.
"""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from tunewright.errors import InputError, ResourceError, TrainingError, TunewrightError
from tunewright.rundir import RunDir
from tunewright.settings import Launched, launched
from tunewright.text import _

PATIENCE = timedelta(days=7)  # others wait while the first process measures; one that has died is noticed at once
GRACE = 60.0  # seconds that the first process has to tell why all end; a launcher ends the others once it is gone
BUCKET = 8 * 2**20  # numbers of a gradient that are summed in one piece

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's number among ``count``. With a count of one nothing here does anything of its own.

    group: how gradients travel, None for the way that everything else does."""

    number: int = 0
    count: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """The process that writes the run, measures and talks to the person."""
        return self.number == 0

    def holding(self, run: RunDir) -> contextlib.AbstractContextManager[None]:
        """The lock of a run, which the first process holds for all."""
        return run.lock() if self.first else contextlib.nullcontext()

    def alone(self, do: Callable[[], T]) -> T | None:
        """``do`` in the first process, while the others wait; None in those."""
        kept: list[T] = []
        self.each(lambda: kept.append(do()) if self.first else None)
        return kept[0] if kept else None

    def of_first(self, do: Callable[[], T]) -> T:
        """``do`` in the first process; what it gave, in all."""
        return self.each(lambda: do() if self.first else None)[0]  # type: ignore[return-value]

    def in_turn(self, do: Callable[[], T]) -> T:
        """``do`` in all, in the first before the others, which then find in the cache what it left there."""
        made = self.alone(do)
        kept: list[T] = []
        self.each(lambda: None if self.first else kept.append(do()))
        return made if self.first else kept[0]  # type: ignore[return-value]

    def each(self, do: Callable[[], T]) -> list[T]:
        """What ``do`` gave in each process, by number. If it fails in one, no other waits for ever: all end, and the
        first tells why."""
        if self.count == 1:
            return [do()]
        given, failure = None, None
        try:
            given = do()
        except BaseException as error:
            failure = error
        told: list[Any] = [None] * self.count
        with _all_there():
            dist.all_gather_object(told, (given, None if failure is None else _parts(failure)))
        reasons = [(number, parts) for number, (_given, parts) in enumerate(told) if parts is not None]
        if reasons:
            self._end(failure, *reasons[0])
        return [one for one, _parts_of in told]

    def _end(self, own: BaseException | None, number: int, parts: dict[str, Any]) -> None:
        ours = own is not None and not isinstance(own, InputError)
        if own is not None and (self.first or ours):  # a fault of our own is told where its traceback is
            raise own
        if parts["interrupted"]:
            raise KeyboardInterrupt
        if not self.first:
            time.sleep(GRACE)  # a launcher ends all when one is gone, and the first has to tell why before
            raise SystemExit(InputError.exit_code)
        what = parts["error"]
        if not parts["known"]:
            what = _("process {number} of {count} has failed: {why}", number=number, count=self.count, why=what)
        raise TrainingError(what, where=parts["where"], do=parts["do"], command=parts["command"])

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Each gradient becomes the sum over all processes, the same bits in each. A weight that no process used stays
        without one, as it would in one process."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
        with _all_there():
            dist.all_reduce(used, op=dist.ReduceOp.MAX)
        shared = [parameter for parameter, one in zip(trained, used.tolist(), strict=True) if one]
        for parameter in shared:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in shared if parameter.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            with _all_there():
                dist.all_reduce(flat, group=self.group)
            for gradient, summed in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))


@contextlib.contextmanager
def _all_there() -> Iterator[None]:
    """One that is gone breaks what the others do with it; why it went, only it or the system can have said."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            _("another process of this training has ended: {why}", why=(str(error).splitlines() or ["?"])[0][:200]),
            do=_("read what it said; if it said nothing, the system may have ended it for want of memory: then start "
                 "fewer processes, and go on from the last checkpoint"),
            command="tunewright resume",
        ) from error  # fmt: skip


def _buckets(gradients: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Neighbours of one type together, as many as ``BUCKET`` holds."""
    buckets: list[list[torch.Tensor]] = []
    for gradient in gradients:
        last = buckets[-1] if buckets else []
        if last and last[0].dtype == gradient.dtype and sum(map(torch.numel, last)) + gradient.numel() <= BUCKET:
            last.append(gradient)
        else:
            buckets.append([gradient])
    return buckets


def _parts(error: BaseException) -> dict[str, Any]:
    said = error.as_dict() if isinstance(error, TunewrightError) else {"error": (str(error) or repr(error))[:500]}
    return {
        "where": None, "do": None, "command": None, **said,
        "known": isinstance(error, InputError), "interrupted": isinstance(error, KeyboardInterrupt),
    }  # fmt: skip


ALONE = Ranks()
_joined: Ranks | None = None


def join() -> Ranks:
    """This process's place among those that a launcher started; a single one where there is none."""
    global _joined
    if _joined is None:
        place = launched()
        _joined = ALONE if place is None else _meet(place)
    return _joined


def _leave() -> None:
    """The network's threads end before the interpreter does: one that still lets go of a tensor then would abort this
    process, and with it a launcher would end all the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _meet(place: Launched) -> Ranks:
    """Words between processes go over the network of the CPU; gradients on GPUs over the GPUs' own."""
    if place.sharded:
        raise InputError(
            _("weights cannot be divided among processes (FSDP, DeepSpeed): each holds the whole model"),
            do=_("start it with torchrun, without such a configuration"),
            command=f"torchrun --nproc_per_node {place.count} -m tunewright train DATA",
        )
    dist.init_process_group(
        "gloo", init_method="env://", rank=place.number, world_size=place.count, timeout=PATIENCE
    )  # fmt: skip
    atexit.register(_leave)
    ranks = Ranks(place.number, place.count)
    gpus = ranks.each(torch.cuda.is_available)
    if any(gpus) and not all(gpus):
        raise ResourceError(
            _("{count} processes, but GPUs for {gpus} of them", count=place.count, gpus=sum(gpus)),
            do=_("start one process for each GPU"), command="torchrun --help",
        )  # fmt: skip
    return replace(ranks, group=dist.new_group(backend="nccl") if all(gpus) else None)
