"""What a language model has to beat: the most common label, and words counted by TF-IDF with logistic regression.

Both learn from the training rows that the model learned from and are measured on the same held-out rows, so that a
person sees whether a language model was worth it.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewright.evaluate.classes import Bools, marked
from tunewright.evaluate.metrics import Floats
from tunewright.text import _

MAJORITY = "majority"
TFIDF = "tfidf"

Given = str | tuple[str, str | None]  # a text, or two of a pair

MOST_FEATURES = 50_000
STRENGTH = 10.0  # scikit-learn's C. TF-IDF rows have length 1, so its own 1 holds the weights too small
_ITERATIONS = 100
_FEWEST_ITERATIONS = 20
_WORK = 250_000_000  # rows x labels x iterations beyond which the regression would take minutes
_LONG = 10_000_000  # characters of training text beyond which pairs of words would take minutes to count
# Scripts that put no space between words, by the first word of their characters' Unicode names.
_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
_LOOKED_AT = 20_000  # letters that decide whether a text has spaces between its words


@dataclass(frozen=True, slots=True)
class Yardstick:
    """name: ``majority`` or ``tfidf``.  settings: how it was made, for people.  probabilities: (N, L)."""

    name: str
    settings: str
    probabilities: Floats


def yardsticks(
    train_texts: Sequence[Given],
    train_wanted: Sequence[Sequence[int]],
    texts: Sequence[Given],
    labels: Sequence[str],
    multi_label: bool = False,
    seed: int = 0,
) -> list[Yardstick]:
    """Both yardsticks, measured on ``texts``; without training rows none, and without any word only the first.

    train_wanted: numbers of each training row's labels.  seed: nothing here is drawn, the solver starts at zero.
    """
    if not len(train_texts) or not len(texts):
        return []
    wanted = marked(train_wanted, len(labels))
    found = [_majority(wanted.mean(axis=0), len(texts), labels, multi_label)]
    tfidf = _tfidf([plain(t) for t in train_texts], wanted, [plain(t) for t in texts], multi_label, seed)
    return found if tfidf is None else [*found, tfidf]


def plain(given: Given) -> str:
    """The text, or both texts of a pair one after the other."""
    return given if isinstance(given, str) else given[0] if given[1] is None else f"{given[0]}\n{given[1]}"


def _majority(shares: Floats, rows: int, labels: Sequence[str], multi_label: bool) -> Yardstick:
    if multi_label:
        common = [label for label, share in zip(labels, shares, strict=True) if share >= 0.5]
        what = _("always {labels}", labels=", ".join(f"“{label}”" for label in common)) if common else _("always none")
    else:
        what = _("always “{label}”", label=labels[int(shares.argmax())])
    return Yardstick(MAJORITY, what, np.tile(shares, (rows, 1)))


def _tfidf(train: list[str], wanted: Bools, texts: list[str], multi_label: bool, seed: int) -> Yardstick | None:
    # Only a run that chooses labels pays the second that this import takes.
    from sklearn.feature_extraction.text import TfidfVectorizer

    counted, said = _counted(train)
    vectorizer = TfidfVectorizer(
        **counted, sublinear_tf=True, max_features=MOST_FEATURES, lowercase=True, dtype=np.float32
    )
    try:
        seen = vectorizer.fit_transform(train)
    except ValueError:  # no word in any text
        return None
    asked = vectorizer.transform(texts)
    if multi_label:
        columns = [_chances(seen, wanted[:, number], asked, seed, wanted.shape[1]) for number in range(wanted.shape[1])]
        probabilities = np.stack([chances[:, 1] for chances in columns], axis=1)
    else:
        probabilities = np.zeros((len(texts), wanted.shape[1]))
        numbers = wanted.argmax(axis=1)
        known = np.unique(numbers)  # a label that no training row has gets nothing
        probabilities[:, known] = _chances(seen, numbers, asked, seed, wanted.shape[1], known)
    settings = _("{what}, at most {features:,} features, C = {c:g}", what=said, features=MOST_FEATURES, c=STRENGTH)
    if multi_label:
        settings += _(", one regression for each label")
    return Yardstick(TFIDF, settings, probabilities)


def _counted(train: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What is counted, for scikit-learn and for people."""
    if unspaced(train):
        return {"analyzer": "char", "ngram_range": (1, 3)}, _("runs of 1 to 3 characters (no spaces between words)")
    words: dict[str, Any] = {"analyzer": "word", "token_pattern": r"(?u)\b\w+\b"}
    if sum(map(len, train)) > _LONG:
        return words | {"ngram_range": (1, 1)}, _("words")
    return words | {"ngram_range": (1, 2)}, _("words and pairs of words")


def unspaced(texts: Sequence[str]) -> bool:
    """Are most letters of a script that puts no space between words, so that words cannot be counted?"""
    step = max(1, len(texts) // 200)
    letters = [c for text in texts[::step] for c in text[:1000] if c.isalpha()][:_LOOKED_AT]
    return 2 * sum(_script(letter) in _UNSPACED for letter in letters) > len(letters)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]


def _iterations(cells: int) -> int:
    return max(_FEWEST_ITERATIONS, min(_ITERATIONS, _WORK // max(1, cells)))


def _chances(seen: Any, wanted: Any, asked: Any, seed: int, labels: int, known: Any = (False, True)) -> Floats:
    """(N, len(known)): what logistic regression makes of ``asked``; certainty where ``wanted`` has one value only.
    labels: how many there are in all, which decides how long one may try."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    values = np.unique(wanted)
    if len(values) == 1:
        certain = np.zeros((asked.shape[0], len(known)))
        certain[:, list(known).index(values[0])] = 1.0
        return certain
    model = LogisticRegression(C=STRENGTH, max_iter=_iterations(seen.shape[0] * labels), random_state=seed)
    with warnings.catch_warnings():  # the cap on iterations is meant: it is reached where nothing much is to be had
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(seen, wanted)
    return np.asarray(model.predict_proba(asked), dtype=np.float64)
