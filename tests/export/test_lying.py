"""A run's GGUF file answered by llama.cpp: the file that lies there, or a new one, never one of other weights."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.export.conftest import needs_llama_cpp

from tunewright.errors import MissingExtra, RunError, TunewrightError
from tunewright.example import Message
from tunewright.export.lying import gguf_of
from tunewright.infer import llama_cpp
from tunewright.infer.live import Ask, Step
from tunewright.infer.llama_cpp import LlamaCppEngine
from tunewright.infer.open import open_run
from tunewright.infer.serving import LlamaCpp, Options, open_fleet
from tunewright.rundir import RunDir

QUESTION = [Message("user", "What is the river called?")]


def test_an_export_is_made_once_and_again_when_it_is_not_the_run_s(town: Path) -> None:
    run = RunDir("run")
    first = gguf_of(run)
    made = first.stat().st_mtime_ns
    assert first.suffix == ".gguf"
    assert gguf_of(run).stat().st_mtime_ns == made
    with open(first, "r+b") as file:  # a byte of its weights
        file.seek(-3, 2)
        file.write(b"x")
    assert gguf_of(run).stat().st_mtime_ns != made


@needs_llama_cpp
def test_llama_cpp_answers_as_the_run_does(town: Path) -> None:
    run = RunDir("run")
    fleet = open_fleet([run], with_bases=False, engines=LlamaCpp(Options(), {str(run): gguf_of(run)}))

    async def asked(**more: object) -> list[list[Step]]:
        served = await fleet.get("run")
        prompt = tuple(served.codec.prompt_ids(QUESTION))  # type: ignore[attr-defined]
        ask = Ask(prompt, 12, served.stops, temperature=0.0, top_logprobs=2)
        drawn = Ask(prompt, 12, served.stops, temperature=1.0, seed=3)

        async def steps(one: Ask) -> list[Step]:
            return [step async for step in served.engine.answer(one)]

        found = await asyncio.gather(steps(ask), steps(drawn), steps(drawn), steps(ask))
        leaving = served.engine.answer(ask)
        await anext(leaving)
        await leaving.aclose()  # its place is free again
        return [*found, await steps(ask)]

    first, drawn, again, second, last = asyncio.run(asked())
    opened = open_run(run)
    [alone] = opened.engine.generate([opened.engine.template.prompt_ids(QUESTION)], 12)
    said = [step.token for step in first if step.end != "stop"]
    assert said[:4] == list(alone.ids[:4])  # q8_0 may turn a later one
    assert [s.token for s in second] == [s.token for s in last] == [s.token for s in first]
    assert [s.token for s in drawn] == [s.token for s in again]
    assert first[0].logprob == first[0].top[0][1] and len(first[0].top) == 2
    assert first[-1].end in ("stop", "length")
    asyncio.run(fleet.close())


@needs_llama_cpp
def test_what_two_prompts_share_is_read_once_and_nothing_else_is_kept(town: Path, tiny_base: Path) -> None:
    file = gguf_of(RunDir("run"))
    talks = [(5, 6, 7, 8, 9, 10), (5, 6, 7, 11, 12), (5, 6, 7, 11, 12), (5, 6), (20, 21, 22)]

    def answered(engine: LlamaCppEngine, prompt: tuple[int, ...]) -> list[Step]:
        async def steps() -> list[Step]:
            ask = Ask(prompt, 3, frozenset(), temperature=0.0, top_logprobs=5)
            return [step async for step in engine.answer(ask)]

        return asyncio.run(steps())

    one, read = LlamaCppEngine(file, 64, tiny_base), []
    evaluate = one.model.eval
    one.model.eval = lambda ids: (read.append((len(ids), threading.current_thread())), evaluate(ids))
    found = [answered(one, prompt) for prompt in talks]
    one.close()
    for prompt, steps in zip(talks, found, strict=True):
        fresh = LlamaCppEngine(file, 64, tiny_base)
        anew = answered(fresh, prompt)
        assert [step.token for step in steps] == [step.token for step in anew], prompt
        assert [step.logprob for step in steps] == pytest.approx([step.logprob for step in anew], abs=1e-4), prompt
        fresh.close()
    assert [count for count, _thread in read][::3] == [6, 2, 1, 1, 3]
    [thread] = {thread for _count, thread in read}  # or OpenMP has more helpers than cores
    assert thread is not threading.current_thread()


@needs_llama_cpp
def test_closing_ends_an_answer_in_words(town: Path, tiny_base: Path) -> None:
    engine = LlamaCppEngine(gguf_of(RunDir("run")), 64, tiny_base)

    async def closed_after_a_token() -> None:
        async for _step in engine.answer(Ask((5, 6, 7), 5, frozenset(), temperature=0.0)):
            engine.close()

    with pytest.raises(TunewrightError, match="the engine has stopped"):
        asyncio.run(closed_after_a_token())


@needs_llama_cpp
def test_a_file_that_is_no_gguf_and_an_adapter_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF nothing")
    with pytest.raises(RunError, match="cannot read the file"):
        LlamaCppEngine(tmp_path / "x.gguf", 128, tiny_base)
    with pytest.raises(TunewrightError, match="merged into it"):
        LlamaCppEngine.offer(object.__new__(LlamaCppEngine), "a", tmp_path)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llama_cpp, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match="llama-cpp"):
        LlamaCppEngine(tmp_path / "x.gguf", 128, tmp_path)
