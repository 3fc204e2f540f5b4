"""Numbers per row in 0..1, and how sure one may be of a number made from few rows.

Two kinds of interval, both 95 %:

* Quantities that vary within a row (loss, token accuracy, chrF, ROUGE-L) are resampled: the percentile bootstrap over
  rows, paired where two models answered the same rows (Efron and Tibshirani, 1993, chapter 13).
* Shares of yes and no (checks, stops, general questions) get exact or near-exact intervals instead, because a
  bootstrap of 11 out of 11 would claim certainty: Wilson's for a share, and for a change the exact interval of
  McNemar's test over the rows whose answer changed.

Beside the interval of a change stands ``p``: how often chance alone would give a change as large, two-sided, from the
same resamples (at least one in ``RESAMPLES``) or from McNemar's exact test.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF

RESAMPLES = 2000
LEVEL = 0.95
_Z = 1.959963984540054  # the normal quantile of LEVEL, two-sided
_CELLS = 2_000_000  # indices drawn at once; keeps the memory of a bootstrap at some 16 MB
_DENSE = 32  # columns up to which a product of matrices is quicker than adding what is not zero
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval over ``n`` rows; all three are None where the value is no finite number.
    p: of a change, how often chance alone would give one as large; None of anything else."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None = None

    def as_dict(self) -> dict[str, Any]:
        around = {"value": _rounded(self.value), "low": _rounded(self.low), "high": _rounded(self.high), "n": self.n}
        return around if self.p is None else around | {"p": _rounded(self.p)}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)


# --- one answer against one reference -------------------------------------------------------------------------------


@cache
def _chrf() -> CHRF:
    return CHRF()


def chrf(answer: str, reference: str) -> float:
    """chrF2 in 0..1: character n-grams up to 6, recall weighed twice (Popović 2015), as sacrebleu computes it."""
    return float(_chrf().sentence_score(answer, [reference]).score) / 100


def chrf_signature() -> str:
    """How sacrebleu names this chrF; to be stated beside its number."""
    _chrf().corpus_score([""], [[""]])
    return str(_chrf().get_signature())


def words(text: str) -> list[str]:
    """Lower-case words for ROUGE; every CJK character is a word of its own, because nothing else separates them.

    "Hi, 小智 v2" becomes ["hi", "小", "智", "v2"].
    """
    found: list[str] = []
    word = ""
    for char in unicodedata.normalize("NFKC", text).lower():
        alone = is_cjk(char)
        if not alone and (char.isalnum() or (word and unicodedata.category(char).startswith("M"))):
            word += char
            continue
        if word:
            found.append(word)
            word = ""
        if alone:
            found.append(char)
    return [*found, word] if word else found


def is_cjk(char: str) -> bool:
    """Is it a letter of a script that writes no spaces between words?"""
    code = ord(char)
    return (
        0x3040 <= code <= 0x30FF  # kana
        or 0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x3FFFF
    ) and char.isalnum()


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L (Lin 2004): the F measure of the longest common subsequence of words, in 0..1.

    The same number as the package ``rouge-score`` gives when it is handed :func:`words` for a tokenizer. That package
    drops everything outside ASCII by default, and fills a table of length times length in Python: minutes for a few
    hundred long Chinese answers.
    """
    left, right = words(answer), words(reference)
    if not left or not right:
        return 0.0
    common = _longest_common(left, right)
    return 2 * common / (len(left) + len(right))  # = harmonic mean of common/len(left) and common/len(right)


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, one column of the table at a time as the bits of one integer.

    Hyyrö 2004, "Bit-parallel LCS-length computation revisited": a zero bit marks a step up in the column.
    """
    places: dict[str, int] = {}
    for index, word in enumerate(left):
        places[word] = places.get(word, 0) | (1 << index)
    full = (1 << len(left)) - 1
    column = full
    for word in right:
        match = column & places.get(word, 0)
        column = ((column + match) | (column - match)) & full
    return len(left) - column.bit_count()


# --- many rows ------------------------------------------------------------------------------------------------------


def ratio(top: Sequence[float], bottom: Sequence[float], seed: int = 0) -> Estimate:
    """``sum(top) / sum(bottom)`` with a bootstrap interval over rows: loss per learned token, token accuracy."""
    tops, bottoms = _floats(top), _floats(bottom)
    n = len(tops)
    if not n or not _usable(tops, bottoms):
        return Estimate(None, None, None, n)
    low, high = interval(_bootstrap(n, lambda picked: _safe_ratio(tops[picked], bottoms[picked]), seed))
    return Estimate(float(tops.sum() / bottoms.sum()), low, high, n)


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    return ratio(values, [1.0] * len(values), seed)


def ratio_change(
    before: Sequence[float], after: Sequence[float], before_bottom: Sequence[float], after_bottom: Sequence[float],
    seed: int = 0,
) -> Estimate:
    """After minus before of two :func:`ratio` over the same rows. The rows are resampled together (paired), so that
    what makes a row hard for both models cancels out. Raises ValueError if the rows are not the same number."""
    one, two, under, over = _floats(before), _floats(after), _floats(before_bottom), _floats(after_bottom)
    if not len(one) == len(two) == len(under) == len(over):
        raise ValueError("a paired difference needs the same rows before and after")
    n = len(one)
    if not n or not _usable(one, under) or not _usable(two, over):
        return Estimate(None, None, None, n)
    drawn = _bootstrap(n, lambda p: _safe_ratio(two[p], over[p]) - _safe_ratio(one[p], under[p]), seed)
    return Estimate(float(two.sum() / over.sum() - one.sum() / under.sum()), *interval(drawn), n, chance(drawn))


def mean_change(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Estimate:
    ones = [1.0] * len(before)
    return ratio_change(before, after, ones, ones[: len(after)], seed)


def perplexity(loss: Estimate) -> Estimate:
    """exp of a loss a token, and of the ends of its interval: among how many tokens one seems to choose."""
    return Estimate(_exp(loss.value), _exp(loss.low), _exp(loss.high), loss.n)


def perplexity_change(
    before: Sequence[float], after: Sequence[float], tokens: Sequence[float], seed: int = 0
) -> Estimate:
    """After minus before of two perplexities over the same rows, resampled together. before, after: summed losses."""
    one, two, under = _floats(before), _floats(after), _floats(tokens)
    n = len(one)
    if not n or not _usable(one, under) or not _usable(two, under):
        return Estimate(None, None, None, n)
    with np.errstate(over="ignore"):
        drawn = _bootstrap(
            n, lambda p: np.exp(_safe_ratio(two[p], under[p])) - np.exp(_safe_ratio(one[p], under[p])), seed
        )
        low, high = interval(drawn)
        value = float(np.exp(two.sum() / under.sum()) - np.exp(one.sum() / under.sum()))
    if not all(map(math.isfinite, (value, low, high))):
        return Estimate(None, None, None, n)
    return Estimate(value, low, high, n, chance(drawn))


def _exp(value: float | None) -> float | None:
    return math.exp(value) if value is not None and value < 700 else None


def share(passed: Sequence[bool]) -> Estimate:
    """Which share is true, with Wilson's interval (Wilson 1927)."""
    n, hits = len(passed), sum(passed)
    if not n:
        return Estimate(None, None, None, 0)
    at = hits / n
    middle = (at + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * math.sqrt(at * (1 - at) / n + _Z**2 / (4 * n * n))
    return Estimate(at, min(at, max(0.0, middle - reach)), max(at, min(1.0, middle + reach)), n)


def share_change(before: Sequence[bool], after: Sequence[bool]) -> Estimate:
    """After minus before of a share. The interval leaves out 0 exactly when McNemar's exact test is below 5 %.

    Only rows that changed speak. Of ``gained + lost`` changed rows the share gained has an exact (Clopper-Pearson)
    interval; mapped from 0..1 to -1..1 and scaled by the share of rows that changed it is one for the difference.
    """
    if len(before) != len(after):
        raise ValueError("a paired difference needs the same rows before and after")
    n = len(before)
    if not n:
        return Estimate(None, None, None, 0)
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    changed = gained + lost
    if not changed:
        return Estimate(0.0, 0.0, 0.0, n, 1.0)
    low, high = _exact(gained, changed)
    p = min(1.0, 2 * _tail(min(gained, lost), changed))
    return Estimate((gained - lost) / n, (2 * low - 1) * changed / n, (2 * high - 1) * changed / n, n, p)


def _tail(most: int, n: int) -> float:
    """The chance of at most ``most`` heads in ``n`` tosses, in logarithms against overflow."""
    ways = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(most + 1))
    return math.fsum(math.exp(way - n * math.log(2)) for way in ways)


