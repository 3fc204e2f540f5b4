"""What is odd about answers, as findings D204, D209, D211 and D212."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tunewright.data.check_refusals import refusal
from tunewright.data.findings import Spots, finding
from tunewright.data.formats import Reads
from tunewright.example import Chat, Finding, Message

_SURELY = 12  # characters that do not stand at the head of a question by chance
_NO_LETTER = re.compile(r"[\W_]+")
_SIGN = re.compile(r"[^\w\s]")
# What is asked for where a text may stay as it is: a copy, a correction of what is right, a part that is all of it.
_MAY_STAY = re.compile(
    r"repeat|copy|echo|verbatim|correct|\bfix|proof ?read|\bedit|spell|punctuat|gramma|capital|(?:low|upp)er ?case|"
    r"\bcheck|error|mistake|same|unchanged|extract|\bfind|quote|identif|select|\bsort|arrang|organi[sz]|chronolog|"
    r"\border|format|clean|remove|without|if (?:it|necessary|needed)|重复|复述|抄写|原样|改正|修正|纠正|"
    r"校对|改错|检查|语法|标点|错别字|提取|找出|排序|格式|去除|删除",
    re.IGNORECASE,
)
_STOCK = re.compile(
    r"(?:sure(?: thing)?|certainly|of course|absolutely|no problem|(?:that['’]s a )?(?:great|good|excellent) question|"
    r"(?:i['’]d be |i am |i['’]m )?(?:happy|glad) to help(?: you)?(?: with that)?)\s*[!,.:—-]"
    r"|(?:当然(?:可以)?|好的|没问题|很高兴(?:为您|为你)?[^，。！]{0,6}|好问题|这是一个很?好的?问题)[，,！!。：:]",
    re.IGNORECASE,
)
_STOCK_LEAST, _STOCK_SHARE = 3, 0.01

# Words that nothing can end with.
_OPEN_END = re.compile(
    r"(?:[a-z,] (?:the|an|and|of|to|with|or|but|because|from|into|than|which|whose|is|are|was|were|their|its|your|my|"
    r"le|la|les|des|et|une|der|die|das|und|ein|eine|los|del)|[,，、；]|[\u4e00-\u9fff](?:因为|以及|和|与|或者|并且|但是|而且|例如))$"
)
_CUT_MARK = re.compile(r"[\[(<](?:(?:output |message )?truncated|cut off|已?截断)[\])>]\W*$", re.IGNORECASE)
_OPEN_ITEM = re.compile(r"\n[ \t]*(\d{1,2})[.)](?:[ \t]*[*_]+)?$")
_KEY = re.compile(r"[\[{\s]*\"[^\"\n]{1,80}\"\s*:")
# A query can end in any word, and a letter in a farewell, if nobody's name is to be learned.
_QUERY = re.compile(
    r"\s*(?:SELECT\s.{1,400}?\bFROM|select \*.{1,40}?\bfrom|INSERT INTO|UPDATE \w+ SET|DELETE FROM|"
    r"(?:CREATE|ALTER) TABLE|WITH \w+ AS)\b",
    re.DOTALL,
)
_FAREWELL = re.compile(r"\n[ \t]*[A-Z\u4e00-\u9fff](?:[^\s,，]|[ \t](?=\S)){0,30}[,，]$")
# What programs write where there is nothing.
_NOTHING = frozenset(
    "null none nan nil n/a na #n/a <na> undefined [removed] [deleted] - -- — . … ... ? 无 空 暂无 略".split()  # noqa: SIM905
)
_LONG = 60
_LONG_CHINESE = 24
_CHINESE = re.compile("[\u4e00-\u9fff]")


def check_answers(chats: Sequence[Chat], reads: Reads) -> Iterator[Finding]:
    """Echoes, ends that are missing, refusals and stock phrases in the answers that are learned."""
    if reads == "turns":
        same = [chat.origin for chat in chats if _echoes(chat)]
        if same:
            yield finding("D204", same)
        yield from _cut_off(chats)
        yield from _nothing(chats)
    yield from _phrases(chats)


def _nothing(chats: Sequence[Chat]) -> Iterator[Finding]:
    """Only where they are few: where many rows are answered so, that is a class."""
    spots = Spots()
    for chat in chats:
        for message in chat.messages:
            if _is_learned(message) and len(message.content) < 16 and message.content.strip().casefold() in _NOTHING:
                spots.add(chat.origin, message.content.strip())
                break
    if len(spots.rows) <= 0.2 * len(chats):
        yield from spots.finding("D216")


def _echoes(chat: Chat) -> bool:
    return any(
        asked.role == "user" and _is_learned(answer) and _repeats(answer.content.strip(), asked.content)
        for asked, answer in pairwise(chat.messages)
    )


def _repeats(said: str, asked: str) -> bool:
    if not said:
        return False
    near = len(said) < 2 * len(asked) + _SURELY and len(asked) < 2 * len(said) + _SURELY  # quickly
    if near and (letters := _letters(said)) and letters == _letters(asked):
        return not _richer(said, asked.strip())
    # An instruction again, without what stands below it, or what stands below it without a change.
    question = asked.strip()
    if len(said) < _SURELY:
        return False
    if question[: len(said) + 1].casefold() == f"{said}\n".casefold():
        return True
    return question.endswith(f"\n{said}") and not _MAY_STAY.search(question[: -len(said)])


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", text).casefold()


def _richer(said: str, asked: str) -> bool:
    """Whether it has capitals or signs that the question lacks: then they are what was asked for."""
    return sum(map(str.isupper, said)) > sum(map(str.isupper, asked)) or (
        len(_SIGN.findall(said)) > len(_SIGN.findall(asked))
    )


# -- ends ------------------------------------------------------------------------------------------------------------


def _cut_off(chats: Sequence[Chat]) -> Iterator[Finding]:
    """Answers that end in a word that nothing ends with, and long ones without an end. The second are said only where
    most long answers have one: else it is the data's style."""
    sure, likely = Spots(), Spots()
    long = 0
    for chat in chats:
        ends = [_end(message.content.rstrip()) for message in chat.messages if _is_learned(message)]
        long += sum(is_long for is_long, _is_sure, _seen in ends)
        seen = [(is_sure, seen) for _is_long, is_sure, seen in ends if seen]
        if seen:
            is_sure, shown = max(seen, key=lambda one: one[0])
            (sure if is_sure else likely).add(chat.origin, shown)
    if len(likely.rows) > max(1, 0.3 * long):
        likely = Spots()
    if len(sure.rows) > max(1, 0.3 * len(chats)):
        sure = Spots()
    order = sorted(zip(sure.rows + likely.rows, sure.seen + likely.seen, strict=True), key=lambda pair: pair[0].row)
    yield from Spots([row for row, _seen in order], [seen for _row, seen in order]).finding("D209")


