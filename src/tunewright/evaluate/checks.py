"""The user's own checks from the recipe: what a good answer must satisfy.

A check asks only the rows whose reference answer satisfies it itself. So ``contains: Wren`` says nothing about a row
whose right answer does not name Wren, and each check has its own count.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NoReturn

from tunewright.errors import RecipeError
from tunewright.recipe.schema import Check

_CURRENCY = "$€£¥₩₹"
# A minus belongs to the number unless something to count stands before it: "10-5" and "- 5" end in 5, "x = -5" in -5.
_NUMBER = re.compile(
    rf"(?P<minus>(?<![0-9A-Za-z_)\].])-)?(?:[{_CURRENCY}]\s?(?P<inner>-)?)?"
    r"(?:(?P<wholes>\d+)[ -](?=\d+/[1-9]))?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
    r"(?:\s?/\s?(?P<under>[1-9]\d*)(?![\d/]))?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")  # as LaTeX writes it
_SPACES = re.compile(r"(?<=\d)(?:\\[,!]|\{,\})(?=\d{3})")  # between thousands, as LaTeX writes them
_VULGAR = re.compile(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e\u2189])")  # before a fraction in one sign, such as ½
_MARKERS = ("####", "\\boxed{")


def validate(checks: Sequence[Check]) -> None:
    """Raises RecipeError for a check that could never be asked: no text, a text it does not use, a broken pattern.

    The recipe's own types refuse most of these; but by now ``{{name}}`` is filled in, which may have broken a pattern.
    """
    seen: set[str] = set()
    for check in checks:
        if check.kind in ("contains", "regex") and not (check.value or "").strip():
            _refuse(check, f"the check {check.kind!r} needs a text", f"write it as `{check.kind}: what to look for`")
        if check.kind in ("json", "number") and check.value is not None:
            _refuse(check, f"the check {check.kind!r} takes no text", f"write only `{check.kind}`")
        if check.kind == "regex":
            try:
                re.compile(check.value or "")
            except re.error as error:
                _refuse(check, f"the pattern of a check is broken: {error}", "mend the regular expression")
        if check.name in seen:
            _refuse(check, "the same check stands in the recipe twice", "keep one of them")
        seen.add(check.name)


def _refuse(check: Check, what: str, do: str) -> NoReturn:
    raise RecipeError(what, where=f"checks: {check.name}", do=do, command="tunewright recipe explain checks")


def satisfies(check: Check, text: str, reference: str) -> bool:
    """Does ``text`` satisfy the check? ``reference`` matters to ``number`` and to ``equals`` without a text."""
    if check.kind == "contains":
        return (check.value or "") in text
    if check.kind == "regex":
        return re.search(check.value or "", text) is not None
    if check.kind == "equals":
        return _folded(text) == _folded(reference if check.value is None else check.value)
    if check.kind == "json":
        return _is_json(text)
    number = final_number(text)
    return number is not None and number == final_number(reference)


def applies(check: Check, reference: str) -> bool:
    """Is this row asked at all: does its own reference answer satisfy the check?"""
    return satisfies(check, reference, reference)


def passes(check: Check, answer: str, reference: str) -> bool:
    """Does the answer satisfy the check, in a row that is asked? False for a row that is not (see :func:`applies`)."""
    return applies(check, reference) and satisfies(check, answer, reference)


def final_number(text: str) -> Fraction | None:
    """The number an answer ends with, exactly; None if there is none.

    A number behind the last ``####`` or ``\\boxed{`` wins over the last one of the text. ``1,234``, ``$18.00``,
    ``-3``, ``.5``, ``3/4``, ``1 1/2``, ``\\frac{3}{4}`` and full-width digits are understood; a unit or a percent sign
    is not looked at.

        "6 times 3 is 18, so #### 18"  ->  18        "共1,234元。"  ->  1234        "10-5"  ->  5
    """
    apart = _VULGAR.sub(" ", text)  # else 3½ would become 31/2
    plain = unicodedata.normalize("NFKC", apart).replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
    plain = plain.replace("\N{FRACTION SLASH}", "/")
    plain = _SPACES.sub("", _FRACTION.sub(r"\1/\2", plain.replace("\\$", "$")))
    for marker in _MARKERS:
        behind = plain.rpartition(marker)
        found = _NUMBER.search(behind[2]) if behind[1] else None
        if found:
            return _value(found)
    numbers = list(_NUMBER.finditer(plain))
    return _value(numbers[-1]) if numbers else None


def _value(found: re.Match[str]) -> Fraction:
    value = Fraction(found["digits"].replace(",", ""))
    if found["under"]:
        value /= Fraction(found["under"])
    if found["wholes"]:
        value += int(found["wholes"])
    return -value if found["minus"] or found["inner"] else value


def _folded(text: str) -> str:
    return " ".join(text.split())


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True
