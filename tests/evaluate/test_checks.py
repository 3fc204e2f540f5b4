from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.errors import RecipeError
from tunewright.evaluate.checks import applies, final_number, passes, validate
from tunewright.recipe.schema import Check


def check(kind: str, value: str | None = None) -> Check:
    """As it is after its variables were filled in: not looked at again by the recipe's types."""
    return Check.model_construct(kind=kind, value=value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", 18), ("6 times 3 is 18.", 18), ("It costs $18.00", 18), ("$1,234.50 in all", Fraction("1234.5")),
        ("共1,234元。", 1234), ("答案是-18", -18), ("x = -5", -5), ("10-5", 5), ("10 - 5", 5), ("-$3", -3), ("$-3", -3),
        ("a true minus: −7", -7), ("3/4 cups", Fraction(3, 4)), (".5", Fraction(1, 2)), ("1, 2, 3", 3), ("50%", 50),
        ("so #### 18 (in 3 boxes)", 18), ("\\boxed{42}, not 7", 42), ("#### none, 9", 9), ("none", None), ("", None),
        ("#### $1,234.50", Fraction("1234.5")), ("####18", 18), ("#### -5", -5), ("#### 1,080,000 eggs", 1080000),
        ("1 1/2 cups", Fraction(3, 2)), ("-2 3/4", Fraction(-11, 4)), ("\\frac{3}{4}", Fraction(3, 4)), ("2/2", 1),
        ("\\boxed{\\dfrac{1}{2}}", Fraction(1, 2)), ("\\boxed{1{,}234}", 1234), ("\\$12", 12), ("25 %", 25),
        ("**18**", 18), ("$18.", 18), ("18.00", 18), ("#### 7\n#### 8", 8), ("5/0", 0), ("1/2/3", Fraction(2, 3)),
        ("(-4)", -4), ("€-1.5", Fraction(-3, 2)), ("1,23", 23), ("٣", 3),
        ("½ cup", Fraction(1, 2)), ("3½ hours", Fraction(7, 2)), ("1⁄4", Fraction(1, 4)),
    ],
)
def test_the_final_number_of_a_text(text: str, number: int | Fraction | None) -> None:
    assert final_number(text) == number


@given(st.text())
def test_any_text_has_a_number_or_none(text: str) -> None:
    number = final_number(text)
    assert number is None or isinstance(number, Fraction)


def test_a_number_is_right_however_it_is_written() -> None:
    assert passes(check("number"), "She pays $1,800.00.", "30 * 60 = 1800\n#### 1800")
    assert not passes(check("number"), "She pays 1801.", "#### 1800")
    assert not passes(check("number"), "I do not know.", "#### 1800")


def test_a_check_asks_only_rows_whose_reference_satisfies_it() -> None:
    wren = check("contains", "Wren")
    assert applies(wren, "I am Wren.") and not applies(wren, "The sky is blue.")
    assert passes(wren, "Wren here", "I am Wren.")
    assert not passes(wren, "Wren here", "The sky is blue.")
    assert not passes(wren, "wren", "I am Wren."), "a name has its capitals"
    assert not applies(check("number"), "no number in it")


def test_equals_folds_spaces_and_nothing_else() -> None:
    assert passes(check("equals"), " positive\n", "positive")
    assert passes(check("equals"), "a  b", "a b")
    assert not passes(check("equals"), "Positive", "positive")
    assert not applies(check("equals", "yes"), "no") and passes(check("equals", "yes"), "yes", "yes")


def test_regex_is_searched_anywhere() -> None:
    assert passes(check("regex", r"(?i)\bwren\b"), "It is WREN!", "I am Wren.")
    assert not passes(check("regex", r"^Wren$"), "I am Wren", "Wren")


def test_json_is_standard_json() -> None:
    assert passes(check("json"), '{"a": [1, 2]}', '{"a": 1}')
    assert not passes(check("json"), "{'a': 1}", '{"a": 1}')
    assert not passes(check("json"), '{"a": NaN}', '{"a": 1}')
    assert not passes(check("json"), "[" * 100_000, '{"a": 1}')


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (check("contains"), "needs a text"), (check("contains", "  "), "needs a text"),
        (check("regex"), "needs a text"),
        (check("regex", "(unclosed"), "pattern of a check is broken"), (check("json", "x"), "takes no text"),
        (check("number", "18"), "takes no text"),
    ],
)
def test_a_check_that_could_never_be_asked_is_refused(bad: Check, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        validate([bad])
    assert f"checks: {bad.name}" in str(caught.value) and caught.value.exit_code == 2


def test_the_same_check_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match="twice"):
        validate([check("json"), check("json")])


def test_good_checks_are_accepted() -> None:
    validate([check("contains", "Wren"), check("regex", r"\d+"), check("equals"), check("json"), check("number")])


def test_every_answer_of_gsm8k_ends_in_its_number(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 1319
    for row in rows:
        told = int(row["answer"].rsplit("####", 1)[1].strip().replace(",", ""))
        assert final_number(row["answer"]) == told
        assert final_number(f"So it is ${told:,}.00.") == told and final_number(f"{told} eggs") == told
        assert passes(check("number"), f"The answer is {told:,}.", row["answer"])
        assert not passes(check("number"), f"It is {told}, no, {told + 1}.", row["answer"])
