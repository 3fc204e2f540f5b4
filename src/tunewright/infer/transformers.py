"""The engine that runs everywhere: transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from tunewright.data.lengths import micro_batches
from tunewright.data.template import ChatTemplate
from tunewright.example import Rendered
from tunewright.infer.batch import in_order, padded, until_stop
from tunewright.infer.choices import likelihoods
from tunewright.infer.engine import Choices, Generation, Progress, Score
from tunewright.infer.sampling import choose
from tunewright.infer.scores import scores
from tunewright.model.adapter import Model
from tunewright.model.forward import HiddenStates, causal_model
from tunewright.model.loss import Replayed, divergences

BATCH = 16  # prompts answered together
BATCH_TOKENS = 16_384  # of prompts and answers together


class TransformersEngine:
    """generation: what ``model.generation.generation_config`` gave: stop ids and padding."""

    def __init__(
        self, model: Model, template: ChatTemplate, generation: dict[str, Any], token_budget: int = 2048
    ) -> None:
        self.model: PreTrainedModel = model  # type: ignore[assignment]  # PEFT's coat has the same methods
        self.template = template
        self.stops = frozenset(generation["eos_token_id"])
        self.pad = int(generation["pad_token_id"])
        self.token_budget = token_budget
        head = causal_model(model).get_output_embeddings()  # type: ignore[operator]
        if head is not None and _whole not in head._forward_pre_hooks.values():
            head.register_forward_pre_hook(_whole)
        # transformers fills what a call leaves open from the model's own file: a penalty or a sampling that the base
        # ships would reach answers that are called greedy.
        causal_model(model).generation_config = GenerationConfig(eos_token_id=sorted(self.stops), pad_token_id=self.pad)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Generation]:
        self.model.eval()
        groups = _groups([len(p) for p in prompts], max_new_tokens)
        return in_order(groups, lambda group: self._answer([prompts[i] for i in group], max_new_tokens), progress)

    @torch.no_grad()
    def stream(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0
    ) -> Iterator[str]:
        self.model.eval()
        ids = torch.tensor([list(prompt)], device=self.model.device)
        past, done, shown = None, [], ""
        for _step in range(max_new_tokens):
            out = self.model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
            past = out.past_key_values
            token = choose(out.logits[0, -1].float(), temperature, top_p)
            if token in self.stops:
                break
            done.append(token)
            text = self.template.generated(done)
            # Half a character decodes to the replacement mark; it is shown when its other half has come.
            if not text.endswith("\ufffd"):
                yield text[len(shown) :]
                shown = text
            ids = torch.tensor([[token]], device=self.model.device)
        rest = self.template.generated(done)[len(shown) :]
        if rest:
            yield rest

    @torch.no_grad()
    def score(self, rows: Sequence[Rendered], progress: Progress | None = None) -> list[Score]:
        self.model.eval()
        return scores(HiddenStates(self.model), rows, self.model.device, self.token_budget, progress)

    @torch.no_grad()
    def choose(self, questions: Sequence[Choices], progress: Progress | None = None) -> list[tuple[float, ...]]:
        self.model.eval()
        return likelihoods(self.model, questions, self.token_budget, progress)

    @torch.no_grad()
    def diverged(
        self, rows: Sequence[Replayed], base_head: torch.Tensor | None = None, progress: Progress | None = None
    ) -> list[float]:
        self.model.eval()
        states = HiddenStates(self.model)
        groups, device = micro_batches([row.length for row in rows], self.token_budget), self.model.device

        def ask(group: Sequence[int]) -> list[float]:
            return divergences(states, [rows[i] for i in group], device, base_head)

        return in_order(groups, ask, progress)

    def _answer(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Generation]:
        """One batch, padded on the left so that all answers begin at the same place."""
        ids, mask = padded(prompts, self.pad, "left")
        config = GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=sorted(self.stops), pad_token_id=self.pad
        )
        device = self.model.device
        out = self.model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
        )  # (B, T + new)
        return [self._ended(row[ids.shape[1] :].tolist()) for row in out]

    def _ended(self, ids: list[int]) -> Generation:
        kept, stopped = until_stop(ids, self.stops)
        said = self.template.said(kept)
        return Generation(kept, said.answer.strip(), stopped, said.thinking, said.finished)


def _whole(_head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The states of the last position as a tensor of its own: given a view of (B, T, H), torch's matmul with a frozen
    matrix would copy that matrix B times (860 MB for 16 rows of the embedded base)."""
    return (args[0].contiguous(), *args[1:])


def _groups(lengths: Sequence[int], new: int) -> Iterator[list[int]]:
    for group in micro_batches([length + new for length in lengths], BATCH_TOKENS):
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]
