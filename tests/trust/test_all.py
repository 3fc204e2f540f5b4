"""The suite is whole: every fault of the list has a test, and a message that is not said is noticed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from tests.trust.declare import FAULTS, Fault, linked


def test_every_fault_is_planted() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.trust.{path.stem}")
    assert sorted(FAULTS) == list(range(1, 23))
    assert all(one.happens and one.seen and one.here for one in FAULTS.values())


def test_a_message_that_is_not_said_is_noticed() -> None:
    declared = Fault(0, "", "", "", "error: row …\n  do:    mend it")
    declared.require_in("…\nerror: row 7 of\n town.jsonl\n  do:    mend\n         it\n")
    with pytest.raises(AssertionError, match="not said"):
        declared.require_in("error: row 7\n  do:    nothing")


def test_issues_are_linked() -> None:
    assert linked("LF#12, common") == "[LF#12](https://github.com/hiyouga/LLaMA-Factory/issues/12), common"
