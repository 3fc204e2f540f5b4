"""The engine that serves: many at once, each with its own adapter, sampling and grammar, as if it were alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.tiny import model

from tunewright.errors import DataError, RunError, TunewrightError
from tunewright.infer import continuous, sampling
from tunewright.infer.continuous import ContinuousEngine
from tunewright.infer.grammar import Grammars, any_object, from_schema
from tunewright.infer.live import Ask, Step
from tunewright.model.load import quiet

T = TypeVar("T")
PROMPTS = [[1, 5, 9], [1, 50, 60, 70, 80, 7, 7], [1], [1, 20, 30, 40, 50, 60, 61, 62, 63, 64], [1, 90, 3]]
NEW = 12


def write_adapter(folder: Path, seed: int, kind: str = "llama", targets: str = "q_proj v_proj down_proj") -> Path:
    """An adapter with an effect that shows, as ``train`` writes one."""
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        tuned = get_peft_model(
            model(kind),
            LoraConfig(r=4, lora_alpha=8, target_modules=targets.split(), fan_in_fan_out=kind == "gpt2"),
        )
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
    with quiet():
        tuned.save_pretrained(str(folder))
    return folder


def with_peft(folder: Path, kind: str = "llama") -> Any:
    with quiet():
        return PeftModel.from_pretrained(model(kind), str(folder)).eval()


def alone(tuned: Any, prompt: list[int], new: int = NEW) -> list[int]:
    """Greedy, one token after the other, the whole text through the model each time."""
    ids = list(prompt)
    for _step in range(new):
        with torch.no_grad():
            ids.append(int(tuned(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    assert not [one for one in threading.enumerate() if "_run_generation_loop" in one.name]


@pytest.fixture
def engine() -> Iterator[Callable[..., ContinuousEngine]]:
    made: list[ContinuousEngine] = []

    def make(kind: str = "llama", **given: Any) -> ContinuousEngine:
        made.append(ContinuousEngine(model(kind), 256, 1 << 24, **given))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def steps(one: ContinuousEngine, ask: Ask) -> list[Step]:
    return [step async for step in one.answer(ask)]


def greedy(prompt: list[int], adapter: str | None = None, new: int = NEW, **more: Any) -> Ask:
    return Ask(tuple(prompt), new, frozenset(more.pop("stops", ())), adapter, temperature=0.0, **more)


def together(*jobs: Awaitable[T]) -> list[T]:
    async def gathered() -> list[T]:
        return await asyncio.gather(*jobs)

    return asyncio.run(gathered())


def tokens(answer: list[Step]) -> list[int]:
    return [step.token for step in answer]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_answered_together_each_is_what_it_is_alone(kind: str, engine: Any) -> None:
    one = engine(kind)
    answers = together(*(steps(one, greedy(prompt)) for prompt in PROMPTS))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert tokens(answer) == alone(model(kind), prompt)
        assert [step.end for step in answer] == [None] * (NEW - 1) + ["length"]


def test_a_stop_token_ends_an_answer_and_is_marked(engine: Any) -> None:
    said = alone(model(), PROMPTS[1])
    [answer] = together(steps(engine(), greedy(PROMPTS[1], stops=[said[5]])))
    first = said.index(said[5])
    assert tokens(answer) == said[: first + 1]
    assert answer[-1].end == "stop"


@pytest.mark.parametrize(("kind", "targets"), [("llama", "q_proj v_proj down_proj"), ("gpt2", "c_attn c_proj")])
def test_each_request_is_answered_by_its_own_adapter(kind: str, targets: str, engine: Any, tmp_path: Path) -> None:
    """Two adapters and the base in the same steps; and the base's weights are untouched by it."""
    folders = {name: write_adapter(tmp_path / name, seed, kind, targets) for seed, name in enumerate("ab")}
    one = engine(kind)
    for name, folder in folders.items():
        one.offer(name, folder)
    whose = [*folders, None, *folders]
    answers = together(*(steps(one, greedy(p, name)) for p, name in zip(PROMPTS, whose, strict=True)))
    for prompt, name, answer in zip(PROMPTS, whose, answers, strict=True):
        tuned = model(kind) if name is None else with_peft(folders[name], kind)
        assert tokens(answer) == alone(tuned, prompt)
    assert len({tuple(tokens(a)) for a in answers}) == len(answers)  # or nobody could tell them apart


