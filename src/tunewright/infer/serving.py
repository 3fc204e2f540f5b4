"""Which engine answers for the runs of a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from tunewright.errors import BaseModelError
from tunewright.infer.continuous import ContinuousEngine, bytes_a_token
from tunewright.infer.fleet import RunFleet
from tunewright.infer.grammar import Grammars
from tunewright.infer.live import LiveEngine
from tunewright.model import adapter
from tunewright.model.load import fast_bf16, load
from tunewright.model.memory import describe
from tunewright.model.source import Base
from tunewright.rundir import RunDir
from tunewright.text import _

CACHE_TOKENS = 65_536  # of keys and values at most: the mask of a step has as many columns
CACHE_SHARE = 0.25  # of the memory that is free when the engine begins


@dataclass(frozen=True, slots=True)
class Options:
    """adapters: kept in memory at a time.  context: tokens of a prompt and its answer at most, None as the base can.
    cache: bytes for keys and values, None for a share of what is free."""

    adapters: int = 8
    context: int | None = None
    cache: int | None = None


def open_fleet(
    runs: Sequence[RunDir], bases: Sequence[str] = (), options: Options | None = None, with_bases: bool = True
) -> RunFleet:
    """All of ``runs`` and ``bases`` by name; with_bases: and what the runs were trained on.

    Raises RunError, BaseModelError for what cannot be served; no weight is read before it is asked for.
    """
    chosen = options or Options()

    def make(base: Base, weights: Path | None, precision: str | None) -> LiveEngine:
        return _transformers(base, weights, precision, chosen)

    fleet = RunFleet(make, _encoder)
    for run in runs:
        fleet.add_run(run)
    for name in bases:
        fleet.add_base(name)
    if with_bases:
        fleet.add_bases_of_runs()
    return fleet


def _transformers(base: Base, weights: Path | None, precision: str | None, options: Options) -> ContinuousEngine:
    kind = precision or ("bf16" if fast_bf16()[0] else "fp32")
    model = load(base, kind)  # type: ignore[arg-type]  # one of the two that a recipe knows
    if weights is not None:
        model = adapter.load_run(model, weights)  # type: ignore[assignment]  # whole weights, no adapter
    room = options.cache or int(CACHE_SHARE * _free(model.device))
    memory = min(room, CACHE_TOKENS * bytes_a_token(model))
    most = describe(base.folder).max_length or CACHE_TOKENS
    context = min(options.context or most, most)
    grammars = Grammars(weights or base.folder, model.get_output_embeddings().weight.shape[0])
    return ContinuousEngine(model, context, memory, grammars, options.adapters)


def _encoder(base: Base) -> Any:
    raise BaseModelError(
        _("{name} only reads texts, and is not served yet", name=base.name), where=str(base.folder),
        do=_("serve a base that writes"), command="tunewright models",
    )  # fmt: skip


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
