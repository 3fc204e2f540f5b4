"""Which languages the rows are written in, as findings D210 and D213."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tunewright.data.findings import Spots, finding
from tunewright.data.formats import Reads
from tunewright.example import Chat, Finding
from tunewright.text import _

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


def languages(chats: Sequence[Chat], reads: Reads = "turns") -> Counter[str]:
    """How many rows are written mainly in which language, or script where that is all that can be told: their answers,
    or their texts."""
    role = "user" if reads == "labels" else "assistant"
    counts: Counter[str] = Counter()
    for chat in chats:
        text = "".join(m.content for m in chat.messages if m.role == role)[:4000]
        script = _script(text)
        counts[(_tongue(text, _FEW_WORDS) or script) if script == "Latin script" else script] += 1
    return counts


def check_languages(chats: Sequence[Chat], reads: Reads) -> Iterator[Finding]:
    counts = languages(chats, reads)
    del counts["none"]
    if counts:
        total = sum(counts.values())
        shares = [(name, 100 * count / total) for name, count in counts.most_common(6)]
        names = ", ".join(f"{name} ({share:.0f} %)" for name, share in shares if share >= 0.5)
        what = {"turns": _("answers"), "labels": _("texts"), "pairs": _("targets"), "documents": _("documents")}[reads]
        yield finding("D210", [], count=total, names=names, what=what)
    if reads in ("turns", "pairs"):
        yield from _strays(chats, reads)


def _script(text: str) -> str:
    if text.isascii():
        return "Latin script" if _LATIN.search(text) else "none"
    seen = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    if seen["Japanese"] and seen["Japanese"] * 5 > seen["Chinese"]:
        seen["Japanese"] += seen["Chinese"]
        seen["Chinese"] = 0
    seen["Latin script"] = len(_LATIN.findall(text)) // 4  # a Latin word has several letters, a character is a word
    best = max(seen, key=lambda name: seen[name])
    return best if seen[best] else "none"


# -- answers in another language -------------------------------------------------------------------------------------

_FREQUENT: Mapping[str, str] = {
    "English": "the and of to is that it for with you are this was be your not have from can by at which what how "
    "there their they would",
    "French": "le les des est et une dans qui pour pas sur avec vous sont ce cette du au ils elle nous je aux ou mais "
    "son ses deux",
    "German": "der die das und ist nicht ein eine mit den von zu auf für sich dem des ich sie auch werden wird im sind",
    "Spanish": "el los las y en del es por con para su como una lo al pero más está son este esta muy",
    "Italian": "il gli di che è per non con del della dei nel una sono più come questo anche alla delle",
    "Portuguese": "o os e em um uma é não do da dos das ao pelo com para mais seu sua são você",
    "Dutch": "het een van niet op te voor zijn aan ook er maar dat wordt deze zich naar",
}
# A word that two of the languages share says nothing.
_SHARED = Counter(word for words in _FREQUENT.values() for word in set(words.split()))
_TELLS = {word: name for name, words in _FREQUENT.items() for word in words.split() if _SHARED[word] == 1}
_WORD = re.compile(r"[^\W\d_]+")
_ASKED_FOR = re.compile(
    r"translat|traduc|traduire|tradui|übersetz|翻译|译成|译为|翻成|\b(?:english|french|spanish|german|chinese|mandarin|"
    r"italian|japanese|portuguese|dutch|korean|russian|latin|arabic|hindi|greek|language)\b|[英法德日韩俄中]文|"
    r"[英法德日韩俄汉]语|西班牙语|意大利语|葡萄牙语|拼音|单词|代码|程序|函数|\b(?:code|function|program|script|regex)\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_LONG_WORD = re.compile("[a-z]{4,}")
_TWO_CHARACTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0400-\u04ff\u0600-\u06ff]{2}")
_LOOKED_AT = 400  # characters of a text that tell its language
_HABIT = 0.2  # from this share on, answering in another language is what the data is for
_RARE, _MAJORITY = 0.05, 0.9
_FEW_WORDS = 2  # that tell a language, where a wrong one among many does no harm
_SEVERAL = 10  # questions of one language, before their answers can be mixed


def _tongue(text: str, least: int = 3) -> str | None:
    """The language of a text of some length, or None where it cannot be told. least: words that tell it."""
    text = _CODE.sub(" ", text[:_LOOKED_AT]) if "`" in text else text[:_LOOKED_AT]
    script = _script(text)
    if script == "none":
        return None
    if script != "Latin script":
        return script if len(_SCRIPTS[script].findall(text)) >= 8 else None
    told = [_TELLS[word] for word in _TELLS.keys() & set(_WORD.findall(text.lower()))]
    if len(told) < least:
        return None
    best = max(told, key=told.count)
    return best if told.count(best) >= max(least, 3 * (len(told) - told.count(best))) else None


def _strays(chats: Sequence[Chat], reads: Reads) -> Iterator[Finding]:
    """Answers in another language than their question, or than nearly all others; not where it was asked for."""
    told: list[tuple[_Answer, str | None, str]] = []
    counts: Counter[str] = Counter()
    for one in (one for chat in chats for one in _answers(chat, reads)):
        tongue = _tongue(one.said)
        if tongue is None:
            continue
        told.append((one, _asked_in(one.asked, tongue) if reads == "turns" else None, tongue))
        counts[tongue] += 1
    total = len(told)
    most = counts.most_common(1)[0] if counts else ("", 0)
    has_majority = most[1] >= _MAJORITY * total and total >= 20
    strays = Spots()
    rows: set[int] = set()
    for one, asked, answer in told:
        alone = has_majority and counts[answer] < max(2, _RARE * total)
        odd = (asked not in (None, answer) or alone) and id(one.chat) not in rows
        if odd and not _asked_for(one.chat) and not _about_words(one):
            strays.add(one.chat.origin, answer)
            rows.add(id(one.chat))
    if len(strays.rows) > max(1, _HABIT * total):
        strays = Spots()
    if not strays.rows and reads == "turns" and total - most[1] > _HABIT * _SEVERAL:
        strays = _mixed([(one, answer) for one, _asked, answer in told])
    yield from strays.finding("D213")


def _mixed(told: Sequence[tuple[_Answer, str]]) -> Spots:
    """Answers in another language than their question, where many are and many are not: that is nobody's aim."""
    asked = [(one, _tongue(one.asked, _FEW_WORDS), answer) for one, answer in told]
    same = Counter(question for _one, question, answer in asked if question == answer)
    others = [
        (one, question, answer)
        for one, question, answer in asked
        if question is not None and same[question] and question != answer and not _asked_for(one.chat)
        and not _about_words(one)
    ]  # fmt: skip
    other = Counter(question for _one, question, _answer in others)
    spots = Spots()
    rows: set[int] = set()
    for one, question, answer in others:
        both = same[question] + other[question]
        is_mixed = both >= _SEVERAL and min(same[question], other[question]) > _HABIT * both
        if is_mixed and id(one.chat) not in rows:
            spots.add(one.chat.origin, answer)
            rows.add(id(one.chat))
    return spots


@dataclass(frozen=True)
class _Answer:
    """A learned answer, and what stands before it."""

    chat: Chat
    asked: str
    said: str


def _answers(chat: Chat, reads: Reads) -> Iterator[_Answer]:
    for before, message in pairwise(chat.messages):
        if message.role == "assistant" and message.learn:
            yield _Answer(chat, before.content, message.content)


def _asked_in(question: str, answer: str) -> str | None:
    """The language of a question, told by less where the answer's is another one."""
    tongue = _tongue(question)
    if tongue is None and answer in _SCRIPTS and len(_LATIN.findall(question)) >= 8 and _script(question) != answer:
        return "Latin script"  # whatever the language, it is not the answer's
    return tongue


def _about_words(one: _Answer) -> bool:
    """Whether the answer takes up a word that the question quotes in the answer's script."""
    if _script(one.asked) == _script(one.said):
        return False
    own = _LONG_WORD if _script(one.said) == "Latin script" else _TWO_CHARACTERS
    return not set(own.findall(one.asked.lower())).isdisjoint(own.findall(one.said.lower()))


def _asked_for(chat: Chat) -> bool:
    return any(m.role in ("system", "user") and _ASKED_FOR.search(m.content) for m in chat.messages)
