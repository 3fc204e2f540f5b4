"""What is odd about the examples, as findings. Looks and never changes; every check is one function."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tunewright.data.check_labels import check_labels
from tunewright.data.check_pairs import check_pairs
from tunewright.data.digest import Digest, clusters, digests, normal
from tunewright.data.findings import Severity, finding
from tunewright.data.formats import Reading, Reads
from tunewright.example import Chat, Finding, Message, Origin
from tunewright.text import _

__all__ = ["Digest", "check", "clusters", "digests", "languages", "nothing_to_learn", "unlearned", "usual_specials"]

FEWEST, FEW = 10, 50

# Looked for where no base has been named yet; with a base its own special tokens are looked for.
USUAL_SPECIALS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "[INST]",
    "[/INST]",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
)

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ufdd0-\ufdef]")
# UTF-8 read as Windows-1252 or as GBK, and the sign that stands for bytes that could not be read at all.
_MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf]|\u00c3[\u0192\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
    "|\u00e2\u20ac[\u0080-\u00ff\u0152\u0153\u02dc\u2013-\u2026\u2122]|\u00ef\u00bb\u00bf"
    "|[\u00d0\u00d1][\u0080-\u00bf]{1,2}[\u00d0\u00d1]|\ufffd|\u951f\u65a4\u62f7"
)
_SCRIPTS: Mapping[str, re.Pattern[str]] = {
    "Chinese": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    "Japanese": re.compile("[\u3040-\u30ff]"),
    "Korean": re.compile("[\uac00-\ud7af]"),
    "Cyrillic script": re.compile("[\u0400-\u04ff]"),
    "Arabic script": re.compile("[\u0600-\u06ff]"),
    "Devanagari script": re.compile("[\u0900-\u097f]"),
    "Greek script": re.compile("[\u0370-\u03ff]"),
    "Hebrew script": re.compile("[\u0590-\u05ff]"),
    "Thai script": re.compile("[\u0e00-\u0e7f]"),
}
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


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
    return any(m.role == "user" and not m.content.strip() for m in chat.messages)


def _says_nothing(message: Message) -> bool:
    return not message.content.strip() and not message.tool_calls and not (message.thinking or "").strip()


def check(
    chats: Sequence[Chat],
    *,
    known: Sequence[Digest],
    near: NDArray[np.int64],
    missing: Mapping[str, Sequence[Origin]],
    ignored: Counter[str],
    allow_few: bool = False,
    allow_unlearned: bool = False,
    specials: Callable[[str], list[str]] | None = None,
    reading: Reading = Reading(),  # noqa: B008 - frozen
) -> list[Finding]:
    """All findings about ``chats`` that need no tokens. ``known`` and ``near`` come from digests() and clusters()."""
    reads = reading.reads
    found: list[Finding] = []
    found += _amount(chats, allow_few, reads)
    found += _placeholders(missing, reads)
    found += _unlearned(chats, allow_unlearned, reads)
    if ignored:
        found.append(finding("D106", [], count=sum(ignored.values()), names=_names(ignored)))
    found += _duplicates(chats, known, near, reads)
    found += _texts(chats, specials or usual_specials)
    if reads == "turns":
        found += _disagreements(chats, known)
        found += _roles(chats)
        found += _cut_off(chats)
    elif reads == "labels":
        found += check_labels(chats, known, reading)
    elif reads == "pairs":
        found += _disagreements(chats, known, echoes=False)
        found += check_pairs(chats)
    found += _languages(chats, reads)
    return found


_USUAL = re.compile("|".join(map(re.escape, USUAL_SPECIALS)))


def usual_specials(text: str) -> list[str]:
    return _USUAL.findall(text)


def _names(counts: Counter[str], most: int = 6) -> str:
    shown = [f"{name} ({count})" for name, count in counts.most_common(most)]
    return ", ".join(shown) + (" …" if len(counts) > most else "")


def _amount(chats: Sequence[Chat], allow_few: bool, reads: Reads) -> Iterator[Finding]:
    origins = [chat.origin for chat in chats[:1]]
    if reads == "documents" and chats:  # a document can be a book; whether rows can be held out is D402's question
        return
    if len(chats) < FEWEST:
        severity = "warning" if allow_few and chats else "error"
        yield finding("D101", origins, count=len(chats), severity=severity, least=FEWEST)  # type: ignore[arg-type]
    elif len(chats) < FEW:
        yield finding("D102", origins, count=len(chats))


def _placeholders(missing: Mapping[str, Sequence[Origin]], reads: Reads) -> Iterator[Finding]:
    if missing:
        rows = list({(o.file, o.line, o.row): o for origins in missing.values() for o in origins}.values())
        rows.sort(key=lambda origin: (origin.file, origin.row))
        names = ", ".join("{{" + name + "}}" for name in missing)
        example = " ".join(f"data.variables.{name}=…" for name in missing)
        severity = "warning" if reads == "documents" else "error"  # running text quotes markup, nobody answers with it
        yield finding(
            "D103", rows, count=len(rows), names=names, example=example, severity=severity  # type: ignore[arg-type]
        )


def _unlearned(chats: Sequence[Chat], allowed: bool, reads: Reads) -> Iterator[Finding]:
    yield from unlearned(chats, allowed, reads)
    some = [
        chat.origin
        for chat in chats
        if nothing_to_learn(chat) is None and any(m.learn and _says_nothing(m) for m in chat.messages)
    ]
    if some:
        yield finding("D105", some)


def unlearned(chats: Sequence[Chat], allowed: bool, reads: Reads = "turns") -> Iterator[Finding]:
    """The findings D104 and D508: rows from which nothing would be learned."""
    severity: Severity = "warning" if allowed else "error"
    given = reads in ("labels", "pairs")
    rows = [chat.origin for chat in chats if nothing_to_learn(chat) is not None]
    if rows:
        yield finding("D104", rows, severity=severity)
    empty = [chat.origin for chat in chats if given and empty_text(chat)]
    if empty:
        yield finding("D508", empty, severity=severity)


def _duplicates(
    chats: Sequence[Chat], known: Sequence[Digest], near: NDArray[np.int64], reads: Reads
) -> Iterator[Finding]:
    seen: set[bytes] = set()
    asked: set[bytes] = set()
    clustered: set[int] = set()
    exact: list[Origin] = []
    almost: list[Origin] = []
    for chat, digest, label in zip(chats, known, near, strict=True):
        if digest.whole in seen:
            exact.append(chat.origin)
        elif int(label) in clustered and not (reads == "labels" and digest.question in asked):  # that is D503
            almost.append(chat.origin)
        seen.add(digest.whole)
        asked.add(digest.question)
        clustered.add(int(label))
    if exact:
        yield finding("D201", exact)
    if almost:
        yield finding("D202", almost)


def _disagreements(chats: Sequence[Chat], known: Sequence[Digest], echoes: bool = True) -> Iterator[Finding]:
    answers: dict[bytes, set[bytes]] = defaultdict(set)
    for chat, digest in zip(chats, known, strict=True):
        if chat.last_answer() is not None:
            answers[digest.question].add(digest.answer)
    rows = [c.origin for c, d in zip(chats, known, strict=True) if len(answers.get(d.question, ())) > 1]
    if rows:
        yield finding("D203", rows)
    same = [chat.origin for chat in chats if echoes and _echoes(chat)]
    if same:
        yield finding("D204", same)


def _echoes(chat: Chat) -> bool:
    last = chat.last_answer()
    if not last:
        return False
    answer, asked = chat.messages[last], chat.messages[last - 1]
    return asked.role == "user" and bool(answer.content.strip()) and normal(answer.content) == normal(asked.content)


def _texts(chats: Sequence[Chat], specials: Callable[[str], list[str]]) -> Iterator[Finding]:
    broken: list[Origin] = []
    control: list[Origin] = []
    special: list[Origin] = []
    examples: dict[str, str] = {}
    names: Counter[str] = Counter()
    for chat in chats:
        text = "\n".join(m.content if m.thinking is None else f"{m.content}\n{m.thinking}" for m in chat.messages)
        if not text.isascii() and (match := _MOJIBAKE.search(text)):
            broken.append(chat.origin)
            examples.setdefault("broken", text[max(0, match.start() - 8) : match.end() + 8].replace("\n", " "))
        if match := _CONTROL.search(text):
            control.append(chat.origin)
            examples.setdefault("control", f"U+{ord(match[0]):04X}")
        if hits := specials(text):
            special.append(chat.origin)
            names.update(hits)
    if broken:
        yield finding("D205", broken, example=repr(examples["broken"]))
    if control:
        yield finding("D206", control, example=examples["control"])
    if special:
        yield finding("D207", special, names=_names(names))


def _roles(chats: Sequence[Chat]) -> Iterator[Finding]:
    oddities: Counter[str] = Counter()
    rows: list[Origin] = []
    for chat in chats:
        odd = _oddity([message.role for message in chat.messages])
        if odd:
            oddities[odd] += 1
            rows.append(chat.origin)
    if rows:
        yield finding("D208", rows, examples=_names(oddities))


def _oddity(roles: Sequence[str]) -> str | None:
    if roles == ["user", "assistant"]:
        return None
    spoken = [role for role in roles if role != "system"]
    if "system" in roles[1:]:
        return _("a system message after the first message")
    if spoken and spoken[0] == "assistant":
        return _("opens with the assistant")
    if any(one == other == "user" for one, other in pairwise(spoken)):
        return _("the user speaks twice in a row")
    if any(one == other == "assistant" for one, other in pairwise(spoken)):
        return _("the assistant speaks twice in a row")
    if spoken and spoken[-1] == "user":
        return _("ends with the user")
    return None


def _cut_off(chats: Sequence[Chat]) -> Iterator[Finding]:
    """Long answers without an end. Said only where most long answers have one: else it is the data's style."""
    rows: list[Origin] = []
    long = 0
    for chat in chats:
        last = chat.last_answer()
        answer = chat.messages[last].content.rstrip() if last is not None else ""
        if len(answer) < 200:
            continue
        long += 1
        if answer.count("```") % 2 or answer[-1] in ",;:-–(" or (answer[-1].islower() and "\n" not in answer[-60:]):
            rows.append(chat.origin)
    if rows and len(rows) <= max(1, 0.3 * long):
        yield finding("D209", rows)


