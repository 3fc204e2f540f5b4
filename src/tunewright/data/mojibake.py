"""Text that was decoded wrongly once: seen by its traces, and mended only where the way back is exact."""

from __future__ import annotations

import re

# UTF-8 read as Windows-1252 (accents, quotes, Cyrillic, pictures, two East Asian characters in a row), as Latin-1
# (which leaves control characters) or as GBK, and the sign that stands for bytes that could not be read at all.
_BEHIND = "[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
_CAPITAL, _LETTER = "[A-Z\u00c0-\u00de]", "[A-Za-z\u00c0-\u024f]"
# What closes a word: in capitals Ã and Â can be its last letter, as in Portuguese.
_CLOSES = "[\u00aa\u00b0\u00ba\u00bb\u2019\u201d\u2026\u2122]"
MOJIBAKE = re.compile(
    f"(?!(?<={_CAPITAL})[\u00c2\u00c3]{_CLOSES}(?!{_LETTER}))(?:"
    f"\u00c2\u00b0(?:(?<=\\d..)|(?<=\\d ..)|(?=\\w))|\u00c2(?!\u00b0)[\u0080-\u00bf]|\u00c3[\u0080-\u00bf]"
    "|\u00c3[\u0192\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122])"
    "|\u00e2\u20ac[\u0080-\u00ff\u0152\u0153\u02dc\u2013-\u2026\u2122]|\u00ef\u00bb\u00bf"
    f"|\u00e2[\u0152\u0153\u0160\u0161\u017d\u017e\u0178\u201a\u201e\u2020\u2021\u02c6\u02dc\u2030\u2039\u2122]{_BEHIND}"
    f"|[\u00e2\u00e3\u00ef][\u0080-\u009f][\u0080-\u00bf]|\u00f0[\u0178\u009f]{_BEHIND}{{2}}"
    "|[\u00d0\u00d1][\u0080-\u00bf]{1,2}[\u00d0\u00d1]|\ufffd|\u951f\u65a4\u62f7"
    f"|(?:[\u00e3-\u00ed]{_BEHIND}{{2}}){{2}}"
    "|(?:[锛銆鈥鐨鏄鎴鍙鍚鍥鏂鐢鍦][^\x00-\x7f]{1,12}?){2}"  # rare characters, which common ones become in GBK
)
# Texts about such characters show them, and mean what they show.
_ABOUT = re.compile(
    r"mojibake|\butf-?8\b|\blatin-?1\b|\biso-?8859|\bcp-?1252\b|windows-?1252|\b(?:en|de)cod(?:e|ed|ing)\b|乱码|编码|字符集",
    re.IGNORECASE,
)
_READ_AS_GBK = re.compile("[\u3040-\u30ff\u3400-\u9fff\ue000-\uf8ff\uff00-\uffef]{4,200}")
_EAST_ASIAN = re.compile("[\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]")
_LEFT = 0.6  # of the bytes, where GBK has no character for some of them


def broken(text: str) -> re.Match[str] | None:
    """Where ``text`` was decoded wrongly first."""
    found = MOJIBAKE.search(text)
    if found is not None:
        return found
    return next((match for match in _READ_AS_GBK.finditer(text) if _is_utf8_as_gbk(match[0])), None)


def _is_utf8_as_gbk(run: str) -> bool:
    """Whether the bytes that GBK has for these characters begin one of UTF-8, and are three to a character as those of
    East Asian ones are. Of real Chinese hardly ever one of the two is true."""
    written = run.encode("gb18030", "ignore")
    begins = b"\xe3" <= written[:1] <= b"\xed"
    return begins and 3 * len(_EAST_ASIAN.findall(written.decode("utf-8", "ignore"))) >= _LEFT * len(written)


def shows_it(text: str) -> bool:
    """Whether ``text`` is about such characters, so that it quotes them."""
    return _ABOUT.search(text) is not None


# What each byte reads as. Those that Windows-1252 does not know are control characters, as they are to browsers.
_AS_WINDOWS = [bytes([byte]).decode("cp1252", errors="replace").replace("\ufffd", chr(byte)) for byte in range(256)]
_BYTE = {chr(byte): byte for byte in range(128, 256)} | {_AS_WINDOWS[byte]: byte for byte in range(128, 256)}
_RUN = re.compile("[" + "".join(map(re.escape, _BYTE)) + "]{2,}")


def mended(text: str) -> str:
    """``text`` with each run of wrongly decoded characters read again as UTF-8, where its bytes are nothing else.

    A run whose bytes are no UTF-8, or that would not give the same characters if it were decoded wrongly again, stays.

    >>> mended("It is a cafÃ©.")
    'It is a café.'
    """
    for _turn in range(3):  # what went wrong twice is mended twice
        if not MOJIBAKE.search(text):
            break
        better = _RUN.sub(_read_again, text)
        if better == text:
            break
        text = better
    return text


def _read_again(match: re.Match[str]) -> str:
    run = match[0]
    if not MOJIBAKE.search(match.string, match.start(), match.end() + 1):  # the letter behind it can decide
        return run
    try:
        better = bytes(_BYTE[sign] for sign in run).decode("utf-8")
    except UnicodeDecodeError:
        return run
    again = better.encode("utf-8")
    exact = run in (again.decode("latin-1"), "".join(_AS_WINDOWS[byte] for byte in again))
    return better if exact else run


def windows(control: str) -> str:
    """What stands in the place of a control character: what Windows-1252 reads there, as in web pages, a line break for
    a separator of lines, or nothing."""
    code = ord(control)
    if control in "\u2028\u2029":
        return "\n"
    read = _AS_WINDOWS[code] if 0x80 <= code < 0xA0 else control
    return read if read != control else ""
