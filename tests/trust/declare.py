"""How a test of this folder says which fault it plants; docs/trust.md is written from this."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Fault:
    """happens: what goes wrong elsewhere.  seen: in which projects, with the numbers of their issues.  here: what is
    done instead, in a sentence.  says: the lines that are printed, … standing for what depends on place and time."""

    number: int
    happens: str
    seen: str
    here: str
    says: str
    test: str = ""

    def require_in(self, printed: str) -> None:
        """The declared lines are what was printed, but for line breaks and the parts marked …"""
        pattern = r".*?".join(re.escape(part) for part in _plain(self.says).split("…"))
        assert re.search(pattern, _plain(printed)), f"not said:\n{self.says}\n\nbut:\n{printed}"


FAULTS: dict[int, Fault] = {}

PEERS = {
    "LF": "hiyouga/LLaMA-Factory", "AX": "axolotl-ai-cloud/axolotl", "US": "unslothai/unsloth",
    "SW": "modelscope/ms-swift", "TRL": "huggingface/trl",
}  # fmt: skip


def fault(number: int, happens: str, seen: str, here: str, says: str) -> Callable[[Test], Test]:
    """Declare the fault that a test plants. ``LF#12`` in ``seen`` becomes a link to that issue."""

    def declare(test: Test) -> Test:
        assert number not in FAULTS or FAULTS[number].test == test.__name__, f"fault {number} is declared twice"
        FAULTS[number] = Fault(number, happens, seen, here, says.strip("\n"), test.__name__)
        test.fault = FAULTS[number]  # type: ignore[attr-defined]
        return test

    return declare


def linked(seen: str) -> str:
    """Markdown of ``seen``, its issues as links."""

    def link(found: re.Match[str]) -> str:
        return f"[{found[0]}](https://github.com/{PEERS[found[1]]}/issues/{found[2]})"

    return re.sub(rf"\b({'|'.join(PEERS)})#(\d+)", link, seen)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
