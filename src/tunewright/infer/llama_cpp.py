"""A GGUF file answered by llama.cpp: quick for one person on a CPU, one answer after the other.

The ids are ours (the run's own template), and so is the choice of each token (``sampling.py``): llama.cpp is asked for
nothing but logits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
        # All of it happens in one thread: each thread that computes has helpers of its own in OpenMP, and with more of
        # those than cores none of them waits awake for the next product any more, which makes every token slow.
        self._hand = ThreadPoolExecutor(1, "llama.cpp")
        self._turn = asyncio.Lock()
        self._closed = False

    def offer(self, adapter: str, folder: Path) -> None:
        raise TunewrightError(_("a GGUF file holds one run; adapters are merged into it"))

    async def answer(self, ask: Ask) -> AsyncIterator[Step]:
        loop = asyncio.get_running_loop()
        sampler = Sampler(ask, self.grammars)
        async with self._turn:
            self._require_open()
            given = await loop.run_in_executor(self._hand, self._unknown, ask.prompt)
            for number in range(ask.max_new_tokens):
                self._require_open()  # it may have been closed since the last token
                token = await loop.run_in_executor(self._hand, self._next, given, sampler)
                end: End | None = "length" if number == ask.max_new_tokens - 1 else None
                end = "stop" if token in ask.stops else end
                logprob, top = sampler.scored[-1] if sampler.scored else (None, ())
                yield Step(token, end, logprob, top)
                if end:
                    return
                given = (token,)

    def close(self) -> None:
        self._closed = True
        self._hand.shutdown()
        self.model.close()

    def _require_open(self) -> None:
        if self._closed:
            raise TunewrightError(_("the engine has stopped"), do=_("start the server again"))

    def _unknown(self, prompt: Sequence[int]) -> Sequence[int]:
        """What has to be read of a prompt: the beginning that it shares with the text before (a system message, a talk
        so far) is known still. At least the last id, whose logits are wanted."""
        known = self.model.input_ids[: min(self.model.n_tokens, len(prompt) - 1)].tolist()
        shared = next((at for at, (old, new) in enumerate(zip(known, prompt, strict=False)) if old != new), len(known))
        self.model.n_tokens = shared  # what lies behind is forgotten with the next eval
        return prompt[shared:]

    def _next(self, ids: Sequence[int], sampler: Sampler) -> int:
        """The token behind the last of ``ids``, which come after what was given before."""
        try:
            self.model.eval(list(ids))
        except RuntimeError as error:
            raise TunewrightError(_("llama.cpp failed: {why}", why=error)) from error
        row = np.ctypeslib.as_array(self.library.llama_get_logits_ith(self.model.ctx, -1), (self.model.n_vocab(),))
        return sampler(torch.from_numpy(row.copy()))
