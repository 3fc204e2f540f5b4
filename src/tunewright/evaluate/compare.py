"""Before and after: what one model does on the held-out rows, and what differs between two.

The base and the tuned model go through :func:`measure` with the same rows, prompts and limits. :func:`compare` puts
the two side by side and is the content of ``evaluation.json``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.evaluate import kept, names, outputs
from tunewright.evaluate.checks import applies, satisfies
from tunewright.evaluate.metrics import (
    Estimate,
    chrf,
    mean,
    mean_change,
    perplexity,
    perplexity_change,
    ratio,
    ratio_change,
    rouge_l,
    share,
    share_change,
)
from tunewright.evaluate.verdict import verdict
from tunewright.example import Origin, Rendered
from tunewright.infer.engine import Engine, Generation, Progress, Score
from tunewright.recipe.schema import Check

# A change smaller than this is not called a change, however sure it is: a learning rate of nothing also moves every
# row by the same hair. The loss is compared with the loss before; the others are shares.
NEGLIGIBLE_LOSS = 0.01
NEGLIGIBLE_SHARE = 0.005

# The general questions are a fixed list, not a sample: what is lost is lost, but for the few on the edge between two
# answers that any training moves.
GENERAL_TOLERATED = 0.02


@dataclass(frozen=True, slots=True)
class Item:
    """A held-out row to be answered. prompt: token ids up to where the answer begins.  prompt_text: the last user
    turn, for people.  reference: the row's own answer.  thinking: the reasoning that the row has before it."""

    origin: Origin
    prompt: Sequence[int]
    prompt_text: str
    reference: str
    thinking: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one model did. Each list is in the order of what it was asked.

    scores: one to each rendered row.  answers: one to each item.  retained: of what the base can do, where it is asked.
    recited: one to each training row that was asked (``learned.py``).
    """

    rows: tuple[Rendered, ...]
    scores: tuple[Score, ...]
    items: tuple[Item, ...]
    answers: tuple[Generation, ...]
    checks: tuple[Check, ...]
    recited: tuple[Generation, ...] = ()
    retained: kept.Retained | None = None


def work(rows: Sequence[Rendered], items: Sequence[Item]) -> int:
    """How much ``progress`` will count up to in one :func:`measure`."""
    return len(rows) + len(items)


def measure(
    engine: Engine,
    rows: Sequence[Rendered],
    items: Sequence[Item],
    checks: Sequence[Check],
    max_new_tokens: int,
    progress: Progress | None = None,
) -> Measurement:
    """Score all held-out ``rows`` and answer ``items``. The engine batches."""
    return Measurement(
        rows=tuple(rows),
        scores=tuple(engine.score(rows, progress)) if rows else (),
        items=tuple(items),
        answers=tuple(engine.generate([i.prompt for i in items], max_new_tokens, progress)) if items else (),
        checks=tuple(checks),
    )


def compare(before: Measurement, after: Measurement, seed: int = 0, gives: str = "answers") -> dict[str, Any]:
    """The content of ``evaluation.json``; standard JSON, a value that is no finite number is null.

    gives: what the task's model gives back (``tasks/interface.py``); texts from texts are judged by more metrics.

    ``difference[metric]["better"]`` is true, false, or null where the difference is inside the noise (or too small to
    matter). Raises ValueError if the two measured different rows.
    """
    if [r.origin for r in before.rows] != [r.origin for r in after.rows] or (
        [i.origin for i in before.items] != [i.origin for i in after.items]
    ):
        raise ValueError("before and after were measured on different rows")
    values = _scored(before, after, seed, gives) | _answered(before, after, seed, gives) | _general_share(before, after)
    result: dict[str, Any] = {
        "verdict": "",
        "gives": gives,
        "before": {name: one.as_dict() for name, (one, _two, _change) in values.items()},
        "after": {name: two.as_dict() for name, (_one, two, _change) in values.items()},
        "difference": {
            name: change.as_dict() | {"better": better(name, one, two, change)}
            for name, (one, two, change) in values.items()
        },
        "counts": {
            "rows": len(before.rows),
            "learned_tokens": sum(s.tokens for s in before.scores),
            "answers": len(before.items),
            "same_answers": sum(a.whole == b.whole for a, b in zip(before.answers, after.answers, strict=True)),
            "general": len(before.retained.asked) if before.retained else 0,
        },
        "general": _general(before, after, seed),
        "rows": _rows(before, after),
    }
    if gives == "outputs":
        result["signatures"] = outputs.signatures([item.reference for item in before.items])
    result["verdict"] = verdict(result)
    return result


Values = dict[str, tuple[Estimate, Estimate, Estimate]]


def _scored(before: Measurement, after: Measurement, seed: int, gives: str) -> Values:
    if not before.scores:
        return {}
    values: Values = {}
    tops: dict[str, Callable[[Score], float]] = {
        names.LOSS: lambda score: score.loss,
        names.ACCURACY: lambda score: float(score.correct),
    }
    under, over = ([float(s.tokens) for s in m.scores] for m in (before, after))
    for name, top in tops.items():
        one, two = ([top(s) for s in m.scores] for m in (before, after))
        values[name] = ratio(one, under, seed), ratio(two, over, seed), ratio_change(one, two, under, over, seed)
        if name == names.LOSS and gives == "likelihood":
            both = perplexity(values[name][0]), perplexity(values[name][1])
            values[names.PERPLEXITY] = (*both, perplexity_change(one, two, under, seed))
    return values


# One text against one reference, by what the model gives.
CLOSENESS: dict[str, dict[str, Callable[[str, str], float]]] = {
    "answers": {names.CHRF: chrf, names.ROUGE: rouge_l},
    "outputs": {
        names.CHRF: chrf, names.ROUGE_1: outputs.rouge_1, names.ROUGE_2: outputs.rouge_2, names.ROUGE: rouge_l
    },
}  # fmt: skip


def _answered(before: Measurement, after: Measurement, seed: int, gives: str) -> Values:
    if not before.answers:
        return {}
    values: Values = {}
    references = [item.reference for item in before.items]
    if gives == "outputs":
        texts = [[a.text for a in m.answers] for m in (before, after)]
        values[names.BLEU] = outputs.bleu(texts[0], texts[1], references, seed)
    for name, closeness in CLOSENESS.get(gives, CLOSENESS["answers"]).items():
        one, two = (
            [closeness(a.text, r) for a, r in zip(m.answers, references, strict=True)] for m in (before, after)
        )
        values[name] = (mean(one, seed), mean(two, seed), mean_change(one, two, seed))
    if gives == "outputs":
        same = [[outputs.exact(a.text, r) for a, r in zip(m.answers, references, strict=True)] for m in (before, after)]
        values[names.EXACT_MATCH] = _shares(same[0], same[1])
    values[names.STOPS] = _shares([a.stopped for a in before.answers], [a.stopped for a in after.answers])
    if any(item.thinking for item in before.items):
        values[names.REASONED] = _shares(*([_reasoned(a) for a in m.answers] for m in (before, after)))
    for check in before.checks:
        asked = [index for index, reference in enumerate(references) if applies(check, reference)]
        first, second = (
            [satisfies(check, m.answers[i].text, references[i]) for i in asked] for m in (before, after)
        )
        values[names.CHECK + check.name] = _shares(first, second)
    return values


def _reasoned(answer: Generation) -> bool:
    return answer.thinking is not None and answer.finished


def _general_share(before: Measurement, after: Measurement) -> Values:
    if before.retained is None or after.retained is None:
        return {}
    return {names.GENERAL: kept.shares(before.retained, after.retained)}


def _shares(before: Sequence[bool], after: Sequence[bool]) -> tuple[Estimate, Estimate, Estimate]:
    return share(before), share(after), share_change(before, after)


def better(metric: str, before: Estimate, after: Estimate, change: Estimate) -> bool | None:
    """True or False where the difference is more than chance and large enough to matter, else None."""
    if before.value is not None and after.value is None and after.n:
        return False  # the loss is no number any more
    if change.value is None or change.low is None or change.high is None:
        return None
    if metric == names.GENERAL and kept.knows_little(before):
        return None  # nothing is lost of what was guessed
    if metric == names.GENERAL and change.value < -GENERAL_TOLERATED:
        return False
    smallest = NEGLIGIBLE_LOSS * abs(before.value or 0.0) if names.is_number(metric) else NEGLIGIBLE_SHARE
    if change.n < 2 or change.low <= 0 <= change.high or abs(change.value) < smallest:
        return None
    return (change.value < 0) == names.lower_is_better(metric)


# --- row by row -----------------------------------------------------------------------------------------------------


def _rows(before: Measurement, after: Measurement) -> list[dict[str, Any]]:
    losses = [_losses(m) for m in (before, after)]
    rows = []
    for item, one, two in zip(before.items, before.answers, after.answers, strict=True):
        asked = [check for check in before.checks if applies(check, item.reference)]
        rows.append(
            {
                **item.origin.place,
                "prompt": item.prompt_text,
                "reference": item.reference,
                **({"reference_thinking": item.thinking} if item.thinking else {}),
                "before": _answer(item, one, losses[0]),
                "after": _answer(item, two, losses[1]),
                "checks": {
                    check.name: {
                        "before": satisfies(check, one.text, item.reference),
                        "after": satisfies(check, two.text, item.reference),
                    }
                    for check in asked
                },
            }
        )
    return rows


def _answer(item: Item, answer: Generation, losses: dict[tuple[str, int, int], float | None]) -> dict[str, Any]:
    reasoning = {"thinking": answer.thinking or "", "finished": _reasoned(answer)}
    return {
        "text": answer.text,
        **(reasoning if item.thinking or answer.thinking else {}),
        "stopped": answer.stopped,
        "tokens": len(answer.ids),
        "loss": losses.get(_place(item.origin)),
        "chrf": round(chrf(answer.text, item.reference), 4),
        "rouge_l": round(rouge_l(answer.text, item.reference), 4),
    }


def _place(origin: Origin) -> tuple[str, int, int]:
    return origin.file, origin.line, origin.row


def _losses(measured: Measurement) -> dict[tuple[str, int, int], float | None]:
    """Loss per learned token of each row of the file; a conversation rendered as several examples is one row."""
    sums: dict[tuple[str, int, int], tuple[float, int]] = {}
    for row, score in zip(measured.rows, measured.scores, strict=True):
        loss, tokens = sums.get(_place(row.origin), (0.0, 0))
        sums[_place(row.origin)] = (loss + score.loss, tokens + score.tokens)
    return {
        place: round(loss / tokens, 4) if tokens and math.isfinite(loss) else None
        for place, (loss, tokens) in sums.items()
    }


def _general(before: Measurement, after: Measurement, seed: int) -> dict[str, Any]:
    if before.retained is None or after.retained is None:
        return {"asked": 0}
    return kept.compare(before.retained, after.retained, seed)
