"""Written texts against references, as translation and summarising are judged: BLEU, ROUGE-1, ROUGE-2, exact match.

BLEU belongs to all texts together, not to one: its counts are summed over rows before anything is divided. So its
interval comes from drawing rows with replacement and summing anew (Koehn 2004), and that of a difference from drawing
the same rows for both models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from tunewright.evaluate.metrics import Estimate, Floats, chance, chrf_signature, interval, is_cjk, resampled, words

ORDERS = 4
CJK_SHARE = 0.3  # of the references' letters, from which on words cannot be told by spaces


def bleu(
    before: Sequence[str], after: Sequence[str], references: Sequence[str], seed: int = 0
) -> tuple[Estimate, Estimate, Estimate]:
    """BLEU in 0..1 of both sides and of the difference, after minus before, with their intervals. As sacrebleu's."""
    n = len(references)
    if not n:
        return (Estimate(None, None, None, 0),) * 3
    scorer = _scorer(tokenizer(references))
    counts = [_counts(texts, references, scorer) for texts in (before, after)]
    values = [float(_score(one.sum(axis=0)[None])[0]) for one in counts]
    drawn = [_score(resampled(one, seed)) for one in counts]
    sides = [Estimate(value, *interval(samples), n) for value, samples in zip(values, drawn, strict=True)]
    moved = drawn[1] - drawn[0]
    return sides[0], sides[1], Estimate(values[1] - values[0], *interval(moved), n, chance(moved))


def signatures(references: Sequence[str]) -> dict[str, str]:
    """How sacrebleu names what was measured: to be stated beside a number that others compare theirs with."""
    if not references:
        return {}
    scorer = _scorer(tokenizer(references))
    scorer.corpus_score([""], [[""]])  # the signature knows the number of references only then
    return {"bleu": str(scorer.get_signature()), "chrf": chrf_signature()}


def tokenizer(references: Sequence[str]) -> str:
    """sacrebleu's name for how words are told: ``zh`` for Chinese, ``char`` for Japanese, else its default ``13a``."""
    letters = Counter(
        "kana" if 0x3040 <= ord(char) <= 0x30FF else "cjk" if is_cjk(char) else "other"
        for text in references for char in text if char.isalnum()
    )  # fmt: skip
    if letters["kana"] + letters["cjk"] < CJK_SHARE * letters.total() or not letters:
        return "13a"
    return "char" if letters["kana"] else "zh"


def rouge_n(answer: str, reference: str, order: int) -> float:
    """ROUGE-N (Lin 2004): the F measure of shared runs of ``order`` words, in 0..1."""
    left, right = (_runs(words(text), order) for text in (answer, reference))
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else 0.0


def rouge_1(answer: str, reference: str) -> float:
    return rouge_n(answer, reference, 1)


def rouge_2(answer: str, reference: str) -> float:
    return rouge_n(answer, reference, 2)


def exact(answer: str, reference: str) -> bool:
    return answer.strip() == reference.strip()


def _runs(found: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(found[i : i + order]) for i in range(len(found) - order + 1))


@cache
def _scorer(tokenize: str) -> BLEU:
    return BLEU(tokenize=tokenize)


def _counts(texts: Sequence[str], references: Sequence[str], scorer: BLEU) -> Floats:
    """(N, 2 + 2 * ORDERS): length of the text and of its reference in words, right runs and all runs by order."""
    rows = []
    for text, reference in zip(texts, references, strict=True):
        one = scorer.corpus_score([text], [[reference]])
        rows.append([one.sys_len, one.ref_len, *one.counts, *one.totals])
    return np.asarray(rows, dtype=np.float64)


def _score(sums: Floats) -> Floats:
    """(R, 2 + 2 * ORDERS) -> (R,) BLEU in 0..1 (Papineni et al. 2002), an order without any right run smoothed as
    sacrebleu does by default: the first such counts half a run, the next a quarter, and so on."""
    length, reference = sums[:, 0], sums[:, 1]
    right, total = sums[:, 2 : 2 + ORDERS], sums[:, 2 + ORDERS :]
    halved = np.cumsum(right == 0, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(right > 0, right, 0.5**halved) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        score = brevity * np.exp(np.log(precision).mean(axis=1))
    return np.where((right[:, 0] > 0) & (total[:, -1] > 0), score, 0.0)
