"""Which engine answers for the runs of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from tunewright.errors import BaseModelError
from tunewright.infer.continuous import ContinuousEngine, bytes_a_token
from tunewright.infer.fleet import Engines, RunFleet
from tunewright.infer.grammar import Grammars
from tunewright.infer.live import LiveEngine
from tunewright.infer.llama_cpp import LlamaCppEngine
from tunewright.infer.open import Told
from tunewright.infer.packed import pack
from tunewright.infer.vllm import VllmEngine
from tunewright.model import adapter
from tunewright.model.load import fast_bf16, load
from tunewright.model.memory import describe
from tunewright.model.source import Base
from tunewright.rundir import RunDir
from tunewright.text import _

CACHE_TOKENS = 65_536  # of keys and values at most: the mask of a step has as many columns
RANK = 64  # of adapters on vLLM, which makes room for it beforehand
CACHE_SHARE = 0.25  # of the memory that is free when the engine begins


@dataclass(frozen=True, slots=True)
class Options:
    """adapters: kept in memory at a time.  context: tokens of a prompt and its answer at most, None as the base can.
    cache: bytes for keys and values, None for a share of what is free."""

    adapters: int = 8
    context: int | None = None
    cache: int | None = None


def open_fleet(
    runs: Sequence[RunDir], bases: Sequence[str] = (), options: Options | None = None, with_bases: bool = True,
    engines: Engines | None = None,
) -> RunFleet:  # fmt: skip
    """All of ``runs`` and ``bases`` by name; with_bases: and what the runs were trained on.

    Raises RunError, BaseModelError for what cannot be served; no weight is read before it is asked for.
    """
    fleet = RunFleet(engines or Transformers(options or Options()))
    for run in runs:
        fleet.add_run(run)
    for name in bases:
        fleet.add_base(name)
    if with_bases:
        fleet.add_bases_of_runs()
    return fleet


class Transformers:
    """``Engines`` on transformers' continuous batching: a base and all its adapters in one."""

    name = "transformers"

    def __init__(self, options: Options) -> None:
        self.options = options

    def of_base(self, base: Base, precision: str | None) -> LiveEngine:
        return self._engine(base, load(base, self._kind(precision)))

    def of_run(self, run: RunDir, told: Told) -> LiveEngine | None:
        if told.is_adapter:
            return None
        model = load(told.base, self._kind(told.recipe.train.precision))
        return self._engine(told.base, adapter.load_run(model, told.folder))

    def _kind(self, precision: str | None) -> Any:
        return precision or ("bf16" if fast_bf16()[0] else "fp32")

    def _engine(self, base: Base, model: Any) -> LiveEngine:
        grammars = Grammars(base.folder, model.get_output_embeddings().weight.shape[0])
        pack(model)
        room = self.options.cache or int(CACHE_SHARE * _free(model.device))
        memory = min(room, CACHE_TOKENS * bytes_a_token(model))
        most = describe(base.folder).max_length or CACHE_TOKENS
        return ContinuousEngine(model, min(self.options.context or most, most), memory, grammars, self.options.adapters)


class LlamaCpp:
    """``Engines`` on llama.cpp: a GGUF file for each run, one answer at a time, for one person on a small machine.
    files: the GGUF file of each run by its folder, and of a base by its name."""

    name = "llama.cpp"

    def __init__(self, options: Options, files: Mapping[str, Path]) -> None:
        self.options, self.files = options, files

    def of_base(self, base: Base, precision: str | None) -> LiveEngine:
        return self._engine(self.files.get(base.name), base)

    def of_run(self, run: RunDir, told: Told) -> LiveEngine | None:
        return self._engine(self.files.get(str(run)), told.base)

    def _engine(self, file: Path | None, base: Base) -> LiveEngine:
        if file is None:
            raise BaseModelError(
                _("llama.cpp reads GGUF files, and there is none of {name}", name=base.name), where=str(base.folder),
                do=_("serve it with the other engine"), command="tunewright serve --engine transformers",
            )  # fmt: skip
        most = describe(base.folder).max_length or CACHE_TOKENS
        return LlamaCppEngine(file, min(self.options.context or most, most), base.folder)


class Vllm:
    """``Engines`` on vLLM: a base and all its adapters in one, on a GPU."""

    name = "vllm"

    def __init__(self, options: Options) -> None:
        self.options = options

    def of_base(self, base: Base, precision: str | None) -> LiveEngine:
        return self._engine(base, base.folder, precision, RANK)

    def of_run(self, run: RunDir, told: Told) -> LiveEngine | None:
        return None if told.is_adapter else self._engine(told.base, told.folder, told.recipe.train.precision, 0)

    def _engine(self, base: Base, folder: Path, precision: str | None, rank: int) -> LiveEngine:
        kind = {"fp32": "float32", "bf16": "bfloat16"}.get(precision or "", "auto")
        most = describe(base.folder).max_length or CACHE_TOKENS
        return VllmEngine(folder, kind, min(self.options.context or most, most), self.options.adapters, rank)


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
