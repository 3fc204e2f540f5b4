"""Damaged files through the public command line: no traceback, no hang, no lost row. The first of those ten thousand
that ``benchmarks/fuzz.py`` tries."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.mutants import Hang, Trial, limited, mutant

SEED = 0


@pytest.mark.parametrize("begin", [0, 100])
def test_damaged_files_end_in_a_message_or_in_all_their_rows(
    begin: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    trial = Trial(tmp_path / "trial")
    wrong = {name: problem for name, content in (mutant(SEED, begin + n) for n in range(100))
             if (problem := trial(name, content))}  # fmt: skip
    assert not wrong
    assert trial.counted["read"] > 15 and trial.counted["refused"] > 20 and trial.counted["ledgers"] > 1


def test_a_seed_gives_the_same_mutants() -> None:
    assert [mutant(1, n) for n in range(12)] == [mutant(1, n) for n in range(12)] != [mutant(2, n) for n in range(12)]


def test_a_lost_row_and_a_hang_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(tmp_path / "trial")
    sound = b"".join(b'{"instruction": "Name %d", "output": "It is %d."}\n' % (i, i * i) for i in range(12))
    assert trial("a.jsonl", sound) is None and trial.counted["ledgers"] == 1
    monkeypatch.setattr("tests.mutants.rows_there", lambda path: 13)
    assert trial("a.jsonl", sound) == "12 rows read of 13 that are there"
    with pytest.raises(Hang), limited(0.01):
        while True:
            pass
