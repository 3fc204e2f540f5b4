"""What two rows are compared by, and which of them are the same or nearly."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunewright.data.formats import Reads
from tunewright.data.near import Union, near_clusters
from tunewright.example import Chat, Message

# Spaces between the words of a line and at its end. Those before it are its indentation, which means something in code.
_BETWEEN, _BEHIND = re.compile(r"(?<=\S)[^\S\n]+(?=\S)"), re.compile(r"[^\S\n]+$", re.MULTILINE)


@dataclass(frozen=True)
class Digest:
    """What two rows are compared by. whole, question: hashes of the text without its case and spaces, by which rows
    stay on one side of a split.  answer: the same of the last answer.  row, asked, answered: the three of the text as
    it reads, where case, lines and their indentation say something.  begins: ``whole`` of each row that would end
    with a learned answer before the last one."""

    whole: bytes
    question: bytes
    answer: bytes
    row: bytes = b""
    asked: bytes = b""
    answered: bytes = b""
    begins: tuple[bytes, ...] = ()


def digests(chats: Sequence[Chat]) -> list[Digest]:
    return [Digest(*_hashes(chat, normal), *_hashes(chat, readable), _beginnings(chat)) for chat in chats]


def exact(chat: Chat) -> bytes:
    """Hash of the row as it is written, but for spaces at the end of a message."""
    return _hashes(chat, str.rstrip)[0]


def _hashes(chat: Chat, form: Callable[[str], str]) -> tuple[bytes, bytes, bytes]:
    """Of the whole row, of what is asked, and of the last answer."""
    last = len(chat.messages) - 1 if (found := chat.last_answer()) is None else found
    # Where nothing is asked (a document), the text stands for its question: else all documents would ask the same.
    asked = chat.messages[:last] or chat.messages[last:]
    tools = [json.dumps(chat.tools, sort_keys=True, default=str)] if chat.tools else []
    question = _hash([*tools, *(f"{_role(m)}\0{form(m.content)}{_called(m)}" for m in asked)])
    answer = _hash(f"{m.role}\0{form(m.content)}\0{form(m.thinking or '')}{_called(m)}" for m in chat.messages[last:])
    return _hash([question.hex(), answer.hex()]), question, answer


def _beginnings(chat: Chat) -> tuple[bytes, ...]:
    last = chat.last_answer() or 0
    ends = [place for place, message in enumerate(chat.messages[:last], start=1) if message.learn]
    return tuple(_hashes(replace(chat, messages=chat.messages[:end]), normal)[0] for end in ends)


def _role(message: Message) -> str:
    """A learned answer among those before the last one is another row than the same answer as context."""
    return "learned" if message.learn else message.role


def _called(message: Message) -> str:
    return "\0" + json.dumps(message.tool_calls, sort_keys=True, default=str) if message.tool_calls else ""


def _hash(texts: Iterator[str] | list[str]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\1")
    return digest.digest()


def normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def readable(text: str) -> str:
    """``text`` with one space between the words of a line and none behind them."""
    if "\n" not in text and "\t" not in text and "  " not in text:
        return text.rstrip()
    return _BEHIND.sub("", _BETWEEN.sub(" ", text)).strip("\n")


def said(chat: Chat, reads: Reads = "turns") -> str:
    """All that user, assistant and tools say, in lower case. A system message is a frame and says nothing here, and
    neither does a label."""
    left_out = "assistant" if reads == "labels" else "system"
    return "\n".join(m.content for m in chat.messages if m.role != left_out).lower()


def clusters(
    chats: Sequence[Chat], known: Sequence[Digest], reads: Reads = "turns"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) labels of near duplicates alone, and of rows that belong on one side: near duplicates, same questions, and a
    talk with those that go on from it.

    A pure function of the texts: the order of the rows changes the labels' numbers, not who is together.
    """
    first: dict[bytes, int] = {}
    for index, digest in enumerate(known):
        first.setdefault(digest.whole, index)
    unique = sorted(first.values(), key=lambda index: known[index].whole)
    labels = near_clusters([said(chats[index], reads) for index in unique])
    near = Union(len(chats))
    for place, label in enumerate(labels):
        near.join(unique[place], unique[int(label)])
    for index, digest in enumerate(known):
        near.join(index, first[digest.whole])
    together = Union(len(chats))
    together.parent = list(near.parent)
    asked: dict[bytes, int] = {}
    for index, digest in enumerate(known):
        together.join(index, asked.setdefault(digest.question, index))
    for whole, longer in continued(known):
        together.join(whole, longer)
    return near.labels(), together.labels()


def continued(known: Sequence[Digest]) -> list[tuple[int, int]]:
    """(row, longer row): talks that others go on from, as where a conversation was written down after each turn. One
    that more than a fifth of the rows go on from is a common opening, such as a greeting, and not meant."""
    longer: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(known):
        for beginning in digest.begins:
            longer[beginning].append(index)
    most = max(3, len(known) // 5)
    return [
        (index, other)
        for index, digest in enumerate(known)
        if len(longer.get(digest.whole, ())) <= most
        for other in longer.get(digest.whole, ())
    ]
