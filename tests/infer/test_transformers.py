"""The engine: batched, streamed and scored answers are those of one plain loop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import environment, model, rows
from torch.nn import functional

from tunewright.data.template import ChatTemplate
from tunewright.example import Chat, Message, Origin
from tunewright.infer.open import open_base, open_run
from tunewright.infer.transformers import TransformersEngine
from tunewright.rundir import RunDir

PROMPTS = [[1, 5, 9], [1, 50, 60, 70, 80, 7, 7], [1], [1, 20, 30, 40, 50, 60, 61, 62, 63, 64, 65, 66], [1, 90, 3]]
NEW = 12


def engine(base: Path, stops: list[int], pad: int = 0, kind: str = "llama") -> TransformersEngine:
    return TransformersEngine(model(kind), ChatTemplate.from_folder(base), {"eos_token_id": stops, "pad_token_id": pad})


def plain(one: TransformersEngine, prompt: list[int], stops: set[int]) -> tuple[list[int], bool]:
    """Greedy, one token after the other, the whole text through the model each time."""
    ids = list(prompt)
    for _step in range(NEW):
        with torch.no_grad():
            token = int(one.model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in stops:
            return ids[len(prompt) :], True
        ids.append(token)
    return ids[len(prompt) :], False


def some_stops(base: Path) -> list[int]:
    """Tokens that this model really says in the midst of its answers, so that stopping is seen."""
    one = engine(base, [99])
    said = [plain(one, prompt, set())[0] for prompt in PROMPTS]
    return sorted({said[0][3], said[1][6]})


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_batch_answers_as_each_prompt_alone(kind: str, tiny_base: Path) -> None:
    one = engine(tiny_base, [99], kind=kind)
    for prompt, answer in zip(PROMPTS, one.generate(PROMPTS, NEW), strict=True):
        ids, stopped = plain(one, prompt, {99})
        assert (list(answer.ids), answer.stopped) == (ids, stopped)


def test_each_of_several_stop_ids_ends_an_answer_and_is_no_part_of_it(tiny_base: Path) -> None:
    stops = some_stops(tiny_base)
    one = engine(tiny_base, stops)
    found = one.generate(PROMPTS, NEW)
    assert any(a.stopped for a in found)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids, stopped = plain(one, prompt, set(stops))
        assert (list(answer.ids), answer.stopped) == (ids, stopped)


def test_padding_that_equals_a_stop_id_hides_nothing(tiny_base: Path) -> None:
    stops = some_stops(tiny_base)
    one = engine(tiny_base, stops, pad=stops[0])
    for prompt, answer in zip(PROMPTS, one.generate(PROMPTS, NEW), strict=True):
        ids, stopped = plain(one, prompt, set(stops))
        assert (list(answer.ids), answer.stopped) == (ids, stopped)


def test_a_prompt_that_holds_stop_and_pad_tokens_is_read_whole(tiny_base: Path) -> None:
    """As every conversation of several turns does."""
    one = engine(tiny_base, [2], pad=0)
    prompts = [[1, 5, 2, 0, 2, 9], [1, 7]]
    for prompt, answer in zip(prompts, one.generate(prompts, NEW), strict=True):
        ids, stopped = plain(one, prompt, {2})
        assert (list(answer.ids), answer.stopped) == (ids, stopped)


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_a_streamed_answer_is_the_generated_one(index: int, tiny_base: Path) -> None:
    one = engine(tiny_base, some_stops(tiny_base))
    [answer] = one.generate([PROMPTS[index]], NEW)
    pieces = list(one.stream(PROMPTS[index], NEW))
    assert "".join(pieces).strip() == answer.text


def test_what_a_base_says_about_sampling_changes_no_measurement(tiny_base: Path) -> None:
    """A generation config with a penalty or sampling of its own must not reach greedy answers."""
    expected = engine(tiny_base, [99]).generate(PROMPTS, NEW)
    made = model()
    config = made.generation_config
    config.repetition_penalty, config.no_repeat_ngram_size, config.min_new_tokens = 5.0, 1, 3
    config.do_sample, config.temperature, config.top_k, config.bad_words_ids = True, 3.0, 3, [[expected[0].ids[0]]]
    one = TransformersEngine(made, ChatTemplate.from_folder(tiny_base), {"eos_token_id": [99], "pad_token_id": 0})
    assert one.generate(PROMPTS, NEW) == expected


def test_half_a_character_is_shown_when_it_is_whole(tiny_base: Path) -> None:
    one = engine(tiny_base, [599])
    ids = _ids_of(one.template, "你好 x")
    one.model = _Says(ids, 599)  # type: ignore[assignment]
    pieces = list(one.stream([1], 50))
    assert "".join(pieces) == "你好 x" and all("\ufffd" not in piece for piece in pieces)


def _ids_of(template: ChatTemplate, text: str) -> list[int]:
    [row] = template.render(Chat((Message("user", "a"), Message("assistant", text, learn=True)), Origin("x", 1, 1)))
    return [int(i) for i in row.ids[row.learn]][:-1]


class _Says:
    """Says given tokens, whatever it is asked."""

    device = torch.device("cpu")

    def __init__(self, ids: list[int], stop: int) -> None:
        self.left = [*ids, stop]

    def eval(self) -> None:
        pass

    def __call__(self, **_more: Any) -> Any:
        logits = torch.zeros(1, 1, 600)
        logits[0, 0, self.left.pop(0)] = 1.0

        class Out:
            past_key_values = None

        Out.logits = logits  # type: ignore[attr-defined]
        return Out


def test_nothing_to_answer_is_no_error(tiny_base: Path) -> None:
    assert engine(tiny_base, [2]).generate([], NEW) == [] and engine(tiny_base, [2]).score([]) == []


def test_progress_counts_every_item(tiny_base: Path) -> None:
    counted: list[int] = []
    one = engine(tiny_base, [2])
    one.generate(PROMPTS * 4, NEW, counted.append)
    assert sum(counted) == 20
    counted.clear()
    one.score(rows(7), counted.append)
    assert sum(counted) == 7


@pytest.mark.parametrize("kind", ["llama", "gpt2", "granite", "gemma2"])
@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_scores_are_those_of_plain_code(kind: str, budget: int, tiny_base: Path) -> None:
    one = engine(tiny_base, [2], kind=kind)
    one.token_budget = budget
    given = rows(7)
    for row, score in zip(given, one.score(given), strict=True):
        ids, learn = torch.from_numpy(row.ids).long(), torch.from_numpy(row.learn)[1:]
        with torch.no_grad():
            logits = one.model(input_ids=ids[None]).logits[0, :-1][learn]
        plain = functional.cross_entropy(logits, ids[1:][learn], reduction="sum")
        assert score.loss == pytest.approx(float(plain), rel=1e-5)
        assert score.correct == int((logits.argmax(1) == ids[1:][learn]).sum())
        assert score.tokens == row.learned == len(logits)


@pytest.mark.parametrize(("temperature", "top_p", "distinct"), [(0.0, 1.0, 1), (2.0, 1e-6, 1), (2.0, 1.0, 2)])
def test_temperature_and_nucleus(temperature: float, top_p: float, distinct: int, tiny_base: Path) -> None:
    one = engine(tiny_base, [99])
    torch.manual_seed(0)
    answers = {"".join(one.stream(PROMPTS[0], NEW, temperature, top_p)) for _try in range(4)}
    assert len(answers) >= distinct and (distinct > 1 or len(answers) == 1)


# ---- a run's own engine ------------------------------------------------------------------------------------------


PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, question = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
turns = [{"role": "user", "content": question}]
text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
stops = json.load(open(adapter + "/generation_config.json"))["eos_token_id"]
asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
out = model.generate(**asked, max_new_tokens=16, do_sample=False, eos_token_id=stops)
print(json.dumps([ids[0].tolist(), tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip()]))
"""