def test_the_update_is_peft_s_to_the_bit(engine: Any, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", 3)
    one = engine()
    one.offer("a", folder)
    one.adapters.hold("a")
    one.adapters.route([("a", 7)])
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        expected = with_peft(folder)(ids).logits
        assert torch.equal(one.model(ids).logits, expected)
        one.adapters.route([(None, 3), ("a", 4)])
        assert not torch.equal(one.model(ids).logits, expected)


def test_the_same_prompt_under_two_adapters_shares_no_keys(engine: Any, tmp_path: Path) -> None:
    """A long prompt that fills pages, asked of one adapter and then of another: what the first left must not answer."""
    prompt = [1 + number % 90 for number in range(3 * continuous.PAGE)]
    one = engine()
    for seed, name in enumerate("ab"):
        one.offer(name, write_adapter(tmp_path / name, seed))

    async def one_after_the_other() -> list[list[Step]]:
        return [await steps(one, greedy(prompt, name, new=4)) for name in "aba"]

    first, second, third = asyncio.run(one_after_the_other())
    assert tokens(second) == alone(with_peft(tmp_path / "b"), prompt, 4)
    assert tokens(first) == tokens(third) != tokens(second)


def test_the_adapter_used_longest_ago_leaves_first(engine: Any, tmp_path: Path) -> None:
    one = engine(adapters=2)
    for seed, name in enumerate("abc"):
        one.offer(name, write_adapter(tmp_path / name, seed))

    async def use() -> list[list[str]]:
        seen = []
        for name in "abac":
            await steps(one, greedy([1, 5], name, new=1))
            seen.append(list(one.adapters.loaded))
        return seen

    assert asyncio.run(use()) == [["a"], ["a", "b"], ["b", "a"], ["a", "c"]]


def test_an_adapter_in_use_stays(engine: Any, tmp_path: Path) -> None:
    one = engine(adapters=1)
    for seed, name in enumerate("ab"):
        one.offer(name, write_adapter(tmp_path / name, seed))
    together(*(steps(one, greedy([1, 5], name, new=30)) for name in "abab"))
    assert len(one.adapters.loaded) == 1
    assert not +one.adapters.in_use


def test_the_same_seed_draws_the_same_whatever_else_is_answered(engine: Any) -> None:
    one = engine()
    ask = Ask((1, 5, 9), 20, frozenset(), temperature=1.0, top_p=0.9, seed=7)
    other = Ask((1, 5, 9), 20, frozenset(), temperature=1.0, top_p=0.9, seed=8)
    [first] = together(steps(one, ask))
    second, different, _greedy = together(steps(one, ask), steps(one, other), steps(one, greedy([1, 2])))
    assert tokens(first) == tokens(second) != tokens(different)


def test_top_p_draws_from_the_nucleus_alone() -> None:
    row = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)
    drawn = {sampling.choose(row, 1.0, 0.7, generator) for _number in range(200)}
    assert drawn == {0, 1}
    assert {sampling.choose(row, 1.0, 1.0, generator) for _number in range(400)} == {0, 1, 2, 3}
    assert sampling.choose(row, 0.0, 1.0, None) == 0


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 1e-300])
def test_a_temperature_next_to_zero_draws_the_likeliest(temperature: float) -> None:
    row = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    assert sampling.choose(row, temperature, 1.0, torch.Generator().manual_seed(0)) == 1
    assert sampling.choose(row, temperature, 0.5, torch.Generator().manual_seed(0)) == 1


