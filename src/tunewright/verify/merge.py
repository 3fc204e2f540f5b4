"""Merge: the adapter added into the weights says the same as base and adapter side by side, in the dtype served.

The two cannot agree to the bit: a merged weight is rounded once more. What rounding may do to a logit grows with the
logits and with their dtype's last bit, and is allowed; see ``TOLERANCE``. Beyond it, the weights hold something else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tunewright.infer.engines import engine_for
from tunewright.infer.open import Opened, saved_generation
from tunewright.model.merge import merged
from tunewright.text import _
from tunewright.verify.logits import logits
from tunewright.verify.proof import Proof, failed, not_applicable, passed
from tunewright.verify.subject import Subject

NAME = "merge"
# Largest difference of a logit, as a share of the largest logit. fp32 has 24 bits: 1e-4 is a thousand last bits, after
# some hundred layers' sums. bf16 has 8 bits, so each rounding is up to 0.2 %, and there are some hundred in a row: 2.0
# and 2.4 % were measured on two bases of 8 and 30 layers, and four times that is allowed.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.1}
AGREEMENT = {"fp32": 0.999, "bf16": 0.95}  # of first choices: bf16 may turn two that are all but equal
LOST = 0.5  # of the adapter's effect on a mean logit: beyond it, the merged model is nearer to the base
NEW_TOKENS = 64  # compared of each answer: behind the first that rounding turns, nothing is comparable


def prove(subject: Subject) -> Proof:
    if not subject.is_adapter:
        return not_applicable(NAME, _("method {method} trains the weights themselves; there is nothing to merge",
                                      method=subject.recipe.train.method))  # fmt: skip
    precision = subject.recipe.train.precision
    assert precision != "auto"
    apart = subject.tuned_logits
    base = subject.base_logits
    answers = subject.answers if _generates(subject) else []
    opened = _merged(subject)
    subject.let_go()
    with subject.listener.doing(_("Asking the merged model"), len(subject.rows)) as progress:
        together = logits(opened, subject.rows, progress)
    largest = float((together - apart).abs().max())
    scale = float(apart.abs().max())
    agreement = float((together.argmax(1) == apart.argmax(1)).float().mean())
    effect = float((base - apart).abs().mean())
    lost = float((together - apart).abs().mean()) / effect if effect else 0.0
    values: dict[str, Any] = {
        "dtype": precision, "places": len(apart), "largest_difference": largest, "largest_logit": scale,
        "tolerance": TOLERANCE[precision], "top_1_agreement": agreement, "lost_effect": lost,
    }  # fmt: skip
    numbers = _("{dtype}: largest difference {largest:.2g} of {scale:.3g}, top-1 {agreement:.1%} of {places}",
                dtype=precision, largest=largest, scale=scale, agreement=agreement, places=len(apart))  # fmt: skip
    if answers:
        equal = _equal_answers(subject, opened, answers)
        values |= {"answers": len(answers), "equal_answers": equal}
        numbers += _(", {equal} of {all} texts equal", equal=equal, all=len(answers))
    what = None
    if not largest <= TOLERANCE[precision] * scale:  # a NaN is no small difference
        what = _("the merged model's logits differ by {largest:.3g}, more than rounding explains ({allowed:.3g})",
                 largest=largest, allowed=TOLERANCE[precision] * scale)  # fmt: skip
    elif agreement < AGREEMENT[precision]:
        what = _("the merged model's first choice is another at {share:.1%} of places", share=1 - agreement)
    elif lost > LOST:
        what = _("rounding to {dtype} loses the adapter: merged, the model is nearer to the base", dtype=precision)
    if what is None:
        return passed(NAME, numbers, values)
    do = _("serve base and adapter unmerged, or train with precision fp32, and report this run")
    return failed(NAME, what, str(subject.folder), do, numbers, values)


def _generates(subject: Subject) -> bool:
    return subject.task.gives in ("answers", "outputs")


def _merged(subject: Subject) -> Opened:
    """The run's model merged, behind the engine that its task is served by."""
    opened = subject.tuned
    model: torch.nn.Module = merged(opened.engine.model)
    engine = engine_for(opened.task, model, opened.codec, saved_generation(subject.folder, opened.task), opened.recipe)
    return replace(opened, engine=engine)


def _equal_answers(subject: Subject, opened: Opened, before: list[Any]) -> int:
    limit = subject.recipe.evaluate.max_new_tokens
    assert limit != "auto"
    most = min(limit, NEW_TOKENS)
    with subject.listener.doing(_("Answering, merged"), len(before)) as progress:
        after = opened.engine.generate([q.prompt for q in subject.questions], most, progress)
    return sum(one.ids[:most] == other.ids[:most] for one, other in zip(before, after, strict=True))
