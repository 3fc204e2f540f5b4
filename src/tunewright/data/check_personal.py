"""Personal data and secrets in the rows, as findings D601 to D604, and their masks.

A basic look at what has a form of its own: e-mail addresses, telephone numbers, keys, card numbers. Names and addresses
of streets have none and are not found. Whatever is found is never written out in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tunewright.data.findings import Spots
from tunewright.data.variables import calls_text
from tunewright.example import Chat, Finding

_EMAIL = re.compile(
    r"(?<![\w.+-])\w[\w.+-]{0,63}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}(?![\w-]|:[\w~-]+/)", re.IGNORECASE | re.ASCII
)
# Names that are kept for examples (RFC 2606), and those that people write instead of one.
# git@host is nobody's, and name@2x.png is a picture's.
_NOBODY = re.compile(
    r"@(?:.*\.)?(?:example|invalid|test|localhost|domain|yourdomain|yourcompany)(?:\.|$)|^git@"
    r"|@\dx\.(?:png|jpe?g|webp|gif|svg|avif)$",
    re.IGNORECASE,
)
_PHONE = re.compile(
    r"(?<![\w+.=-])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,12}(?![\w-])"  # with a country's code
    r"|(?<![\w.$€£=(-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}(?![\w-])"  # North America
    r"|(?<![\w.+-])1[3-9]\d([ -]?)\d{4}\1\d{4}(?![\w-]|\.\d)"  # Chinese mobile
    r"|(?<![\w.-])0\d{2,3}-\d{7,8}(?![\w-])"  # Chinese landline
    r"|(?<![\w.-])0\d{1,4}[ /]\d{3,4}[ ]?\d{3,4}(?![\w-])|(?<![\w.-])0\d{1,3}-\d{3,4}-\d{4}(?![\w-])",  # Europe, Japan
    re.ASCII,
)
_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----[\s\S]*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])(?:"
    r"sk-(?:[a-z]{2,8}\d{0,2}-){0,3}[A-Za-z0-9]{16,}[\w-]*"  # OpenAI, Anthropic and those who write keys like them
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"  # Stripe
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|AIza[\w-]{30,}|hf_[A-Za-z0-9]{20,}"  # Google, Hugging Face
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"  # JSON web token
    r")(?![A-Za-z0-9])",
    re.ASCII,
)
# What is called a secret and looks like one: at least eight characters, a digit and a letter among them.
_CALLED = re.compile(
    r"(?:(?:api|secret|access|auth|private)[_ -]?(?:key|token)|(?<![A-Za-z])(?:token|secret|password|passwd|pwd))"
    r"[\"']?(?:\s*[:=]\s*|\s+is:?\s+)(?:Bearer )?[\"'`]?(?=[A-Za-z_/+-]*\d)(?=[\d_/+-]*[A-Za-z])[\w/+-]{8,}={0,2}"
    r"|(?<!\w)Bearer\s+(?=[A-Za-z._-]*\d)[\w.-]{20,}",
    re.ASCII | re.IGNORECASE,
)
# The password in an address: postgres://user:password@host. A word in angle brackets or braces stands for one.
_IN_ADDRESS = re.compile(
    r"(?<=://)[^\s/:@\"'<>{}$]{0,64}:(?!(?:pass(?:word|wd)?|pwd?|secret|x+|\*+|\.+)@)[^\s/:@\"'<>{}$]{3,100}(?=@[\w.-])",
    re.IGNORECASE,
)
_USER = re.compile(r"://[^\s/@]*$")
_CALLED_SIGNS = ("key", "token", "secret", "passw", "pwd", "bearer")
_KEY_SIGNS = ("PRIVATE KEY", "sk-", "k_live_", "k_test_", "AKIA", "ASIA", "gh", "glpat-", "xox", "AIza", "hf_", "eyJ")
_CARD = re.compile(r"(?<![\w.+-])(?:3[47]\d\d([ -]?)\d{6}\1\d{5}|[2-6]\d{3}([ -]?)\d{4}\2\d{4}\2\d{4})(?![\w-]|\.\d)")
_DIGITS = re.compile(r"\d{2}[\d .()-]{5,}\d", re.ASCII)


def emails(text: str) -> Iterator[re.Match[str]]:
    if "@" in text:
        yield from (match for match in _EMAIL.finditer(text) if not _NOBODY.search(match[0]) and not _in_url(match))


def _in_url(match: re.Match[str]) -> bool:
    """Whether it is the password and the host of an address: https://user:password@host."""
    return "://" in match.string and _USER.search(match.string, max(0, match.start() - 80), match.start()) is not None


