"""BLEU and ROUGE are those of the packages that define them, and their intervals hold what they should."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from tunewright.evaluate import names
from tunewright.evaluate.compare import Item, Measurement, compare
from tunewright.evaluate.metrics import words
from tunewright.evaluate.outputs import bleu, exact, rouge_1, rouge_2, signatures, tokenizer
from tunewright.example import Origin
from tunewright.infer.engine import Generation

REFERENCES = [
    "A man in a blue shirt is standing on a ladder, cleaning a window.", "Two men are at the stove preparing food.",
    "A little girl climbs into a wooden playhouse.", "Several men in hard hats operate a giant pulley system.",
    "Deux jeunes hommes blancs sont dehors près de buissons.", "Yes.",
]  # fmt: skip
WORSE = [
    "A man with a shirt stands at a ladder and cleans windows.", "Two man are on the stove.", "A girl climbs.",
    "Men in hats.", "Deux hommes sont dans des buissons.", "No.",
]  # fmt: skip
BETTER = [
    "A man in a blue shirt is standing on a ladder and cleans a window.", "Two men are at the stove with food.",
    "A little girl climbs into a playhouse.", "Several men in hard hats operate a pulley system.",
    "Deux jeunes hommes sont dehors près de buissons.", "Yes.",
]  # fmt: skip
CHINESE = ["今天天气很好，我们去河边走走。", "你叫什么名字？"]


@pytest.mark.parametrize("texts", [WORSE, BETTER, REFERENCES, [""] * 6, [*WORSE[:5], ""], ["x y z"] * 6])
def test_bleu_is_sacrebleus(texts: list[str]) -> None:
    one, two, change = bleu(WORSE, texts, REFERENCES)
    assert two.value == pytest.approx(sacrebleu.corpus_bleu(texts, [REFERENCES]).score / 100, abs=1e-9)
    assert one.value is not None and two.value is not None
    assert change.value == pytest.approx(two.value - one.value)


def test_bleu_of_chinese_counts_characters_and_says_so() -> None:
    texts = ["今天天气好，我们去走走。", "你叫什么？"]
    expected = sacrebleu.corpus_bleu(texts, [CHINESE], tokenize="zh").score / 100
    assert bleu(texts, texts, CHINESE)[0].value == pytest.approx(expected, abs=1e-9) and expected > 0
    assert "tok:zh" in signatures(CHINESE)["bleu"] and "tok:13a" in signatures(REFERENCES)["bleu"]
    assert tokenizer(["これはペンです。"]) == "char" and tokenizer([]) == "13a"


def test_the_interval_of_a_clear_difference_leaves_out_zero_and_of_none_holds_it() -> None:
    one, two, change = bleu(WORSE * 5, BETTER * 5, REFERENCES * 5)
    assert change.low is not None and change.low > 0 and one.high is not None and two.low is not None
    assert one.high < two.low and change.n == 30
    same = bleu(WORSE, WORSE, REFERENCES)[2]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_an_interval_covers_as_often_as_it_says() -> None:
    """Rows drawn from a known set of rows: the BLEU of the whole set is in about 95 of 100 intervals."""
    random = np.random.default_rng(0)
    pool = [(WORSE if random.random() < 0.5 else BETTER)[i % 5] for i in range(400)]
    references = [REFERENCES[i % 5] for i in range(400)]
    truth = sacrebleu.corpus_bleu(pool, [references]).score / 100
    inside = 0
    for _try in range(40):
        drawn = random.integers(0, 400, 60)
        texts = [pool[i] for i in drawn]
        one = bleu(texts, texts, [references[i] for i in drawn])[0]
        assert one.low is not None and one.high is not None
        inside += one.low <= truth <= one.high
    assert inside >= 34


def test_rouge_is_that_of_the_package_with_our_words() -> None:
    class Words:
        def tokenize(self, text: str) -> list[str]:
            return words(text)

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"], tokenizer=Words())
    for text, reference in zip([*WORSE, *BETTER], REFERENCES * 2, strict=True):
        theirs = scorer.score(reference, text)
        assert rouge_1(text, reference) == pytest.approx(theirs["rouge1"].fmeasure)
        assert rouge_2(text, reference) == pytest.approx(theirs["rouge2"].fmeasure)
    assert rouge_1("", "") == 0.0


def test_exact_match_forgives_space_around_a_text_alone() -> None:
    assert exact(" Yes.\n", "Yes.") and not exact("yes.", "Yes.")


def measured(texts: list[str]) -> Measurement:
    items = [Item(Origin("test.fr", n, n), [1], "source", text) for n, text in enumerate(REFERENCES, start=1)]
    answers = [Generation((1,), text, True) for text in texts]
    return Measurement((), (), tuple(items), tuple(answers), ())


def test_outputs_are_compared_by_bleu_chrf_rouge_and_exact_match() -> None:
    found = compare(measured(WORSE), measured(BETTER), gives="outputs")
    assert list(found["difference"]) == [
        names.BLEU, names.CHRF, names.ROUGE_1, names.ROUGE_2, names.ROUGE, names.EXACT_MATCH, names.STOPS
    ]  # fmt: skip
    assert found["gives"] == "outputs" and set(found["signatures"]) == {"bleu", "chrf"}
    assert found["verdict"].startswith("Better: BLEU") and found["difference"][names.BLEU]["better"] is True
    json.dumps(found, allow_nan=False)


def test_answers_of_a_chat_are_not_judged_as_translations() -> None:
    found = compare(measured(WORSE), measured(BETTER))
    assert names.BLEU not in found["difference"] and "signatures" not in found


def test_one_row_and_no_row_have_no_difference_to_be_sure_of() -> None:
    assert bleu([], [], [])[2].value is None and signatures([]) == {}
    assert bleu(["a"], ["b"], ["c"])[2].value == 0.0
