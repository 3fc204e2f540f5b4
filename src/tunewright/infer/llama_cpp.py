"""A GGUF file answered by llama.cpp: quick for one person on a CPU, one answer after the other.

The ids are ours (the run's own template), and so is the choice of each token (``sampling.py``): llama.cpp is asked for
nothing but logits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunewright.errors import MissingExtra, RunError, TunewrightError
from tunewright.infer.grammar import Grammars
from tunewright.infer.live import Ask, End, Step
from tunewright.infer.sampling import Sampler
from tunewright.text import _


def require_package() -> None:
    """Raises MissingExtra."""
    if find_spec("llama_cpp") is None:
        raise MissingExtra("llama-cpp-python", "llama-cpp", _("the engine llama.cpp"))


class LlamaCppEngine:
    """A ``LiveEngine``. tokenizer: the folder that holds the tokenizer.json of the same vocabulary."""

    def __init__(self, file: Path, context: int, tokenizer: Path) -> None:
        require_package()
        import llama_cpp

        self.context = context
        self.library = llama_cpp
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        try:
            self.model: Any = llama_cpp.Llama(
                model_path=str(file), n_ctx=context, n_threads=cores, n_threads_batch=cores, verbose=False
            )
        except (ValueError, RuntimeError, AssertionError) as error:
            raise RunError(
                _("llama.cpp cannot read the file: {why}", why=error), where=str(file), do=_("export it again"),
                command="tunewright export RUN --to gguf",
            ) from None  # fmt: skip
        self.grammars = Grammars(tokenizer, self.model.n_vocab())
        self._turn = asyncio.Lock()
        self._closed = False

    def offer(self, adapter: str, folder: Path) -> None:
        raise TunewrightError(_("a GGUF file holds one run; adapters are merged into it"))

    async def answer(self, ask: Ask) -> AsyncIterator[Step]:
        sampler = Sampler(ask, self.grammars)
        async with self._turn:
            if self._closed:
                raise TunewrightError(_("the engine has stopped"), do=_("start the server again"))
            self.model.reset()
            given: Sequence[int] = ask.prompt
            for number in range(ask.max_new_tokens):
                row = await asyncio.to_thread(self._logits, given)
                token = sampler(row)
                end: End | None = "length" if number == ask.max_new_tokens - 1 else None
                end = "stop" if token in ask.stops else end
                logprob, top = sampler.scored[-1] if sampler.scored else (None, ())
                yield Step(token, end, logprob, top)
                if end:
                    return
                given = (token,)

    def close(self) -> None:
        self._closed = True
        self.model.close()

    def _logits(self, ids: Sequence[int]) -> torch.Tensor:
        """(V,) fp32 behind the last of ``ids``, which come after what was given before."""
        try:
            self.model.eval(list(ids))
        except RuntimeError as error:
            raise TunewrightError(_("llama.cpp failed: {why}", why=error)) from error
        row = np.ctypeslib.as_array(self.library.llama_get_logits_ith(self.model.ctx, -1), (self.model.n_vocab(),))
        return torch.from_numpy(row.copy())
