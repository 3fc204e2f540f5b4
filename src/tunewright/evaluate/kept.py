"""What a tuned model still can do of what its base could: two measurements side by side, and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.evaluate.metrics import Estimate, mean, mean_change, ratio, share, share_change
from tunewright.evaluate.names import signed
from tunewright.evaluate.questions import Asked, Question, prompts
from tunewright.infer.engine import Generation
from tunewright.text import _

if TYPE_CHECKING:  # the page of a run is made without torch
    import torch

    from tunewright.model.loss import Replayed

CHANCE = 0.25  # of four answers


@dataclass(frozen=True)
class Retained:
    """What one model showed.

    scores: log-likelihood of each option of each of ``asked``.  held: the prompts with the base's own answers.  moved:
    the divergence from the base at each of them, summed over its tokens; 0 for the base itself.  said: answers to the
    first of them.  watched: more such rows, for the end of each epoch.  watched_moved: nats a token there.  head: the
    base's output matrix, where training changes the model's own.
    """

    asked: tuple[Asked, ...]
    scores: tuple[tuple[float, ...], ...]
    held: tuple[Replayed, ...]
    moved: tuple[float, ...]
    said: tuple[Generation, ...]
    watched: tuple[Replayed, ...] = ()
    watched_moved: float = 0.0
    head: torch.Tensor | None = None

    @property
    def chosen(self) -> list[int]:
        """The likeliest option of each question; of equals the last, so that a model without any opinion is wrong."""
        return [max(range(len(row)), key=lambda option: (row[option], option)) for row in self.scores]

    @property
    def right(self) -> list[bool]:
        return [option == 0 for option in self.chosen]

    @property
    def sure(self) -> list[float]:
        """The right answer's probability among the four, of each question. Where two answers are nearly as likely, a
        breath decides which is the likelier; this hardly moves then, so that chance is not taken for forgetting."""
        return [_probability(row) for row in self.scores]


def _probability(scores: Sequence[float]) -> float:
    """Of the first of answers with these log-likelihoods; NaN where one of them is."""
    if any(map(math.isnan, scores)):
        return math.nan
    most = max(scores)
    if math.isinf(most):
        return 1 / len(scores)
    odds = [math.exp(score - most) for score in scores]
    return odds[0] / sum(odds)


def shares(before: Retained, after: Retained) -> tuple[Estimate, Estimate, Estimate]:
    """Of the questions, which share was right: before, after, and the change."""
    return share(before.right), share(after.right), share_change(before.right, after.right)


def knows_little(before: Estimate) -> bool:
    """Whether a base does no better at the questions than guessing would."""
    return before.low is not None and before.low <= CHANCE


def compare(before: Retained, after: Retained, seed: int = 0) -> dict[str, Any]:
    """The part ``general`` of ``evaluation.json``."""
    first, second = before.right, after.right
    pairs = list(zip((one.question for one in before.asked), first, second, strict=True))
    kept = [now for _question, was, now in pairs if was]
    tokens = [float(row.learned) for row in after.held]
    return {
        "asked": len(pairs),
        "before": sum(first),
        "after": sum(second),
        "kept": sum(kept),
        "kept_share": share(kept).as_dict(),
        "near_chance": knows_little(share(first)),
        "lost": [question.text for question, was, now in pairs if was and not now],
        "gained": [question.text for question, was, now in pairs if now and not was],
        "probability": {
            "before": mean(before.sure, seed).as_dict(),
            "after": mean(after.sure, seed).as_dict(),
            "difference": mean_change(before.sure, after.sure, seed).as_dict(),
        },
        "categories": _categories(pairs),
        "divergence": ratio(after.moved, tokens, seed).as_dict() | {"tokens": int(sum(tokens))},
        "watched_divergence": round(after.watched_moved, 6) if math.isfinite(after.watched_moved) else None,
        "answers": _answers(before, after),
        "rows": [
            {
                "question": question.text,
                "category": question.category,
                "language": question.language,
                "reference": question.options[0],
                "before": {"text": question.options[one], "right": one == 0},
                "after": {"text": question.options[two], "right": two == 0},
            }
            for (question, _was, _now), one, two in zip(pairs, before.chosen, after.chosen, strict=True)
        ],
    }


def _categories(pairs: Sequence[tuple[Question, bool, bool]]) -> list[dict[str, Any]]:
    """Counts of each category in each language, in the order of the list."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for question, was, now in pairs:
        key = question.category, question.language
        line = found.setdefault(
            key, {"category": key[0], "language": key[1], "asked": 0, "before": 0, "after": 0, "kept": 0}
        )
        for name, counts in (("asked", True), ("before", was), ("after", now), ("kept", was and now)):
            line[name] += int(counts)
    return list(found.values())


def _answers(before: Retained, after: Retained) -> list[dict[str, Any]]:
    texts = prompts()[0]
    return [
        {
            "prompt": texts[row.origin.row - 1],
            "before": {"text": one.whole, "stopped": one.stopped},
            "after": {"text": two.whole, "stopped": two.stopped},
            "divergence": round(far / max(1, row.learned), 4) if math.isfinite(far) else None,
        }
        for row, one, two, far in zip(before.held, before.said, after.said, after.moved, strict=False)
    ]


# --- in words -------------------------------------------------------------------------------------------------------


def known_line(general: dict[str, Any]) -> str:
    """“kept 118 of 125 that the base knew”, or that the base knew little."""
    values = {"kept": general["kept"], "knew": general["before"], "n": general["asked"]}
    if general.get("near_chance"):
        guessed = round(CHANCE * general["asked"])
        return _("this base knows little of these: {knew} of {n} right, where guessing gives {guessed}",
                 **values, guessed=guessed)  # fmt: skip
    return _("kept {kept} of {knew} that the base knew", **values)


def sure_line(general: dict[str, Any]) -> str:
    """How likely the right answers are before and after; empty where it was not measured."""
    found = general.get("probability") or {}
    change = found.get("difference") or {}
    if change.get("value") is None:
        return ""
    before, after = (f"{100 * found[side]['value']:.1f}" for side in ("before", "after"))
    points, low, high = (signed(f"{100 * change[name]:+.1f}") for name in ("value", "low", "high"))
    return _("among its four answers the right one has {before} % before and {after} % after: {points} points "
             "({low}…{high})", before=before, after=after, points=points, low=low, high=high)  # fmt: skip


def moved_line(general: dict[str, Any]) -> str:
    """How far the words have moved; empty where it was not measured."""
    far = general.get("divergence") or {}
    if far.get("value") is None:
        return ""
    values = {name: f"{far[name]:.3f}" for name in ("value", "low", "high")}
    return _("moved {value} nats a token from the base ({low}…{high}) on {n} general prompts", **values, n=far["n"])


def settled_line(settled: dict[str, Any]) -> str:
    """How much of an adapter stayed after training; empty where that was not asked. settled: the part of the manifest
    (``train/settle.py``)."""
    if not settled:
        return ""
    return _("{share:.0%} of the adapter is kept; whole, it was {far:.3f} nats a token from the base",
             share=settled["size"], far=settled["divergence"])  # fmt: skip