def test_an_adapter_answers_the_same_in_plain_peft(tiny_run: Path, tiny_base: Path, in_home: Path) -> None:
    question = "What is the river number 0 called?"
    one = open_run(RunDir(tiny_run)).engine
    prompt = one.template.prompt_ids([Message("user", question)])
    [answer] = one.generate([prompt], 16)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tiny_base), str(tiny_run / "adapter"), question],
        capture_output=True, text=True, env=environment(in_home / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [prompt, answer.text]
    assert answer.text


def test_the_tuned_engine_is_not_the_base(tiny_run: Path, tiny_base: Path, in_home: Path) -> None:
    ids, run = torch.tensor([[1, 5, 9]]), RunDir(tiny_run)
    with torch.no_grad():
        tuned, untuned, base = (
            engine.model(ids).logits
            for engine in (open_run(run).engine, open_run(run, tuned=False).engine, open_base(str(tiny_base)))
        )
    assert not torch.allclose(tuned, untuned, atol=1e-2)
    torch.testing.assert_close(untuned, base.to(untuned.dtype), rtol=0.1, atol=0.1)


def test_the_template_is_the_runs_own_even_if_the_base_has_changed_it(tiny_run: Path, home: Path) -> None:
    run = Path(shutil.copytree(tiny_run, home / "copy"))
    path = run / "adapter" / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "helper"))
    one = open_run(RunDir(run)).engine
    assert "helper" in one.template.decode(one.template.prompt_ids([Message("user", "x")]))
