"""Metric names in words, their direction, and how a value is written for people. No arithmetic.

A metric that is new to the house is one line in each of the tables below; table, page and verdict read nothing else.
"""

from __future__ import annotations

from typing import Any

from tunewright.text import _

CHECK = "check: "
LOSS = "loss"
PERPLEXITY = "perplexity"
ACCURACY = "token_accuracy"
CHRF = "chrf"
BLEU = "bleu"
ROUGE_1 = "rouge_1"
ROUGE_2 = "rouge_2"
ROUGE = "rouge_l"
EXACT_MATCH = "exact_match"
STOPS = "stops"
REASONED = "finished_thinking"
GENERAL = "general"
LABELS_RIGHT = "accuracy"
MACRO_F1 = "macro_f1"
MICRO_F1 = "micro_f1"
CALIBRATION = "calibration_error"

# How a value is written: a plain number, or a count of rows. All others are shares, in percent.
_NUMBERS = {LOSS, PERPLEXITY}
_POINTS = {BLEU}  # shares that everybody quotes as points of 100, without a sign
_COUNTS = {STOPS, REASONED, GENERAL}
_LOWER = {LOSS, PERPLEXITY, CALIBRATION}


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
        PERPLEXITY: _("perplexity (lower is better)"),
        ACCURACY: _("tokens predicted right"),
        CHRF: _("chrF of answers"),
        BLEU: _("BLEU"),
        ROUGE_1: _("ROUGE-1 of answers"),
        ROUGE_2: _("ROUGE-2 of answers"),
        ROUGE: _("ROUGE-L of answers"),
        EXACT_MATCH: _("exact match"),
        STOPS: _("answers that stop"),
        REASONED: _("reasoned, then answered"),
        GENERAL: _("general questions"),
        LABELS_RIGHT: _("accuracy"),
        MACRO_F1: _("macro F1"),
        MICRO_F1: _("micro F1"),
        CALIBRATION: _("calibration error (lower is better)"),
    }.get(metric, metric)


def explained(metric: str) -> str:
    """One sentence for who meets the metric for the first time."""
    if metric.startswith(CHECK):
        return _("Your own check, asked of the rows whose reference answer satisfies it.")
    return {
        LOSS: _("How surprised the model is by each token or label that is right, in nats. Lower is better."),
        PERPLEXITY: _("Among how many equally likely tokens the model seems to choose each time. Lower is better."),
        ACCURACY: _("How often the next token of the right answer was the model’s first choice."),
        CHRF: _("How much of the reference the generated answer shares, in runs of up to six characters."),
        BLEU: _("How many runs of one to four words all answers together share with their references."),
        ROUGE_1: _("How many words the generated answer shares with the reference."),
        ROUGE_2: _("How many pairs of words the generated answer shares with the reference."),
        ROUGE: _("How much of the reference the generated answer shares, in words in the same order."),
        EXACT_MATCH: _("Rows in which everything is as it should be."),
        STOPS: _("Answers that ended by themselves before the length limit."),
        REASONED: _("Answers that began with a chain of thought and finished it before the length limit."),
        GENERAL: _("Bundled questions with four answers, of which the likeliest counts: what does it still know?"),
        LABELS_RIGHT: _("Rows whose label was chosen."),
        MACRO_F1: _("The mean of the labels’ F1: a rare label counts as much as a common one."),
        MICRO_F1: _("F1 of all labels thrown together: a common label counts more."),
        CALIBRATION: _("How far the probabilities are from how often they come true. Lower is better."),
    }.get(metric, "")


def lower_is_better(metric: str) -> bool:
    return metric in _LOWER


def is_number(metric: str) -> bool:
    """Is the metric a plain number without an upper end, rather than a share?"""
    return metric in _NUMBERS


def is_count(metric: str) -> bool:
    """Is the metric a share of yes and no, which reads best as “10 of 11”?"""
    return metric in _COUNTS or metric.startswith(CHECK)


def shown(metric: str, estimate: dict[str, Any] | None) -> str:
    """“3.21”, “61.3 %” or “10 of 11”; a dash where there is no value."""
    if estimate is None or estimate.get("value") is None:
        return "–"
    value, n = float(estimate["value"]), int(estimate.get("n") or 0)
    if is_count(metric) and n:
        return _("{hits} of {n}", hits=round(value * n), n=n)
    return number(metric, value)


def number(metric: str, value: float) -> str:
    if is_number(metric):
        return _plain(value)
    return f"{100 * value:.1f}" if metric in _POINTS else f"{100 * value:.1f} %"


def shown_change(metric: str, estimate: dict[str, Any] | None) -> str:
    """With its sign: “−2.37”, “+41.0 pts”, “+10”."""
    if estimate is None or estimate.get("value") is None:
        return "–"
    value, n = float(estimate["value"]), int(estimate.get("n") or 0)
    if is_count(metric) and n:
        return signed(f"{round(value * n):+d}")
    if is_number(metric):
        return signed(_plain(value, "+"))
    return _("{points} pts", points=signed(f"{100 * value:+.1f}"))


def chance(change: dict[str, Any] | None) -> str:
    """How often chance alone would give such a change: “p < 0.001”; empty where it was not calculated."""
    p = (change or {}).get("p")
    if p is None:
        return ""
    return _("p < 0.001") if p <= 0.001 else _("p = {p}", p=f"{p:.2f}" if p >= 0.01 else f"{p:.3f}")


def _plain(value: float, sign: str = "") -> str:
    if abs(value) >= 100:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.2f}" if abs(value) >= 0.1 else f"{value:{sign}.3f}"


def signed(text: str) -> str:
    """A true minus sign, and no sign before zero."""
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
