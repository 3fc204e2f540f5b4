"""What an export says, as it is read back from the disk, against base + adapter on the run's own rows.

The two cannot be equal to the bit. What may differ is stated for each form and type, from what was measured on the
embedded base and on tiny models (docs/export.md); beyond it the export holds something else, and is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunewright.errors import RunError
from tunewright.infer.engine import Generation
from tunewright.text import _
from tunewright.verify import merge

NEW_TOKENS = merge.NEW_TOKENS


@dataclass(frozen=True)
class Allowed:
    """difference: of a logit, as a share of the largest logit.  agreement: of first choices, at least.  divergence:
    KL(run ‖ export), mean over places, in nats.  lost: of what training changed in a mean logit, at most."""

    difference: float
    agreement: float
    divergence: float
    lost: float


def allowed(kind: str | None, precision: str) -> Allowed:
    """kind: of a GGUF file, None for weights as they are.  precision: that the run is served in, whose own rounding no
    export can go below."""
    if kind is None:
        return Allowed(merge.TOLERANCE[precision], merge.AGREEMENT[precision], 0.1, merge.LOST)
    return GGUF[str(kind)] if precision == "bf16" else GGUF_FP32.get(str(kind), GGUF[str(kind)])


# A run in bf16 is itself two percent beside what its weights say; what packing adds is measured on top of that.
GGUF = {
    "f16": Allowed(0.1, 0.95, 0.05, 0.5),
    "q8_0": Allowed(0.15, 0.93, 0.05, 0.5),
    "q5_0": Allowed(0.4, 0.85, 0.2, 0.5),
    "q4_0": Allowed(0.5, 0.75, 0.4, 0.6),
    "q4_1": Allowed(0.5, 0.75, 0.4, 0.6),
}
GGUF_FP32 = {"f16": Allowed(0.01, 0.98, 0.005, 0.1)}


@dataclass(frozen=True)
class Reference:
    """What the run itself says. logits, base_logits: (N, V), or (rows, labels) of a model that chooses labels."""

    logits: torch.Tensor
    base_logits: torch.Tensor
    answers: Sequence[Generation]


def compared(
    reader: str, then: Reference, logits: torch.Tensor, answers: Sequence[Sequence[int]], limit: Allowed, where: str
) -> dict[str, Any]:
    """The numbers of one comparison. reader: which software read the export.  logits: of the same places as
    ``then.logits``.  answers: ids of the same prompts' greedy answers. Raises RunError beyond ``limit``."""
    numbers: dict[str, Any] = {"reader": reader, **_numbers(then, logits)}
    if then.answers:
        pairs = zip(answers, then.answers, strict=True)
        equal = sum(tuple(one)[:NEW_TOKENS] == other.ids[:NEW_TOKENS] for one, other in pairs)
        numbers |= {"answers": len(then.answers), "equal_answers": equal}
    numbers["allowed"] = {
        "difference": limit.difference * numbers["largest_logit"], "agreement": limit.agreement,
        "divergence": limit.divergence, "lost_effect": limit.lost,
    }  # fmt: skip
    if what := _beyond(numbers):
        raise RunError(
            _("the export is not the run, as {reader} reads it: {what}", reader=reader, what=what), where=where,
            do=_("nothing was kept; take a wider --type (q8_0, f16) or another form"),
            command="tunewright export --help",
        )  # fmt: skip
    return numbers


def _numbers(then: Reference, logits: torch.Tensor) -> dict[str, Any]:
    now, was, base = logits.double(), then.logits.double(), then.base_logits.double()
    if now.shape[1] < was.shape[1]:  # a reader leaves rows of the embedding out that no token has
        was, base = was[:, : now.shape[1]], base[:, : now.shape[1]]
    now = now[:, : was.shape[1]]
    effect = float((base - was).abs().mean())
    logs = was.log_softmax(1)
    return {
        "places": len(was), "largest_difference": float((now - was).abs().max()),
        "largest_logit": float(was.abs().max()),
        "top_1_agreement": float((now.argmax(1) == was.argmax(1)).double().mean()),
        "divergence": float((logs.exp() * (logs - now.log_softmax(1))).sum(1).mean()),
        "lost_effect": float((now - was).abs().mean()) / effect if effect else 0.0,
    }  # fmt: skip


def _beyond(numbers: dict[str, Any]) -> str | None:
    """Which limit is passed, in words: the most telling first. A NaN is no small difference."""
    most = numbers["allowed"]
    if not numbers["lost_effect"] <= most["lost_effect"]:
        return _("{share:.0%} of what training changed is lost in it", share=numbers["lost_effect"])
    if not numbers["divergence"] <= most["divergence"]:
        return _("its distribution is {found:.3g} nats a token away, and {most:.3g} are allowed",
                 found=numbers["divergence"], most=most["divergence"])  # fmt: skip
    if not numbers["top_1_agreement"] >= most["agreement"]:
        return _("the first choice is another at {share:.1%} of places", share=1 - numbers["top_1_agreement"])
    if not numbers["largest_difference"] <= most["difference"]:
        return _("a logit differs by {found:.3g}, and {most:.3g} is allowed",
                 found=numbers["largest_difference"], most=most["difference"])  # fmt: skip
    return None


def line(numbers: dict[str, Any]) -> str:
    """For people."""
    text = _("{reader}: largest difference {largest:.2g} of {scale:.3g}, top-1 {agreement:.1%} of {places}, "
             "divergence {divergence:.2g} nats",
             reader=numbers["reader"], largest=numbers["largest_difference"], scale=numbers["largest_logit"],
             agreement=numbers["top_1_agreement"], places=numbers["places"],
             divergence=numbers["divergence"])  # fmt: skip
    if "answers" in numbers:
        text += _(", {equal} of {all} texts equal", equal=numbers["equal_answers"], all=numbers["answers"])
    return text
