"""The engine of encoder-decoders: a text is read once, and its output is searched with beams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from tunewright.data.codec import Codec
from tunewright.data.lengths import micro_batches
from tunewright.example import Rendered
from tunewright.infer.batch import in_order, padded, until_stop
from tunewright.infer.engine import Generation, Progress, Score
from tunewright.infer.scores import scores
from tunewright.model.adapter import Model
from tunewright.model.forward import causal_model
from tunewright.model.generation import generation_config
from tunewright.model.sequence import EncoderDecoderStates
from tunewright.model.source import Base
from tunewright.tasks.seq2seq import Seq2SeqCodec

BEAMS = 128  # beams that are searched at once, whatever number of sources they belong to
BATCH_TOKENS = 16_384  # of sources and outputs together, beam for beam


def frozen_generation(base: Base, codec: Codec) -> dict[str, Any]:
    """What a run keeps about generating: the base's own, and how an output is told its language."""
    assert isinstance(codec, Seq2SeqCodec)
    return generation_config(base) | codec.generation


class Unwanted(Exception):
    """Nobody waits any more for what was being written."""


class Seq2SeqEngine:
    """generation: what ``model.generation.generation_config`` gave: beginning, ends, padding, forbidden tokens."""

    def __init__(
        self, model: Model, codec: Codec, generation: dict[str, Any], beams: int = 4, token_budget: int = 2048
    ) -> None:
        assert isinstance(codec, Seq2SeqCodec)
        self.model: PreTrainedModel = model  # type: ignore[assignment]  # PEFT's coat has the same methods
        self.codec = codec
        self.beams = beams
        self.token_budget = token_budget
        self.stops = frozenset(generation["eos_token_id"])
        self.pad = int(generation["pad_token_id"])
        # An end that is forced at the limit would make every cut output look as if it had ended by itself.
        own = {name: value for name, value in generation.items() if name != "forced_eos_token_id"}
        self.settings = own | codec.generation | {"eos_token_id": sorted(self.stops), "num_beams": beams}
        # transformers fills what a call leaves open from the model's own file: the penalties, sampling or least
        # lengths that a base ships were chosen for another task.
        causal_model(model).generation_config = GenerationConfig(**self.settings)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None,
        wanted: Callable[[], bool] | None = None,
    ) -> list[Generation]:  # fmt: skip
        """The best output of each source's search, in the order of ``prompts``; sources of like length together.
        wanted: asked after each token. Raises Unwanted where it says no."""
        self.model.eval()
        at_once = max(1, BEAMS // self.beams)
        costs = [self.beams * (len(prompt) + max_new_tokens) for prompt in prompts]
        likes = micro_batches(costs, BATCH_TOKENS)
        groups = [like[start : start + at_once] for like in likes for start in range(0, len(like), at_once)]
        ends = StoppingCriteriaList([_WhileWanted(wanted)] if wanted else [])

        def search(group: Sequence[int]) -> list[Generation]:
            return self._search([prompts[i] for i in group], max_new_tokens, ends)

        return in_order(groups, search, progress)

    def score(self, rows: Sequence[Rendered], progress: Progress | None = None) -> list[Score]:
        self.model.eval()
        return scores(EncoderDecoderStates(self.model), rows, self.model.device, self.token_budget, progress)

    def _search(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, ends: StoppingCriteriaList
    ) -> list[Generation]:
        ids, mask = padded(prompts, self.pad, "right")
        forced = int("forced_bos_token_id" in self.settings)  # the language's token takes no room from the output
        config = GenerationConfig(**self.settings, max_new_tokens=max_new_tokens + forced)
        device = self.model.device
        out = self.model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config, stopping_criteria=ends
        )  # (B, 1 + new), padded behind the end
        return [self._ended(row[1:].tolist()) for row in out]  # the first is where the decoder starts

    def _ended(self, ids: list[int]) -> Generation:
        kept, stopped = until_stop(ids, self.stops)
        return Generation(kept, self.codec.decode(kept, skip_special=True).strip(), stopped)


class _WhileWanted(StoppingCriteria):  # type: ignore[misc]
    """transformers asks it after each token. An exception ends all batches of a call, whatever the search has found."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.wanted = wanted

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_more: Any) -> torch.Tensor:
        """(beams, T), (beams, V) -> (beams,): none of them ends here."""
        if not self.wanted():
            raise Unwanted
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