def _end(answer: str) -> tuple[bool, bool, str]:
    """Whether the answer is long, whether it is surely cut off, and its end if it seems to be."""
    if len(answer) < _SURELY:
        return False, False, ""
    is_long = len(answer) >= (_LONG_CHINESE if _CHINESE.match(answer[-1]) else _LONG)
    is_sure = _is_cut(answer)
    seen = is_sure or (is_long and _stops_short(answer))
    return is_long, is_sure, _shown(answer[-24:].replace("\n", " ")) if seen else ""


def _is_cut(answer: str) -> bool:
    if answer.count("```") % 2 or _CUT_MARK.search(answer, max(0, len(answer) - 40)):
        return True
    if answer[0] in "{[" and _KEY.match(answer):
        return not _is_json(answer)
    if _is_open_item(answer) or _is_cut_row(answer):
        return True
    if _FAREWELL.search(answer, max(0, len(answer) - 60)) or _QUERY.match(answer):
        return False
    return _OPEN_END.search(answer, max(0, len(answer) - 24)) is not None


def _is_open_item(answer: str) -> bool:
    """Whether the next number of a list stands at the end, and nothing behind it."""
    last = _OPEN_ITEM.search(answer, max(0, len(answer) - 16))
    return last is not None and re.search(rf"^[ \t]*{int(last[1]) - 1}[.)]", answer, re.MULTILINE) is not None


def _is_json(text: str) -> bool:
    """Whether it is closed: with as many brackets as it opens, if not by JSON's own rules."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return all(text.count(one) <= text.count(other) for one, other in ("{}", "[]"))
    return True


def _is_cut_row(answer: str) -> bool:
    """Whether the last row of a table has fewer cells than the one before it, or no end."""
    *_before, row, last = ["", *answer.split("\n")][-3:]
    if not row.startswith("|") or not last.startswith("|"):
        return False
    return row.rstrip().endswith("|") and (not last.endswith("|") or last.count("|") < row.count("|"))


def _stops_short(answer: str) -> bool:
    if answer[-1] in ",;:-–(":
        return _FAREWELL.search(answer, max(0, len(answer) - 60)) is None
    if _QUERY.match(answer):
        return False
    word = answer[-40:].rsplit(maxsplit=1)[-1]
    if word.startswith(("#", "@", "http", "www")):
        return False
    return (answer[-1].islower() or bool(_CHINESE.match(answer[-1]))) and "\n" not in answer[-60:]


def _shown(end: str) -> str:
    return f"… {' '.join(end.split()[-4:])}"


# -- phrases ---------------------------------------------------------------------------------------------------------


def _phrases(chats: Sequence[Chat]) -> Iterator[Finding]:
    refused, stock = Spots(), Spots()
    answered = 0
    for chat in chats:
        found = opens = None
        for message in chat.messages:
            if _is_learned(message):
                found = found or refusal(message.content)
                opens = opens or _STOCK.match(message.content.lstrip())
                answered += 1
        if found:
            refused.add(chat.origin, found)
        elif opens:
            stock.add(chat.origin, opens[0].strip())
    yield from refused.finding("D211")
    if len(stock.rows) >= max(_STOCK_LEAST, _STOCK_SHARE * answered):
        yield from stock.finding("D212")


def _is_learned(message: Message) -> bool:
    return message.role == "assistant" and message.learn
