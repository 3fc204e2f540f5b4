"""Each finding is seen where its fault is planted, and not where it is not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tunewright.data.check import check
from tunewright.data.digest import clusters, digests
from tunewright.data.findings import catalogue, mend, stop_if_errors
from tunewright.errors import DataError
from tunewright.example import Chat, Finding, Message, Origin
from tunewright.recipe.schema import Data

SUBJECTS = ["rivers", "bread", "bridges", "moss", "tides", "lamps", "wool", "maps", "bees", "clay", "snow", "rust"]


def sound(count: int = 60) -> list[tuple[str, str]]:
    """Rows with nothing odd about them."""
    return [
        (f"Tell me fact {n} on {SUBJECTS[n % 12]}.", f"{SUBJECTS[n % 7]} number {n} is {n * n} in all.")
        for n in range(count)
    ]


def found(pairs: list[Any], **more: Any) -> dict[str, Finding]:
    chats = []
    for number, pair in enumerate(pairs, start=1):
        messages = (
            pair if isinstance(pair[0], Message) else (Message("user", pair[0]), Message("assistant", pair[1], True))
        )
        chats.append(Chat(tuple(messages), Origin("f.jsonl", number, number)))
    known = digests(chats)
    near, _together = clusters(chats, known)
    allowed = {name: more.pop(name) for name in ("allow_few", "allow_unlearned") if name in more}
    given: dict[str, Any] = {"missing": {}, "ignored": Counter(), "data": Data(**allowed), **more}
    return {finding.code: finding for finding in check(chats, known=known, near=near, **given)}


def test_sound_rows_have_no_findings_but_their_language() -> None:
    assert set(found(sound())) == {"D210"}


LONG = "This sentence is about bridges and rivers and says a good deal about both of them. " * 4

PLANTED: dict[str, list[Any]] = {
    "D104": [("Q", "   ")],
    "D105": [
        (Message("user", "Q"), Message("assistant", "", True), Message("user", "Q"), Message("assistant", "A", True))
    ],
    "D201": [("Tell me fact 1 on bread.", "bread number 1 is 1 in  all. ")],
    "D202": [("Say it: " + LONG, "One"), ("Say it: " + LONG, "Two more")],
    "D203": [("Tell me fact 1 on bread.", "Something quite different.")],
    "D204": [("Repeat after me please", "repeat  after me please")],
    "D205": [("Q", "It is a cafÃ© with crÃ¨me")],
    "D206": [("Q", "bell \x07 and reversed \u202e text")],
    "D207": [("Q", "ends <|im_end|> here")],
    "D208": [(Message("user", "Q"), Message("user", "Q2"), Message("assistant", "A", True))],
    "D209": [("Q", LONG + "and then the river went")]
    + [(f"Q{n} {SUBJECTS[n]}", f"{SUBJECTS[n]} " * 60 + "end.") for n in range(6)],
}


@pytest.mark.parametrize("code", PLANTED)
def test_a_planted_fault_is_found_at_its_row(code: str) -> None:
    planted = PLANTED[code]
    findings = found(sound() + planted)
    assert code in findings
    last = 60 + len(planted)
    assert any(row.line > 60 and row.line <= last for row in findings[code].rows)
    if code != "D202":
        assert code not in found(sound())


@pytest.mark.parametrize("count", [0, 9, 10, 49, 50])
def test_few_rows(count: int) -> None:
    findings = found(sound(count))
    assert ("D101" in findings, "D102" in findings) == (count < 10, 10 <= count < 50)
    if 0 < count < 10:
        assert (
            findings["D101"].severity == "error" and found(sound(count), allow_few=True)["D101"].severity == "warning"
        )


def test_copies_are_one_row_where_rows_are_counted() -> None:
    one = found([sound(1)[0]] * 100)["D101"]
    assert one.count == 1 and "1 rows that differ (of 100)" in one.message
    assert found([(q, a + " " * n) for n in range(60) for q, a in sound(1)])["D101"].count == 1
    assert found(sound(9) * 10)["D101"].count == 9 and found(sound(12) * 10)["D102"].count == 12


def test_only_what_reads_alike_is_a_contradiction() -> None:
    assert "D203" not in found([*sound(), ("Swap: AbC", "aBc"), ("Swap: aBc", "AbC")])
    assert "D203" not in found([*sound(), ("Valid?\na:\n  b: 1", "Yes."), ("Valid?\na:\nb: 1", "No.")])
    assert found([*sound(), ("Which one?", "Paris"), ("Which one? ", "Rome")])["D203"].count == 2
    assert "D202" in found([*sound(), ("Which one is it?", "it is paris"), ("Which one is it?", "It is Paris")])


def test_nothing_to_learn_is_an_error_unless_allowed() -> None:
    rows = [*sound(), (Message("user", "Q"), Message("assistant", "A", False)), (Message("user", "alone"),)]
    assert found(rows)["D104"].severity == "error" and found(rows)["D104"].count == 2
    assert found(rows, allow_unlearned=True)["D104"].severity == "warning"


def test_a_tool_call_without_text_is_something_to_learn() -> None:
    call = Message("assistant", "", True, tool_calls=({"function": {"name": "f"}},))
    assert "D104" not in found([*sound(), (Message("user", "Q"), call)])


def test_an_unfilled_placeholder_stops_and_says_what_to_type() -> None:
    rows = [Origin("f.jsonl", n, n) for n in (3, 5)]
    findings = found(sound(), missing={"name": rows, "author": rows[:1]})
    assert findings["D103"].count == 2 and mend(findings["D103"]) == [
        "data.variables.name=…",
        "data.variables.author=…",
    ]
    with pytest.raises(
        DataError, match=r"\{\{name\}\}, \{\{author\}\}(.|\n)*f.jsonl:3, f.jsonl:5(.|\n)*data.variables.name=…"
    ):
        stop_if_errors(list(findings.values()))


def test_a_frame_that_all_rows_share_does_not_make_them_near_duplicates() -> None:
    frame = " ".join(f"{one} and {other}" for one in SUBJECTS for other in SUBJECTS if one != other)
    assert "D202" not in found([(f"{frame}. {question}", answer) for question, answer in sound()])
    assert "D202" in found([(f"{frame}. {question}", answer) for question, answer in sound(20)][:9])  # too few to tell


def test_near_duplicates_are_found_in_chinese_as_well() -> None:
    text = "这座桥建于一百年前，横跨两条河流，连接着城里最古老的两个街区，每天都有很多人从桥上走过去上班和上学"
    assert found([*sound(), ("问", text + "。"), ("问题", text + "！")])["D202"].count == 1


def test_languages_are_told_by_script() -> None:
    mixed = [("Q", "你好世界你好"), ("Q", "こんにちは世界"), ("Q", "안녕하세요"), ("Q", "Привет"), ("Q", "naïve café")]
    message = found(mixed)["D210"].message
    for name in ("Chinese", "Japanese", "Korean", "Cyrillic", "Latin"):
        assert name in message


def test_clusters_do_not_depend_on_the_order_of_rows() -> None:
    pairs = [*sound(), *PLANTED["D202"], *PLANTED["D201"], *PLANTED["D203"]]
    chats = [
        Chat((Message("user", q), Message("assistant", a, True)), Origin("f", n, n)) for n, (q, a) in enumerate(pairs)
    ]

    def groups(some: list[Chat]) -> set[frozenset[int]]:
        _near, together = clusters(some, digests(some))
        return {
            frozenset(c.origin.row for c, label in zip(some, together, strict=True) if label == wanted)
            for wanted in set(together.tolist())
        }

    assert groups(chats) == groups(chats[::-1]) and max(map(len, groups(chats))) >= 2


def test_every_entry_of_the_catalogue_is_complete() -> None:
    for code, entry in catalogue().items():
        assert entry.code == code and entry.severity in ("error", "warning", "info")
        assert entry.title and entry.message and entry.why and entry.advice
