"""What is odd about the examples, as findings. Looks and never changes; every check is one function."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tunewright.data.check_answers import check_answers
from tunewright.data.check_labels import check_labels
from tunewright.data.check_language import check_languages
from tunewright.data.check_lengths import check_lengths
from tunewright.data.check_pairs import check_pairs
from tunewright.data.check_personal import check_personal
from tunewright.data.check_texts import blank, check_texts, usual_specials
from tunewright.data.check_turns import check_turns
from tunewright.data.digest import Digest, continued
from tunewright.data.findings import Severity, finding, named
from tunewright.data.formats import Reading, Reads
from tunewright.example import Chat, Finding, Message, Origin
from tunewright.recipe.schema import Data
from tunewright.text import _

FEWEST, FEW = 10, 50


# -- one function a check --------------------------------------------------------------------------------------------


def nothing_to_learn(chat: Chat, reads: Reads = "turns") -> str | None:
    """Why nothing would be learned from this example, or None if something would."""
    if reads in ("labels", "pairs") and empty_text(chat):
        return _("the text is empty")
    learned = [m for m in chat.messages if m.role == "assistant" and m.learn]
    if not learned:
        if any(m.role == "assistant" for m in chat.messages):
            return _("every answer has weight 0")
        return _("no message is the assistant's")
    if all(_says_nothing(message) for message in learned):
        return _("the answer is empty")
    return None


def empty_text(chat: Chat) -> bool:
    """Whether a text that is given is empty."""
    return any(m.role == "user" and blank(m.content) for m in chat.messages)


def _says_nothing(message: Message) -> bool:
    return blank(message.content) and not message.tool_calls and blank(message.thinking or "")


def check(
    chats: Sequence[Chat],
    *,
    known: Sequence[Digest],
    near: NDArray[np.int64],
    missing: Mapping[str, Sequence[Origin]],
    ignored: Counter[str],
    shown: Mapping[str, Sequence[Origin]] = {},
    data: Data = Data(),  # noqa: B008 - frozen
    specials: Callable[[str], list[str]] | None = None,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    validation: Sequence[Chat] = (),
    estimate: bool = True,
) -> list[Finding]:
    """All findings about ``chats`` that need no tokens. ``known`` and ``near`` come from digests() and clusters();
    ``data`` says what is allowed and how long a row may be. validation: rows that are measured by and not learned, so
    that only what they are made of counts. estimate: tokens have not been counted, so guess."""
    reads = reading.reads
    rows = [*chats, *validation]
    found: list[Finding] = []
    found += _amount(chats, known, data.allow_few, reads)
    # Running text quotes markup, nobody answers with it.
    found += _placeholders(missing, "warning" if reads == "documents" else "error")
    found += _placeholders(shown, "warning")
    found += _unlearned(rows, data.allow_unlearned, reads)
    if ignored:
        found.append(finding("D106", [], count=sum(ignored.values()), names=named(ignored)))
    found += _duplicates(chats, known, near, reads)
    found += check_texts(rows, specials or usual_specials, reads)
    if reads == "labels":
        found += check_labels(chats, known, reading)
    if reads in ("turns", "pairs"):
        found += _disagreements(chats, known)
        found += check_answers(chats, reads)
    if reads == "turns":
        found += check_turns(chats)
    if reads == "pairs":
        found += check_pairs(chats)
    found += check_languages(chats, reads)
    found += check_lengths(chats, reads, data if estimate else None)
    if reads != "documents":  # what was published is no secret
        found += check_personal(chats)
    return found


def _amount(chats: Sequence[Chat], known: Sequence[Digest], allow_few: bool, reads: Reads) -> Iterator[Finding]:
    """Too few rows; copies of a row are one."""
    origins = [chat.origin for chat in chats[:1]]
    if reads == "documents" and chats:  # a document can be a book; whether rows can be held out is D402's question
        return
    count = len({digest.row for digest in known})
    of_all = "" if count == len(chats) else _(" that differ (of {rows})", rows=len(chats))
    if count < FEWEST:
        severity: Severity = "warning" if allow_few and chats else "error"
        yield finding("D101", origins, count=count, severity=severity, least=FEWEST, of_all=of_all)
    elif count < FEW:
        yield finding("D102", origins, count=count, of_all=of_all)


def _placeholders(missing: Mapping[str, Sequence[Origin]], severity: Severity) -> Iterator[Finding]:
    if missing:
        rows = list({(o.file, o.line, o.row): o for origins in missing.values() for o in origins}.values())
        rows.sort(key=lambda origin: (origin.file, origin.row))
        names = ", ".join("{{" + name + "}}" for name in missing)
        example = " ".join(f"data.variables.{name}=…" for name in missing)
        yield finding("D103", rows, count=len(rows), names=names, example=example, severity=severity)


def _unlearned(chats: Sequence[Chat], allowed: bool, reads: Reads) -> Iterator[Finding]:
    """Rows from which nothing would be learned, and empty answers beside others."""
    severity: Severity = "warning" if allowed else "error"
    given = reads in ("labels", "pairs")
    rows = [chat.origin for chat in chats if nothing_to_learn(chat) is not None]
    if rows:
        yield finding("D104", rows, severity=severity)
    empty = [chat.origin for chat in chats if given and empty_text(chat)]
    if empty:
        yield finding("D508", empty, severity=severity)
    some = [
        chat.origin
        for chat in chats
        if nothing_to_learn(chat) is None and any(m.learn and _says_nothing(m) for m in chat.messages)
    ]
    if some:
        yield finding("D105", some)


def _duplicates(
    chats: Sequence[Chat], known: Sequence[Digest], near: NDArray[np.int64], reads: Reads
) -> Iterator[Finding]:
    seen: dict[bytes, Origin] = {}
    asked: set[bytes] = set()
    alike: set[bytes] = set()  # but for case and spaces
    clustered: dict[int, Origin] = {}
    exact: list[tuple[Origin, Origin]] = []
    almost: list[tuple[Origin, Origin]] = []
    for chat, digest, label in zip(chats, known, near, strict=True):
        relabelled = reads == "labels" and digest.question in asked and digest.whole not in alike  # that is D503
        if digest.row in seen:
            exact.append((chat.origin, seen[digest.row]))
        elif int(label) in clustered and not relabelled:
            almost.append((chat.origin, clustered[int(label)]))
        seen.setdefault(digest.row, chat.origin)
        asked.add(digest.question)
        alike.add(digest.whole)
        clustered.setdefault(int(label), chat.origin)
    for code, pairs in (("D201", exact), ("D202", almost)):
        if pairs:
            yield finding(code, [row for row, _first in pairs], others=[first for _row, first in pairs])


def _disagreements(chats: Sequence[Chat], known: Sequence[Digest]) -> Iterator[Finding]:
    """Rows of one question stand together, so that they can be compared."""
    asked: dict[bytes, list[tuple[Chat, bytes]]] = defaultdict(list)
    for chat, digest in zip(chats, known, strict=True):
        if chat.last_answer() is not None:
            asked[digest.asked].append((chat, digest.answered))
    groups = [group for group in asked.values() if len({answer for _chat, answer in group}) > 1]
    if groups:
        yield finding("D203", [chat.origin for group in groups for chat, _answer in group])


def overlap(chats: Sequence[Chat], known: Sequence[Digest], near: NDArray[np.int64], border: int) -> Iterator[Finding]:
    """The finding D401: rows from ``border`` on (validation) that stand before it (training), exactly or nearly, that
    ask what is asked there, or of which one goes on from the other."""
    exact: dict[bytes, int] = {}
    cluster: dict[int, int] = {}
    asked: dict[bytes, int] = {}
    for index in range(border):
        exact.setdefault(known[index].row, index)
        cluster.setdefault(int(near[index]), index)
        asked.setdefault(known[index].question, index)
    talks: dict[int, int] = {}
    for one, other in continued(known):
        first, second = min(one, other), max(one, other)
        if first < border <= second:
            talks.setdefault(second, first)
    rows: list[Origin] = []
    others: list[Origin] = []
    counts: Counter[str] = Counter()
    for index in range(border, len(chats)):
        ways = {
            "exact": exact.get(known[index].row),
            "near": cluster.get(int(near[index])),
            "asked": asked.get(known[index].question),
            "talk": talks.get(index),
        }
        found = next(((way, place) for way, place in ways.items() if place is not None), None)
        if found is not None:
            rows.append(chats[index].origin)
            others.append(chats[found[1]].origin)
            counts[found[0]] += 1
    if rows:
        another = _(", {count} with another answer", count=counts["asked"]) if counts["asked"] else ""
        if counts["talk"]:
            another += _(", {count} as a part of the same talk", count=counts["talk"])
        yield finding("D401", rows, others=others, exact=counts["exact"], near=counts["near"], another=another)
