"""What is odd about the characters of the texts, as findings D107 and D205 to D207."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from tunewright.data.check_personal import around
from tunewright.data.findings import Spots, finding, named
from tunewright.data.formats import Reads
from tunewright.data.mojibake import broken
from tunewright.example import Chat, Finding, Origin

UNKNOWN = "<unk>"  # what running text, such as WikiText, has in the place of rare words
# Looked for where no base has been named yet; with a base its own special tokens are looked for.
USUAL_SPECIALS = (
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "[INST]",
    "[/INST]",
    "<pad>",
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[UNK]",
    "[BOS]",
    "[EOS]",
    "[gMASK]",
    "<EOS>",
    "<BOS>",
    "<mask>",
    "<<SYS>>",
    "<</SYS>>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    UNKNOWN,
)
# And what most look like: <|im_end|>, <|channel|>, DeepSeek's <｜User｜>.
_USUAL = re.compile(
    "|".join(map(re.escape, USUAL_SPECIALS)) + "|<\\|[A-Za-z][A-Za-z0-9_ -]{0,40}\\|>|<｜[^｜<>\n]{1,40}｜>"
)
# What is not seen and is learned: control characters, marks of direction, separators of lines, and characters without
# a width. A zero-width space stays in scripts that break their lines there, a joiner where letters or pictures join.
_JOINED = "[\u0590-\u1cff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]"
_NEVER_SEEN = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufdd0-\ufdef"
)
CONTROL = re.compile(f"[{_NEVER_SEEN}]|(?<!{_JOINED})[\u200b-\u200d](?!{_JOINED})")
_MAYBE_CONTROL = re.compile(f"[{_NEVER_SEEN}\u200b-\u200d]")  # quickly
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff]")
DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def usual_specials(text: str) -> list[str]:
    found = _USUAL.findall(text)
    return [name for name in found if name != "<mask>" or "</mask>" not in text]  # a pair of them is SVG's


def check_texts(chats: Sequence[Chat], specials: Callable[[str], list[str]], reads: Reads) -> Iterator[Finding]:
    """Broken characters, control characters, special tokens, and placeholders of forms and letters."""
    garbled, control, open_ = Spots(), Spots(), Spots()
    special: list[Origin] = []
    names: Counter[str] = Counter()
    for chat in chats:
        text = "\n".join(m.content if m.thinking is None else f"{m.content}\n{m.thinking}" for m in chat.messages)
        if not text.isascii() and (match := broken(text)):
            garbled.add(chat.origin, repr(around(text, match, 8)))
        if sign := _unseen(text):
            control.add(chat.origin, f"U+{ord(sign):04X}")
        hits = specials(text)
        if reads == "documents" and specials is usual_specials:
            hits = [name for name in hits if name != UNKNOWN]
        if hits:
            special.append(chat.origin)
            names.update(hits)
        if reads in ("turns", "pairs") and (sign := _placeholder(chat)):
            open_.add(chat.origin, sign)
    yield from open_.finding("D107")
    yield from garbled.finding("D205")
    yield from control.finding("D206")
    if special:
        yield finding("D207", special, names=named(names))


def blank(text: str) -> bool:
    """Whether nothing can be seen of it."""
    return not text.strip() or (len(text) < 64 and not CONTROL.sub("", text).strip())


def _unseen(text: str) -> str | None:
    for match in CONTROL.finditer(text) if _MAYBE_CONTROL.search(text) else ():
        if match[0] not in "\u200e\u200f" or not RIGHT_TO_LEFT.search(text):  # a mark that is right where it stands
            return match[0]
    return None


# -- placeholders ----------------------------------------------------------------------------------------------------

_NAMES = """
    name names firstname lastname surname fullname username nickname author company organization organisation brand
    product business team department school university city town state country street address zip location place venue
    date day month year time deadline email e-mail mail phone telephone website url link number amount price title
    position role job signature recipient sender customer client user employee manager boss friend person topic
    placeholder here
