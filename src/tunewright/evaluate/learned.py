"""Whether what was learned is more than the training rows: overfitting by epoch, and answers given back word for word.

Both are found from what a run has measured anyway, or with a few short answers, and are told in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunewright.evaluate.compare import Item
from tunewright.evaluate.metrics import words
from tunewright.infer.engine import Generation
from tunewright.text import _

ROSE = 0.02  # by which share held-out loss must lie above its lowest, so that it is more than the noise of a few rows
ASKED = 16  # training rows whose answers are asked for
TOKENS = 48  # of each answer; an answer that is the row's own up to here will not leave it
SHORTEST = 6  # words of an answer; a shorter one is soon right without having been learned by heart
OFTEN = 0.5  # of the answers asked for, from which on a model is said to recite


@dataclass(frozen=True, slots=True)
class Epoch:
    """Losses when ``step`` was done: the mean of its steps on training rows, and that on held-out rows."""

    epoch: float
    step: int
    train: float
    held_out: float


# ---- overfitting ---------------------------------------------------------------------------------------------------


def epochs(lines: Iterable[dict[str, Any]], last: float | None = None) -> list[Epoch]:
    """The epochs of ``metrics.jsonl``. last: held-out loss at the end, where it is known but stands in no line."""
    found: list[Epoch] = []
    losses: list[float] = []
    line: dict[str, Any] = {}
    for line in lines:
        losses.append(float(line["loss"]))
        held_out = line.get("held_out_loss")
        if held_out is not None:
            found.append(Epoch(line["epoch"], line["step"], sum(losses) / len(losses), held_out))
            losses = []
    if losses and last is not None and math.isfinite(last):
        found.append(Epoch(line["epoch"], line["step"], sum(losses) / len(losses), last))
    return found


def lowest(seen: Sequence[Epoch]) -> Epoch:
    """The epoch that did best on held-out rows."""
    return min(seen, key=lambda one: one.held_out)


def overfits(seen: Sequence[Epoch]) -> bool:
    """Whether held-out loss has risen from its lowest while the loss of training rows went on falling."""
    if len(seen) < 2:
        return False
    best, last = lowest(seen), seen[-1]
    return last.held_out > best.held_out + ROSE * abs(best.held_out) and last.train < best.train


def learning(seen: Sequence[Epoch], kept_best: bool) -> dict[str, Any]:
    """The part ``learning`` of ``evaluation.json``. kept_best: the run ended with the weights of the epoch that
    ``train.keep: best`` chose."""
    told: dict[str, Any] = {
        "epochs": [asdict(one) for one in seen],
        "lowest": asdict(lowest(seen)) if seen else None,
        "overfitted": overfits(seen),
        "kept_best": kept_best,
    }
    return told


def rising(seen: Sequence[Epoch]) -> str:
    """One sentence for who watches, if the model is overfitting by now; else nothing."""
    if not overfits(seen):
        return ""
    best, last = lowest(seen), seen[-1]
    return _(
        "Epoch {epoch}: held-out loss {now}, above the {best} of epoch {lowest}, while that of training rows falls",
        epoch=f"{last.epoch:.3g}", now=f"{last.held_out:.3f}", best=f"{best.held_out:.3f}", lowest=f"{best.epoch:.3g}",
    )  # fmt: skip


def overfitting_words(evaluation: dict[str, Any]) -> str:
    """The sentence of the verdict, empty where there is nothing to say."""
    told = evaluation.get("learning") or {}
    if not told.get("overfitted"):
        return ""
    best, last = told["lowest"], told["epochs"][-1]
    what = _(
        "Overfitting: held-out loss was lowest after epoch {lowest} ({best}) and rose to {now} by epoch {last}, while "
        "that of training rows fell from {train} to {after}",
        lowest=f"{best['epoch']:.3g}", best=f"{best['held_out']:.2f}", now=f"{last['held_out']:.2f}",
        last=f"{last['epoch']:.3g}", train=f"{best['train']:.2f}", after=f"{last['train']:.2f}",
    )  # fmt: skip
    if told.get("kept_best"):
        return _("{what}; rows held out for that decided which epoch was kept.", what=what)
    return _("{what}; train.epochs={lowest} or train.keep=best would end better.",
             what=what, lowest=f"{math.ceil(best['epoch'])}")  # fmt: skip


# ---- recitation ----------------------------------------------------------------------------------------------------


def worth_asking(reference: str) -> bool:
    """Whether giving this answer back word for word says that it was learned by heart."""
    return len(words(reference)) >= SHORTEST


def recites(item: Item, answer: Generation) -> bool:
    """Whether ``answer`` is the row's own, as far as it was let go on."""
    own = f"{item.thinking}\n\n{item.reference}" if item.thinking else item.reference
    said, own = " ".join(answer.whole.split()), " ".join(own.split())
    if answer.stopped or len(said) >= len(own):
        return said == own
    return bool(said) and own.startswith(said)


def recitation(items: Sequence[Item], before: Sequence[Generation], after: Sequence[Generation]) -> dict[str, Any]:
    """The part ``recited`` of ``evaluation.json``: of training rows, how many are given back word for word."""
    rows = [
        {
            **item.origin.place,
            "prompt": item.prompt_text,
            "reference": item.reference,
            "before": {"text": one.whole, "recited": recites(item, one)},
            "after": {"text": two.whole, "recited": recites(item, two)},
        }
        for item, one, two in zip(items, before, after, strict=True)
    ]  # fmt: skip
    counts = {side: sum(bool(row[side]["recited"]) for row in rows) for side in ("before", "after")}  # type: ignore[index]
    return {"asked": len(rows), **counts, "tokens": TOKENS, "rows": rows}


def recitation_words(evaluation: dict[str, Any]) -> str:
    """The sentence of the verdict if the tuned model recites, which the base did not; else nothing."""
    told = evaluation.get("recited") or {}
    asked = told.get("asked", 0)
    if not asked or told["after"] < max(2, OFTEN * asked) or told["after"] <= told["before"]:
        return ""
    return _(
        "It recites: {after} of {asked} training answers come back word for word (before: {before}); fewer epochs or "
        "more rows leave it freer.", after=told["after"], asked=asked, before=told["before"],
    )  # fmt: skip


def completed(evaluation: dict[str, Any], **parts: dict[str, Any]) -> dict[str, Any]:
    """``evaluation`` with the parts ``learning`` and ``recited``, and what they say behind its verdict."""
    whole = {**evaluation, **parts}
    said = [words_of(whole) for name, words_of in SAID_BY.items() if name in parts]
    return whole | {"verdict": " ".join(part for part in (evaluation["verdict"], *said) if part)}


SAID_BY = {"learning": overfitting_words, "recited": recitation_words}


def recited_line(evaluation: dict[str, Any]) -> str:
    """What was counted, for below the table; empty where nothing was asked."""
    told = evaluation.get("recited") or {}
    if not told.get("asked"):
        return ""
    return _("Training answers given back word for word: {after} of {asked} (before: {before}).",
             after=told["after"], asked=told["asked"], before=told["before"])  # fmt: skip
