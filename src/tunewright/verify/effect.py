"""Effect: what was trained changes what the model says. Measured with the adapter on and off, or against the base."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import safe_open

from tunewright.text import _
from tunewright.verify.proof import Proof, failed, passed
from tunewright.verify.subject import Subject

NAME = "effect"
LEAST_DIVERGENCE = 1e-4  # nats a token: far below what a training that learned anything changes, far above rounding
LEAST_CHANGE = 1e-3  # of a label's probability


def prove(subject: Subject) -> Proof:
    tuned, base = subject.tuned_logits, subject.base_logits
    if subject.task.gives == "labels":
        size, numbers, values = _of_labels(tuned, base, subject.recipe.classify.multi_label)
        enough = size >= LEAST_CHANGE
    else:
        size, numbers, values = _of_tokens(tuned, base)
        enough = size >= LEAST_DIVERGENCE
    zeros, adapters = _zeros(subject)
    values |= {"adapters": adapters, "zero_adapters": zeros} if adapters else {}
    where = str(subject.folder)
    if adapters and zeros == adapters:
        what = _("the adapter is zero in each of its {n} layers, so that it changes nothing", n=adapters)
        return failed(NAME, what, where, _("bring back the run's own weights, or train again"), numbers, values)
    if not enough:
        off = _("with the adapter on and off") if subject.is_adapter else _("tuned and as the base")
        what = _("the model says the same {off}: nothing was learned", off=off)
        do = _("train with a higher train.learning_rate or more steps")
        return failed(NAME, what, where, do, numbers, values)
    notes = []
    if zeros:
        notes.append(_("the adapter is zero in {zeros} of its {n} layers; a training leaves none so", zeros=zeros,
                       n=adapters))  # fmt: skip
    return passed(NAME, numbers, values, tuple(notes))


def _of_tokens(tuned: torch.Tensor, base: torch.Tensor) -> tuple[float, str, dict[str, Any]]:
    """(N, V) logits of both: the mean of KL(tuned ‖ base) in nats a token, and how often the first choice changed."""
    one, other = tuned.double().log_softmax(1), base.double().log_softmax(1)
    size = float((one.exp() * (one - other)).sum(1).mean())
    changed = float((tuned.argmax(1) != base.argmax(1)).float().mean())
    numbers = _("divergence from the base {size:.3g} nats a token, first choice changed at {changed:.0%} of {places}",
                size=size, changed=changed, places=len(tuned))  # fmt: skip
    return size, numbers, {"divergence": size, "changed_first_choices": changed, "places": len(tuned)}


def _of_labels(tuned: torch.Tensor, base: torch.Tensor, multi_label: bool) -> tuple[float, str, dict[str, Any]]:
    """(rows, labels) logits of both: mean change of a probability, and how many rows get another label."""
    chances = [logits.sigmoid() if multi_label else logits.softmax(1) for logits in (tuned, base)]
    size = float((chances[0] - chances[1]).abs().mean())
    changed = ((tuned > 0) != (base > 0)).any(1) if multi_label else tuned.argmax(1) != base.argmax(1)
    numbers = _("probabilities change by {size:.3f} on average, {changed} of {rows} rows get another label",
                size=size, changed=int(changed.sum()), rows=len(tuned))  # fmt: skip
    return size, numbers, {"mean_change": size, "changed_rows": int(changed.sum()), "rows": len(tuned)}


def _zeros(subject: Subject) -> tuple[int, int]:
    """Of how many layers the adapter's second matrix is zero, and how many there are. The first is never zero."""
    zero = every = 0
    for path in sorted(subject.folder.glob("*.safetensors")) if subject.is_adapter else ():
        with safe_open(str(path), framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a dict
                if "lora_B" in name:
                    every += 1
                    zero += not bool(weights.get_tensor(name).any())
    return zero, every
