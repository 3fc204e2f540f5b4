"""How likely a model finds each answer of a question that offers several: what they share is read once.

All prompts begin alike (a system message, the user's mark), and all answers of a question follow the same prompt. So
what the model keeps of a beginning, its memory of keys and values, is repeated for whatever follows it. Questions whose
prompts are equally long go together, without padding. A model whose memory cannot be repeated is found out by trying,
and reads every answer with its whole prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from tunewright.example import Origin, Rendered
from tunewright.infer.batch import in_order
from tunewright.infer.engine import Choices, Progress
from tunewright.infer.scores import CHUNK, scores
from tunewright.model.forward import HiddenStates

APART = 0.2  # of what another prompt would change, this much may be rounding
_NOWHERE = Origin("choices", 0, 0)


@torch.no_grad()
def likelihoods(
    model: Any, questions: Sequence[Choices], token_budget: int, progress: Progress | None = None
) -> list[tuple[float, ...]]:
    """Log-likelihood in nats, summed over its tokens, of each option of each question, in their order."""
    if not questions:
        return []
    opening = _opening([question.prompt for question in questions])
    memory = _read(model, opening)
    shares = _shares(model, memory, len(opening), questions[0], token_budget)

    def answers(group: Sequence[int]) -> list[tuple[float, ...]]:
        asked = [questions[index] for index in group]
        return _together(model, memory, len(opening), asked) if shares else _apart(model, asked, token_budget)

    return in_order(_groups(questions, len(opening), token_budget), answers, progress)


def _groups(questions: Sequence[Choices], opening: int, token_budget: int) -> Iterator[list[int]]:
    """Numbers of questions with equally long prompts and about equally long answers, as many as keep logits small."""
    by_length: dict[int, list[int]] = {}
    for index in sorted(range(len(questions)), key=lambda number: questions[number].longest):
        by_length.setdefault(len(questions[index].prompt), []).append(index)
    for length, group in sorted(by_length.items()):
        answers = max(len(questions[index].options) * questions[index].longest for index in group)
        size = max(1, min(token_budget // (length - opening), CHUNK // answers))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _opening(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The ids that all prompts begin with, less the last: each keeps one of its own."""
    first, last = min(prompts), max(prompts)  # whatever these two share, those between them share
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: min(same, min(map(len, prompts)) - 1)]


def _read(model: Any, opening: Sequence[int]) -> Any:
    """The model's memory of the ids that every prompt begins with; None of nothing."""
    if not opening:
        return None
    ids = torch.tensor([list(opening)], device=model.device)
    return model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values


def _shares(model: Any, memory: Any, opening: int, question: Choices, token_budget: int) -> bool:
    """Whether a repeated memory gives what the whole prompt gives, to what rounding makes of the difference that a
    forgotten prompt would be."""
    try:
        [shared] = _together(model, memory, opening, [question])
    except (AttributeError, TypeError, ValueError):  # no such memory, or not one that can be repeated
        return False
    bare = Choices(question.prompt[-1:], question.options)
    whole, forgotten = _apart(model, [question, bare], token_budget)
    off, much = (sum(abs(a - b) for a, b in zip(one, whole, strict=True)) for one in (shared, forgotten))
    return off <= APART * much


def _together(model: Any, memory: Any, opening: int, questions: Sequence[Choices]) -> list[tuple[float, ...]]:
    """Questions with equally long prompts, behind ``opening`` ids that ``memory`` holds already."""
    device = model.device
    memory = copy.deepcopy(memory)
    if memory is not None:
        memory.batch_repeat_interleave(len(questions))
    ids = torch.tensor([question.prompt[opening:] for question in questions], device=device)
    out = model(input_ids=ids, past_key_values=memory, use_cache=True, logits_to_keep=1)
    first = out.logits[:, -1].float().log_softmax(-1)  # (B, V)
    options = [(place, option) for place, question in enumerate(questions) for option in question.options]
    total = torch.tensor([float(first[place, option[0]]) for place, option in options])
    longer = [number for number, (_place, option) in enumerate(options) if len(option) > 1]
    if longer:
        out.past_key_values.batch_select_indices(torch.tensor([options[n][0] for n in longer], device=device))
        total[longer] += _rest(model, out.past_key_values, [options[n][1] for n in longer])
    values = iter(total.tolist())
    return [tuple(next(values) for _option in question.options) for question in questions]


def _rest(model: Any, memory: Any, options: Sequence[Sequence[int]]) -> torch.Tensor:
    """(N,) log-likelihood of each option behind its first id. memory: of the prompt of each option."""
    rows = [torch.tensor(option, device=model.device) for option in options]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)  # (N, L), nothing looks at padding
    out = model(input_ids=ids[:, :-1].clamp(min=0), past_key_values=memory, use_cache=True)
    real, wanted = ids[:, 1:] >= 0, ids[:, 1:]
    chance = out.logits[real].float().log_softmax(-1).gather(1, wanted[real][:, None])[:, 0]
    sums = torch.zeros(len(rows), device=model.device)
    return sums.index_add_(0, real.nonzero()[:, 0], chance).cpu()


def _apart(model: Any, questions: Sequence[Choices], token_budget: int) -> list[tuple[float, ...]]:
    rows = [_row(question.prompt, option) for question in questions for option in question.options]
    losses = iter(scores(HiddenStates(model), rows, model.device, token_budget))
    return [tuple(-next(losses).loss for _option in question.options) for question in questions]


def _row(prompt: Sequence[int], option: Sequence[int]) -> Rendered:
    ids = np.array([*prompt, *option], dtype=np.int32)
    return Rendered(ids, np.arange(len(ids)) >= len(prompt), _NOWHERE)
