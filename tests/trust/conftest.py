"""A person at the command line, and files that nothing may change behind their back."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import ROOT

from tunewright.cli.main import main
from tunewright.errors import InputError

EXAMPLES = ROOT / "examples"


class Person:
    """Types one command and reads what is said. Every file of data is afterwards what it was."""

    def __init__(self, home: Path, fault: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.fault, self.capsys, self.read = home, fault, capsys, False

    def types(self, *words: str | Path, code: int = 0) -> str:
        """What ``tunewright WORDS`` printed, on both streams."""
        before = self._data()
        self.capsys.readouterr()
        found = main([str(word) for word in words])
        printed = "".join(self.capsys.readouterr())
        assert found == code, printed
        assert self._data() == before
        if code == InputError.exit_code:  # what to do next is always said, and never with a traceback
            assert "  type:  " in printed and "Traceback" not in printed
        return printed

    def is_told(self, *words: str | Path, code: int = 0) -> str:
        """The same, and the declared message is in it."""
        printed = self.types(*words, code=code)
        self.fault.require_in(printed)
        self.read = True
        return printed

    def _data(self) -> dict[str, str]:
        found = [path for path in self.home.iterdir() if path.suffix in (".jsonl", ".yaml", ".csv")]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture
def person(home: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Person]:
    someone = Person(home, request.function.fault, capsys)
    yield someone
    assert someone.read or not someone.fault.says, "the test never looked for its message"


def rows_of(name: str) -> list[dict[str, Any]]:
    """Rows of an example, such as ``sentiment/reviews``."""
    lines = (EXAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write(name: str, rows: list[dict[str, Any]]) -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(name).write_text(text, encoding="utf-8")
    return name


@pytest.fixture
def run(tiny_run: Path, home: Path) -> Path:
    """A copy of a finished run, to be damaged; its data and base are where they were."""
    return Path(shutil.copytree(tiny_run, home / "run"))


@pytest.fixture
def base(tiny_base: Path, home: Path) -> Path:
    """A base of this test's own."""
    return Path(shutil.copytree(tiny_base, home / "base"))