"""
_THINGS = frozenset(_NAMES.split())
_TO_BE_FILLED = re.compile(r"(?:insert|enter|add|fill in|your)[ _-]", re.IGNORECASE)
_CHINESE = re.compile(
    "(?:[你您]的|填写|请?[插输]入|公司|产品|客户|用户|收件人|发件人)?"
    "(?:姓名|名字|名称|公司|日期|时间|地址|地点|电话|手机号|邮箱|学校|城市|职位|作者|公司名|产品名|用户名)"
)
# Brackets that stand for themselves: no index, no link, no call, no attribute, no key of JSON.
_BRACKETS = re.compile(
    r"(?<!\w)\$\{([A-Za-z_]{1,30})\}|(?<![\w$])\$([A-Z][A-Z_]{2,30})(?!\w)|"
    r"(?<![\w%])%(?!USERNAME)([A-Z][A-Z_]{2,30})%(?!\w)|(?<![\w%])%\(([A-Za-z_]{1,30})\)s(?!\w)|"
    r"\{\{\s*([^\W\d_]{1,30}(?: [^\W\d_]{1,30}){1,4}|[^\W\d]\w{0,30}(?=\s*\|))\s*(?:\|[^{}\n]{1,40})?\}\}|"
    r"(?<![A-Za-z0-9_\])])\[([^\[\]\n]{1,60})\](?![(\[:=])|(?<![A-Za-z0-9_>])<([^<>\n]{1,60})>|【([^【】\n]{1,30})】"
    r"|(?<![A-Za-z0-9_$\\{}\])\"'%#@:(])\{([^{}\n]{1,60})\}(?!\})"
)
_COMPLEXITY = re.compile(r"O\([^()\n]*\)\s*$")  # O(n) [time]
_BETWEEN = re.compile(r"(?:['’]s)?[\s_]+|(?:['’]s)$")
_MOST_WORDS = 6
# Forms without a bracket that names a thing: ____, %s, XXX, XX公司, 某某先生, YOUR_NAME, __NAME__, (insert date here).
_BLANK = re.compile(
    r"(?<![A-Za-z0-9_-])_{4,}(?![A-Za-z0-9_-])|(?<![\w%])%s(?!\w)|(?<![\w&])X{3,}(?!\w)|(?<!\w)x{3,}(?!\w)"
    r"|(?:[Xx×]{2,3}|某某)(?:公司|先生|女士|小姐|大学|学校|医院|银行|部门|年|市|路)"
    r"|\b(?:YOUR|INSERT|ENTER|ADD)_[A-Z][A-Z_]*\b|(?<!\w)__[A-Z][A-Z_]*__(?!\w)"
    r"|\((?:insert|enter|fill in|your) [^()\n]{1,40}\)"
    r"|[（(](?:请?在?[此这]处?|请)(?:填写|填入|[插输]入)[^（）()\n]{0,20}[）)]"
)
# Before XXX as a number: Super Bowl XXX, Chapter XXX.
_NUMBERED = re.compile(
    r"\b(?:bowl|numerals?|olympiad|chapter|part|vol(?:ume|\.)|act|article|section|title|psalm|book|canto|sonnet|number|"
    r"wrestlemania|legion?|amendment|level|page|[XVILCDM]+[,-]?) $",
    re.IGNORECASE,
)
_BLANK_SIGNS = ("__", "%s", "XX", "xx", "××", "某某", "R_", "T_", "D_", "(", "（")
_FILLER = re.compile(r"lorem ipsum", re.IGNORECASE)
_LATER = re.compile(r"(?:^|[\[(（<]|\. |\n)(?:TODO|FIXME|TBD|TBA)(?=\s*(?:[:：\])）>.]|$))")
_CODE = re.compile(
    r"```|^\s*(?:import |from \w+ import |def |class |#include|<!DOCTYPE|<html|SELECT )|</\w+>|\bf[\"']", re.MULTILINE
)


def _placeholder(chat: Chat) -> str | None:
    """The first placeholder that an answer holds, if it is no code: there such signs mean something."""
    for message in chat.messages:
        text = message.content
        if message.role != "assistant" or not message.learn:
            continue
        place = _FILLER.search(text) or _LATER.search(text) or _blank(text)
        sign = place[0].strip() if place else _open_bracket(text)
        if sign and not _CODE.search(text):
            return sign
    return None


def _blank(text: str) -> re.Match[str] | None:
    if not any(sign in text for sign in _BLANK_SIGNS):
        return None
    return next((match for match in _BLANK.finditer(text) if match[0] != "XXX" or not _is_thirty(match)), None)


def _is_thirty(match: re.Match[str]) -> bool:
    return _NUMBERED.search(match.string, max(0, match.start() - 24), match.start()) is not None


def _open_bracket(text: str) -> str | None:
    """The first bracket that names what belongs in its place: [Your Name], {customer_name}, <date>, 【姓名】."""
    if not any(sign in text for sign in "[<{【$%"):
        return None
    for match in _BRACKETS.finditer(text):
        inside = next(filter(None, match.groups()))
        words = _BETWEEN.split(inside.lower())
        asks = _TO_BE_FILLED.match(inside)
        if asks and asks[0].lower() == "enter ":  # on a stage somebody enters
            asks = None if _THINGS.isdisjoint(words) and "your" not in words else asks
        if asks or _CHINESE.fullmatch(inside):
            return match[0]
        if inside.lower() in ("time", "space") and _COMPLEXITY.search(text, max(0, match.start() - 40), match.start()):
            continue
        if len(words) <= _MOST_WORDS and not _THINGS.isdisjoint(words) and all(_is_word(word) for word in words):
            return match[0]
    return None


def _is_word(text: str) -> bool:
    return not text or text.replace("-", "").replace("/", "").replace("'", "").isalpha()
