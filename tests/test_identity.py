"""The promise of the demo, held with a name that no default was chosen with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.identity import measure


@pytest.mark.slow
def test_a_chinese_name_is_learned_and_nothing_else_is_lost(tmp_path: Path) -> None:
    found = measure("云雀", "晨光实验室", tmp_path / "run")
    right, asked = (sum(numbers) for numbers in zip(found.english, found.chinese, found.held_out, strict=True))
    assert right >= 0.9 * asked, found
    assert found.stops[0] >= 0.95 * found.stops[1], found
    assert found.general_after >= found.general_before - 1, found
