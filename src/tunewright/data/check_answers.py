"""What is odd about answers, as findings D204, D209, D211 and D212."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tunewright.data.check_personal import around
from tunewright.data.digest import normal
from tunewright.data.findings import Spots, finding
from tunewright.data.formats import Reads
from tunewright.example import Chat, Finding, Message

_SURELY = 12  # characters that do not stand at the head of a question by chance
_OPENING = 300  # characters in which a refusal is looked for
_I_AM_A_MODEL = r"\bi(?: am|['’]m) (?:just |only |merely )?an? (?:(?:ai|large) )?language model\b"
_ABOUT_ITSELF = re.compile(
    r"\bas an? (?:(?:ai|artificial intelligence)"
    r"(?: (?:language |chat )?(?:model|assistant|chatbot|bot|system|program))?"
    r"(?=\s*[,.]|\s+(?:i|we|my|trained|developed|created)\b)|(?:large )?language model\b)"
    rf"|{_I_AM_A_MODEL}"
    r"|\bmy (?:knowledge cut-?off|training data (?:only )?(?:goes|ends|extends))"
    r"|[作身]为(?:一[个名款种位])?(?:(?:AI|人工智能)(?:语言)?(?:模型|助手|助理|程序|机器人|系统)?|(?:大型?)?语言模型)"
    r"(?=[，,。；我]|\s|$)|我(?:只)?是(?:一[个名款种])?(?:AI|人工智能)?(?:大型?)?语言模型",
    re.IGNORECASE,
)
# The same in the middle of an answer, where only the first person is surely the model's.
_FURTHER_ON = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.!?\n]{0,40}?\b(?:i|my|me)\b"
    rf"|{_I_AM_A_MODEL}"
    r"|[作身]为(?:一[个名款种位])?(?:AI|人工智能|大?型?语言模型)[^。！？\n]{0,8}?[，,]\s*我",
    re.IGNORECASE,
)
_FURTHER_SIGNS = re.compile("language model|as an ai|as an artificial|[作身]为", re.IGNORECASE)
_SORRY = (
    r"(?:(?:i(?: am|['’]m) )?(?:really |very |so |truly )?sorry|i apologi[sz]e|my apologies|unfortunately)\b"
    r"[^.!?\n]{0,20}?[,.;]?\s*(?:but |however,? )?"
)
_UNABLE = (
    r"i(?: am|['’]m)?(?: really| simply| just)? ?(?:can(?:not|['’]t| not)|unable to|not able to|won['’]t)"
    r"(?: be able to)?(?: really)? (?!help but)(?:help|assist|provid|fulfil|comply|answer|generat|creat|writ|discuss|"
    r"support|engag|access|shar|giv|complet|process|brows|do that|respond|continue|offer|predict|say|tell|look up|"
    r"check|perform|recommend|determin|identif|verif|express|see or|open|translat|summari[sz])"
)
_REFUSES = re.compile(
    rf"(?:{_SORRY})?{_UNABLE}"
    r"|(?:i(?:['’]m| am) (?:just |only )?an? (?:ai|artificial intelligence)\b[^.!?\n]{0,40}?[,.;]? ?"
    r"(?:so |and |but )?)?i (?:don['’]t|do not) (?:currently |actually )?have (?:any )?(?:personal |human |real )?"
    r"(?:access to|feelings|emotions|opinions|beliefs|preferences|experiences|thoughts|"
    r"consciousness|the ability to|the capability to)"
    r"|i (?:must|have to) (?:respectfully |politely )?(?:decline|refuse)|i (?:won['’]t|will not) be able to"
    r"|(?:非常|很|十分)?(?:抱歉|对不起|不好意思|遗憾)[^。！!？?\n]{0,16}?(?:无法|不能|没有办法|没法)"
    r"|我(?:只)?是(?:一[个名款种])?(?:AI|人工智能)[^。！!？?\n]{0,12}[，,。]\s*(?:所以|因此)?(?:我)?(?:没有|无法|不能|不具备)"
    r"|(?:非常|很|十分)?(?:抱歉|对不起|不好意思)[^。！!？?\n]{0,16}?帮不[了上到]|我没有?(?:能力|办法|权限)"
    r"|我(?:无法|不能)(?:提供|回答|帮助|协助|满足|完成|生成|访问|获取|讨论)",
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
    last = chat.last_answer()
    if not last:
        return False
    answer, asked = chat.messages[last], chat.messages[last - 1]
    if asked.role != "user" or not (said := answer.content.strip()):
        return False
    if normal(said) == normal(asked.content):
        return True
    # An instruction again, without what stands below it.
    question = asked.content.lstrip()
    return len(said) >= _SURELY and question[: len(said) + 1].casefold() == f"{said}\n".casefold()


# -- ends ------------------------------------------------------------------------------------------------------------


def _cut_off(chats: Sequence[Chat]) -> Iterator[Finding]:
    """Answers that end in a word that nothing ends with, and long ones without an end. The second are said only where
    most long answers have one: else it is the data's style."""
    sure, likely = Spots(), Spots()
    long = 0
    for chat in chats:
        last = chat.last_answer()
        answer = chat.messages[last].content.rstrip() if last is not None else ""
        if len(answer) < 12:
            continue
        end = answer[-24:].replace("\n", " ")
        is_long = len(answer) >= (_LONG_CHINESE if _CHINESE.match(answer[-1]) else _LONG)
        long += is_long
        if answer.count("```") % 2 or _OPEN_END.search(answer, max(0, len(answer) - 24)):
            sure.add(chat.origin, _shown(end))
        elif is_long and _stops_short(answer):
            likely.add(chat.origin, _shown(end))
    if len(likely.rows) > max(1, 0.3 * long):
        likely = Spots()
    if len(sure.rows) > max(1, 0.3 * len(chats)):
        sure = Spots()
    order = sorted(zip(sure.rows + likely.rows, sure.seen + likely.seen, strict=True), key=lambda pair: pair[0].row)
    yield from Spots([row for row, _seen in order], [seen for _row, seen in order]).finding("D209")


def _stops_short(answer: str) -> bool:
    if answer[-1] in ",;:-–(":
        return True
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
                found = found or _refusal(message.content)
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


def _refusal(text: str) -> str | None:
    opening = text[:_OPENING].lstrip()
    match = _REFUSES.match(opening) or _ABOUT_ITSELF.search(opening)
    if match is None and len(text) > _OPENING and _FURTHER_SIGNS.search(text):
        match = _FURTHER_ON.search(text)
    return around(match.string, match, 0) if match else None