def phones(text: str) -> Iterator[re.Match[str]]:
    if _DIGITS.search(text):
        yield from _PHONE.finditer(text)


def keys(text: str) -> Iterator[re.Match[str]]:
    found = [*_KEY.finditer(text)] if any(sign in text for sign in _KEY_SIGNS) else []
    if _names_a_secret(text):
        found += _CALLED.finditer(text)
    if "://" in text and "@" in text:
        found += _IN_ADDRESS.finditer(text)
    end = 0
    for match in sorted(found, key=lambda one: one.start()):
        if match.start() >= end:  # a key that is called one is found twice
            yield match
            end = match.end()


def _names_a_secret(text: str) -> bool:
    lower = text.lower()
    return any(sign in lower for sign in _CALLED_SIGNS)


def cards(text: str) -> Iterator[re.Match[str]]:
    if _DIGITS.search(text):
        yield from (match for match in _CARD.finditer(text) if _is_card(match[0]))


def _is_card(written: str) -> bool:
    """Luhn's check digit (ISO/IEC 7812-1): every second digit from the right doubled, the digits' sum ends in 0."""
    digits = [int(sign) for sign in reversed(written) if sign.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


_LOOKED_FOR = (("D603", keys), ("D604", cards), ("D601", emails), ("D602", phones))


def check_personal(chats: Sequence[Chat]) -> Iterator[Finding]:
    """A row stands in a finding once, with the first thing of its kind that was seen in it, masked."""
    spots = {code: Spots() for code, _find in _LOOKED_FOR}
    for chat in chats:
        text = "\n".join(one for m in chat.messages for one in (m.content, m.thinking or "", calls_text(m)) if one)
        said = "@" in text or _DIGITS.search(text) or any(sign in text for sign in _KEY_SIGNS) or _names_a_secret(text)
        if not said:
            continue
        for code, find in _LOOKED_FOR:
            if found := next(find(text), None):
                spots[code].add(chat.origin, mask(code, found[0]))
    for code in sorted(spots):
        yield from spots[code].finding(code)


def mask(code: str, secret: str) -> str:
    """Enough of it to be found again, too little to be used."""
    if code == "D601":
        name, _at, domain = secret.partition("@")
        return f"{name[0]}…@{domain[0]}….{domain.rpartition('.')[2]}"
    if code == "D602":
        return f"…{secret[-2:]}"
    if code == "D604":
        return f"…{secret[-4:]}"
    return "-----BEGIN … PRIVATE KEY-----" if secret.startswith("-") else f"{secret[:4]}…"


def masked(text: str) -> str:
    """``text`` with everything masked that one of these findings would be about."""
    for code, find in _LOOKED_FOR:
        pieces, place = [], 0
        for match in find(text):
            pieces += [text[place : match.start()], mask(code, match[0])]
            place = match.end()
        text = "".join([*pieces, text[place:]])
    return text


def around(text: str, match: re.Match[str], beside: int = 12) -> str:
    """What was seen with a few characters on both sides, on one line and with its secrets masked."""
    begin, end = max(0, match.start() - beside), min(len(text), match.end() + beside)
    return " ".join(masked(text[begin:end]).split())
