"""Text that was decoded wrongly once: seen by its traces, and mended only where the way back is exact."""

from __future__ import annotations

import re

# UTF-8 read as Windows-1252 (accents, quotes, Cyrillic, two East Asian characters in a row) or as GBK, and the sign
# that stands for bytes that could not be read at all.
_BEHIND = "[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf]|\u00c3[\u0192\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
    "|\u00e2\u20ac[\u0080-\u00ff\u0152\u0153\u02dc\u2013-\u2026\u2122]|\u00ef\u00bb\u00bf"
    "|[\u00d0\u00d1][\u0080-\u00bf]{1,2}[\u00d0\u00d1]|\ufffd|\u951f\u65a4\u62f7"
    f"|(?:[\u00e3-\u00ed]{_BEHIND}{{2}}){{2}}"
    "|(?:[锛銆鈥鐨鏄鎴鍙鍚鍥鏂鐢鍦][^\x00-\x7f]{1,12}?){2}"  # rare characters, which common ones become in GBK
)


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
    if not MOJIBAKE.search(run):
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
