"""Metric names in words, their direction, and how a value is written for people. No arithmetic."""

from __future__ import annotations

from typing import Any

from tunewright.text import _

CHECK = "check: "
LOSS = "loss"
ACCURACY = "token_accuracy"
CHRF = "chrf"
ROUGE = "rouge_l"
STOPS = "stops"
GENERAL = "general"


def label(metric: str) -> str:
    """A metric as a person would call it, short enough for the first column of an 80-column table."""
    if metric.startswith(CHECK):
        kind, _colon, value = metric[len(CHECK) :].partition(": ")
        return {
            "contains": _("contains “{value}”", value=value),
            "regex": _("matches {value}", value=value),
            "equals": _("equals “{value}”", value=value) if value else _("equals the reference"),
            "json": _("is valid JSON"),
            "number": _("right final number"),
        }.get(kind, metric[len(CHECK) :])
    return {
        LOSS: _("loss (lower is better)"),
        ACCURACY: _("tokens predicted right"),
        CHRF: _("chrF of answers"),
        ROUGE: _("ROUGE-L of answers"),
        STOPS: _("answers that stop"),
        GENERAL: _("general questions"),
    }.get(metric, metric)


def explained(metric: str) -> str:
    """One sentence for who meets the metric for the first time."""
    if metric.startswith(CHECK):
        return _("Your own check, asked of the rows whose reference answer satisfies it.")
    return {
        LOSS: _("How surprised the model is by each token of the right answers, in nats. Lower is better."),
        ACCURACY: _("How often the next token of the right answer was the model’s first choice."),
        CHRF: _("How much of the reference the generated answer shares, in runs of up to six characters."),
        ROUGE: _("How much of the reference the generated answer shares, in words in the same order."),
        STOPS: _("Answers that ended by themselves before the length limit."),
        GENERAL: _("Bundled questions of general knowledge: does the model still know what it knew?"),
    }.get(metric, "")


def lower_is_better(metric: str) -> bool:
    return metric == LOSS


def is_count(metric: str) -> bool:
    """Is the metric a share of yes and no, which reads best as “10 of 11”?"""
    return metric in (STOPS, GENERAL) or metric.startswith(CHECK)


def shown(metric: str, estimate: dict[str, Any] | None) -> str:
    """“3.21”, “61.3 %” or “10 of 11”; a dash where there is no value."""
    if estimate is None or estimate.get("value") is None:
        return "–"
    value, n = float(estimate["value"]), int(estimate.get("n") or 0)
    if is_count(metric) and n:
        return _("{hits} of {n}", hits=round(value * n), n=n)
    return number(metric, value)


def number(metric: str, value: float) -> str:
    if metric == LOSS:
        return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
    return f"{100 * value:.1f} %"


def shown_change(metric: str, estimate: dict[str, Any] | None) -> str:
    """With its sign: “−2.37”, “+41.0 pts”, “+10”."""
    if estimate is None or estimate.get("value") is None:
        return "–"
    value, n = float(estimate["value"]), int(estimate.get("n") or 0)
    if is_count(metric) and n:
        return signed(f"{round(value * n):+d}")
    if metric == LOSS:
        return signed(f"{value:+.2f}" if abs(value) >= 0.1 else f"{value:+.3f}")
    return _("{points} pts", points=signed(f"{100 * value:+.1f}"))


def signed(text: str) -> str:
    """A true minus sign, and no sign before zero."""
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
