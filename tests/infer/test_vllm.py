"""vLLM as an engine; where it is not installed, the error says what to do."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest

from tunewright.errors import ResourceError
from tunewright.infer.live import Ask
from tunewright.infer.vllm import VllmEngine


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_error_says_how_to_get_it(tiny_base: Path) -> None:
    with pytest.raises(ResourceError, match="pip install vllm"):
        VllmEngine(tiny_base, "float32", 128)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM: pip install vllm, on a machine it runs on")
def test_vllm_ends_at_the_stops_and_counts_its_tokens(tiny_base: Path) -> None:
    engine = VllmEngine(tiny_base, "float32", 128, rank=0)

    async def asked() -> list[int]:
        ask = Ask((1, 5, 9), 8, frozenset(), temperature=0.0)
        return [step.token async for step in engine.answer(ask)]

    assert len(asyncio.run(asked())) == 8
    engine.close()
