"""A GGUF file as llama.cpp itself reads it, through the package llama-cpp-python (extra ``llama-cpp``)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tunewright.data.joined import Joined
from tunewright.errors import RunError
from tunewright.example import Rendered
from tunewright.infer.engine import Progress
from tunewright.text import _
from tunewright.verify.logits import PLACES

EXTRA = "llama-cpp"
SCORES = 1 << 29  # bytes of logits that the package keeps of one row
THREADS = 8  # more than that wait for each other on a model of this size


def is_installed() -> bool:
    return importlib.util.find_spec("llama_cpp") is not None


class LlamaCpp:
    """One file, opened. context: tokens of the longest row or answer that is asked."""

    def __init__(self, path: Path, context: int, vocabulary: int) -> None:
        self._package: Any = importlib.import_module("llama_cpp")
        self.context = max(8, min(context, SCORES // (4 * vocabulary)))
        threads = max(1, min(THREADS, torch.get_num_threads()))
        try:
            self._model: Any = self._package.Llama(
                str(path), n_ctx=self.context, logits_all=True, verbose=False, n_threads=threads,
                n_threads_batch=threads, n_gpu_layers=0,
            )  # fmt: skip
        except (ValueError, RuntimeError, AssertionError) as error:
            raise RunError(
                _("llama.cpp cannot read the file: {why}", why=str(error) or type(error).__name__), where=str(path),
                do=_("report this run, with the base's name"), command="tunewright export --to merged",
            ) from error  # fmt: skip

    @property
    def version(self) -> str:
        return str(self._package.__version__)

    def ids(self, text: str) -> list[int]:
        found: list[int] = self._model.tokenize(text.encode(), add_bos=False, special=True)
        return found

    def ends(self, token: int) -> bool:
        """Whether an answer ends at ``token``."""
        return bool(self._package.llama_vocab_is_eog(self._model._model.vocab, token))

    def logits(self, rows: Sequence[Rendered], progress: Progress) -> tuple[torch.Tensor, list[int]]:
        """(N, V) at the places that ``verify.logits`` takes of the same rows, and which of those they are: all, but
        for those so far into a row that its logits would not fit into memory."""
        chosen = {place: number for number, place in enumerate(_chosen(sum(row.learned for row in rows)))}
        found, numbers, place = [], [], -1
        for row in rows:
            for ids, learn in _documents(row):
                wanted = []
                for position in (np.flatnonzero(learn[1:]) + 1).tolist():
                    place += 1
                    if place in chosen and position <= self.context:
                        wanted.append(position - 1)
                        numbers.append(chosen[place])
                if wanted:
                    self._model.reset()
                    self._model.eval(ids[: wanted[-1] + 1].tolist())
                    found.append(torch.from_numpy(self._model.scores[wanted].copy()))
            progress(1)
        return torch.cat(found), numbers

    def answers(self, prompts: Sequence[Sequence[int]], most: int, progress: Progress) -> list[list[int]]:
        """Greedy, up to and without the token that ends each."""
        found = []
        for prompt in prompts:
            found.append(list(self._answer(prompt, most)))
            progress(1)
        return found

    def _answer(self, prompt: Sequence[int], most: int) -> Iterator[int]:
        self._model.reset()
        tokens = list(prompt)
        for _number in range(min(most, self.context - len(prompt))):
            self._model.eval(tokens)
            token = int(self._model.scores[self._model.n_tokens - 1].argmax())
            if self.ends(token):
                return
            yield token
            tokens = [token]

    def close(self) -> None:
        self._model.close()


def _documents(row: Rendered) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Ids and learn mask of each document of a row, which do not see each other."""
    starts = [*row.starts.tolist(), row.length] if isinstance(row, Joined) else [0, row.length]
    for start, end in pairwise(starts):
        yield row.ids[start:end], row.learn[start:end]


def _chosen(count: int) -> list[int]:
    """As ``verify.logits`` spreads them."""
    chosen: list[int] = torch.linspace(0, count - 1, min(count, PLACES)).long().tolist()
    return chosen