def languages(chats: Sequence[Chat], reads: Reads = "turns") -> Counter[str]:
    """How many rows are written mainly in which language, told by script alone: their answers, or their texts."""
    role = "user" if reads == "labels" else "assistant"
    counts: Counter[str] = Counter()
    for chat in chats:
        text = "".join(m.content for m in chat.messages if m.role == role)[:4000]
        counts[_language(text)] += 1
    return counts


def _language(text: str) -> str:
    if text.isascii():
        return "Latin script" if _LATIN.search(text) else "none"
    seen = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    if seen["Japanese"] and seen["Japanese"] * 5 > seen["Chinese"]:
        seen["Japanese"] += seen["Chinese"]
        seen["Chinese"] = 0
    seen["Latin script"] = len(_LATIN.findall(text)) // 4  # a Latin word has several letters, a character is a word
    best = max(seen, key=lambda name: seen[name])
    return best if seen[best] else "none"


def _languages(chats: Sequence[Chat], reads: Reads) -> Iterator[Finding]:
    counts = languages(chats, reads)
    del counts["none"]
    if counts:
        total = sum(counts.values())
        shares = [(name, 100 * count / total) for name, count in counts.most_common(6)]
        names = ", ".join(f"{name} ({share:.0f} %)" for name, share in shares if share >= 0.5)
        what = {"turns": _("answers"), "labels": _("texts"), "pairs": _("targets"), "documents": _("documents")}[reads]
        yield finding("D210", [], count=total, names=names, what=what)