def _exact(hits: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson, by bisecting the binomial tails (no scipy for one quantile)."""
    tail = (1 - LEVEL) / 2

    # In logarithms, because n above a thousand or so leaves the range of floats.
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]

    def chance(p: float, of: range) -> float:
        yes, no = math.log(p), math.log1p(-p)
        return math.fsum(math.exp(ways[k] + k * yes + (n - k) * no) for k in of)

    low = 0.0 if hits == 0 else _bisect(lambda p: chance(p, range(hits, n + 1)) < tail)
    high = 1.0 if hits == n else _bisect(lambda p: chance(p, range(hits + 1)) > tail)
    return low, high


def _bisect(below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _floats(values: Sequence[float]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _usable(top: Floats, bottom: Floats) -> bool:
    return bool(np.isfinite(top).all() and np.isfinite(bottom).all() and bottom.sum() > 0)


def _safe_ratio(top: Floats, bottom: Floats) -> Floats:
    """Row sums of (R, n) arrays, divided. A resample of rows without any token has no ratio and is left out (NaN)."""
    under = bottom.sum(axis=1)
    return np.divide(top.sum(axis=1), under, out=np.full(len(under), np.nan), where=under > 0)


def _bootstrap(n: int, statistic: Callable[[NDArray[np.int64]], Floats], seed: int) -> Floats:
    """(RESAMPLES,) values of ``statistic``, which is handed (R, n) row numbers and answers with (R,) values."""
    rng = np.random.default_rng(seed)
    at_once = max(1, min(RESAMPLES, _CELLS // n))
    parts: list[Floats] = []
    for start in range(0, RESAMPLES, at_once):
        parts.append(statistic(rng.integers(0, n, size=(min(at_once, RESAMPLES - start), n))))
    return np.concatenate(parts)


def chance(samples: Floats, around: float | None = None) -> float:
    """How often chance alone would give a change as far from 0 as ``samples`` (R,) are, two-sided; never 0, since no
    more than R were drawn. around: as in :func:`interval`."""
    sound = samples[np.isfinite(samples)]
    changes = sound if around is None else 2 * around - sound
    least = min(int((changes <= 0).sum()), int((changes >= 0).sum()))
    return min(1.0, 2 * (least + 1) / (len(changes) + 1))


def interval(samples: Floats, around: float | None = None) -> tuple[float, float]:
    """The ends of 95 % of ``samples`` (R,); with ``around``, reflected there (a statistic that is biased by chance)."""
    low, high = (float(end) for end in np.nanquantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return (low, high) if around is None else (2 * around - high, 2 * around - low)


def resampled(values: Floats, seed: int) -> Floats:
    """(N, C) -> (R, C): sums over as many rows, drawn with replacement; the same seed draws the same rows."""
    n, width = values.shape
    rng = np.random.default_rng(seed)
    add = _adder(values)
    at_once = max(1, min(RESAMPLES, _CELLS // max(n, int(np.count_nonzero(values)) if width > _DENSE else 0)))
    parts: list[Floats] = []
    for start in range(0, RESAMPLES, at_once):
        drawn = min(at_once, RESAMPLES - start)
        places = rng.integers(0, n, size=(drawn, n)) + n * np.arange(drawn)[:, None]
        parts.append(add(np.bincount(places.ravel(), minlength=drawn * n).reshape(drawn, n)))
    return np.concatenate(parts)


def _adder(values: Floats) -> Callable[[NDArray[np.int64]], Floats]:
    """What makes (R, N), how often each row was drawn, to (R, C). Wide values are nearly all zeros (a hundred labels,
    of which a row has one), and only the others are added."""
    if values.shape[1] <= _DENSE:
        return lambda counts: counts @ values
    columns, rows = values.T.nonzero()  # sorted by column
    entries = values[rows, columns]
    present, starts = np.unique(columns, return_index=True)

    def add(counts: NDArray[np.int64]) -> Floats:
        sums = np.zeros((len(counts), values.shape[1]))
        if len(present):
            sums[:, present] = np.add.reduceat(counts[:, rows] * entries, starts, axis=1)
        return sums

    return add