def test_logprobs_are_the_model_s_own(engine: Any) -> None:
    [answer] = together(steps(engine(), greedy(PROMPTS[0], top_logprobs=3)))
    with torch.no_grad():
        expected = model()(torch.tensor([PROMPTS[0]])).logits[0, -1].log_softmax(0)
    best = expected.topk(3)
    assert answer[0].logprob == pytest.approx(float(best.values[0]), abs=1e-5)
    assert [token for token, _logprob in answer[0].top] == best.indices.tolist()
    assert [logprob for _token, logprob in answer[0].top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_a_client_that_leaves_frees_its_place(engine: Any) -> None:
    one = engine()

    async def leave() -> list[Step]:
        answer = one.answer(greedy(PROMPTS[0], new=200))
        await anext(answer)
        await answer.aclose()  # type: ignore[attr-defined]
        return await steps(one, greedy(PROMPTS[1]))

    assert tokens(asyncio.run(leave())) == alone(model(), PROMPTS[1])
    assert one._places == {}
    assert one._manager is not None
    assert one._manager.batch_processor.scheduler.active_requests == {}


def test_more_requests_than_keys_fit_in_are_answered_all_the_same(engine: Any, monkeypatch: Any) -> None:
    """Room for 512 tokens, eight answers of 110 each: some have to be set aside and taken up again."""
    one = ContinuousEngine(model(), 256, 512 * continuous.bytes_a_token(model()))
    try:
        prompts = [[1, 5 + n, 9] for n in range(8)]
        answers = together(*(steps(one, greedy(p, new=110)) for p in prompts))
        for prompt, answer in zip(prompts, answers, strict=True):
            assert tokens(answer) == alone(model(), prompt, 110)
    finally:
        one.close()


def test_closing_finishes_what_is_being_answered() -> None:
    one = ContinuousEngine(model(), 256, 1 << 24)

    async def closed() -> list[Step]:
        task = asyncio.create_task(steps(one, greedy(PROMPTS[0], new=60)))
        while not any(place.given for place in one._places.values()):
            await asyncio.sleep(0.001)
        await asyncio.to_thread(one.close)
        return await task

    assert tokens(asyncio.run(closed())) == alone(model(), PROMPTS[0], 60)


def test_an_engine_closed_while_it_begins_leaves_nothing_that_runs(monkeypatch: Any) -> None:
    """The thread of its loop, left alone, would keep the process from ending."""
    one, beginning = ContinuousEngine(model(), 256, 1 << 24), threading.Event()
    begin = one._begin

    def slowly() -> Any:
        beginning.set()
        time.sleep(0.3)
        return begin()

    monkeypatch.setattr(one, "_begin", slowly)

    async def closed() -> None:
        task = asyncio.create_task(steps(one, greedy(PROMPTS[0])))
        await asyncio.to_thread(beginning.wait)
        await asyncio.to_thread(one.close)
        with contextlib.suppress(TunewrightError):  # whether it was begun in time to be answered is left open
            await task
        with pytest.raises(TunewrightError, match="the engine has stopped"):
            await steps(one, greedy(PROMPTS[0]))

    asyncio.run(closed())


def test_a_model_that_fails_fails_its_requests_and_not_in_silence(engine: Any, monkeypatch: Any) -> None:
    one = engine()
    monkeypatch.setattr(one.model, "forward", lambda *_args, **_more: 1 / 0)
    with pytest.raises(TunewrightError, match="division by zero"):
        together(steps(one, greedy(PROMPTS[0])))


def test_an_answer_that_cannot_go_on_ends_alone(engine: Any, monkeypatch: Any) -> None:
    """A failure of one request's choosing (here: a seed that the test plants) is not one of those beside it."""
    one, draw = engine(), sampling.Sampler.__call__

    def broken(sampler: sampling.Sampler, row: torch.Tensor) -> int:
        if sampler.ask.seed == 13:
            raise RuntimeError("no way on")
        return draw(sampler, row)

    monkeypatch.setattr(sampling.Sampler, "__call__", broken)

    async def asked() -> list[Any]:
        planted = Ask((1, 5), NEW, frozenset(), seed=13)
        good = Ask(tuple(PROMPTS[0]), NEW, frozenset(), temperature=0.0, top_logprobs=0)
        return await asyncio.gather(steps(one, good), steps(one, planted), return_exceptions=True)

    answer, failed = asyncio.run(asked())
    assert isinstance(failed, TunewrightError) and "no way on" in str(failed)
    assert tokens(answer) == alone(model(), PROMPTS[0])
    assert one._manager is not None and one._manager.is_running()


def test_an_engine_whose_step_failed_answers_the_next_request(engine: Any, monkeypatch: Any, tmp_path: Path) -> None:
    one = engine()
    one.offer("a", write_adapter(tmp_path / "a", 0))
    forward = one.model.forward
    for _time in range(3):
        monkeypatch.setattr(one.model, "forward", lambda *_args, **_more: 1 / 0)
        with pytest.raises(TunewrightError, match="division by zero"):
            together(steps(one, greedy(PROMPTS[0])))
        monkeypatch.setattr(one.model, "forward", forward)
        [answer] = together(steps(one, greedy(PROMPTS[0])))
        assert tokens(answer) == alone(model(), PROMPTS[0])
    [answer] = together(steps(one, greedy(PROMPTS[0], "a")))
    assert tokens(answer) == alone(with_peft(tmp_path / "a"), PROMPTS[0])


def test_a_client_that_leaves_while_its_adapter_is_read_lets_it_go(engine: Any, tmp_path: Path) -> None:
    one = engine(adapters=1)
    one.offer("a", write_adapter(tmp_path / "a", 0))
    reading, read, hold = threading.Event(), threading.Event(), one.adapters.hold

    def slow(name: str) -> None:
        reading.set()
        read.wait(10)
        hold(name)

    one.adapters.hold = slow

    async def leave() -> None:
        task = asyncio.create_task(steps(one, greedy([1, 5], "a")))
        await asyncio.to_thread(reading.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        read.set()
        async with asyncio.timeout(10):
            while "a" not in one.adapters.loaded or +one.adapters.in_use:
                await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert list(one.adapters.loaded) == ["a"] and not +one.adapters.in_use


def test_an_adapter_that_left_with_its_client_is_missed_by_nobody(engine: Any, tmp_path: Path) -> None:
    """A batch may still hold a request that was cancelled while the batch was made, and whose adapter is gone."""
    one = engine()
    for seed, name in enumerate("ab"):
        one.offer(name, write_adapter(tmp_path / name, seed))
    one.adapters.hold("a")
    for spans, whose in (([("b", 2)], []), ([("a", 1), ("b", 2)], [1.0, 0.0, 0.0]), ([("b", 1), (None, 1)], [])):
        one.adapters.route(spans)
        assert bool(one.adapters.now) == bool(whose)
        if whose:
            assert one.adapters.mask[:, 0].tolist() == whose


@pytest.mark.parametrize("fault", ["damaged", "other base", "dora"])
def test_an_adapter_that_cannot_be_served_is_an_error_that_says_why(fault: str, engine: Any, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", 0)
    if fault == "damaged":
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 50)
    elif fault == "dora":
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": True}))
    else:
        weights = load_file(str(folder / "adapter_model.safetensors"))
        save_file(
            {name: weight.repeat(1, 2) if "lora_A" in name else weight for name, weight in weights.items()},
            str(folder / "adapter_model.safetensors"),
        )
    one = engine()
    one.offer("a", folder)
    with pytest.raises(
        RunError, match={"damaged": "cannot be read", "dora": "use_dora", "other base": "not fit"}[fault]
    ):
        together(steps(one, greedy([1, 5], "a")))
    [answer] = together(steps(one, greedy(PROMPTS[0])))  # and the base goes on
    assert tokens(answer) == alone(model(), PROMPTS[0])


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_an_answer_follows_its_schema_whatever_the_model_would_say(tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(str(tiny_base))
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_base))
    grammars = Grammars(tiny_base, loaded.config.vocab_size)
    one = ContinuousEngine(loaded, 512, 1 << 24, grammars)
    try:
        ask = {"stops": [2], "grammar": from_schema(SCHEMA), "new": 120}
        drawn = Ask((1, 5, 9), 120, frozenset([2]), temperature=1.0, seed=5, grammar=from_schema(SCHEMA))
        answers = together(steps(one, greedy([1, 5], **ask)), steps(one, drawn), steps(one, greedy([1, 7], stops=[2])))
        for answer in answers[:2]:
            assert answer[-1].end == "stop"
            said = json.loads(tokenizer.decode(tokens(answer)[:-1]))
            assert set(said) == {"name", "age"}
            assert 0 <= said["age"] <= 99
    finally:
        one.close()


def test_a_schema_that_cannot_be_followed_is_an_error() -> None:
    with pytest.raises(DataError, match="cannot be followed"):
        from_schema({"type": "nonsense"})
    assert any_object()
