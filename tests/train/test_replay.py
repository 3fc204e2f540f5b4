"""General prompts as the base itself goes on with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import quick, weights

from tunewright import api, rundir
from tunewright.evaluate import questions
from tunewright.example import Origin, Rendered
from tunewright.infer.open import open_base, open_run
from tunewright.infer.transformers import TransformersEngine
from tunewright.recipe.load import load as load_recipe
from tunewright.tasks.chat import ask
from tunewright.train import replay
from tunewright.train import run as story
from tunewright.train.batches import Steps


@pytest.fixture
def asked(home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Answers of the tiny base to the bundled prompts."""

    def make(engine: TransformersEngine | None = None, system: str | None = None) -> Any:
        one = engine or open_base(str(tiny_base))
        return replay.answered(one, one.template, "sha", system, lambda count: None)

    return make


def test_each_prompt_becomes_a_row_of_the_bases_own_answer(asked: Callable[..., Any], tiny_base: Path) -> None:
    engine = open_base(str(tiny_base))
    made = asked(engine)
    assert len(made) == len(replay.prompts()) > 20
    row, prompt = made[0], ask(replay.prompts()[0], engine.template)
    assert row.ids[: len(prompt)].tolist() == prompt and not row.learn[: len(prompt)].any()
    [answer] = engine.generate([prompt], replay.ANSWER_TOKENS)
    assert row.ids[len(prompt) : len(prompt) + len(answer.ids)].tolist() == list(answer.ids)


def test_a_second_time_nothing_is_asked(asked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = asked()
    monkeypatch.setattr(TransformersEngine, "generate", lambda *_what: pytest.fail("the base was asked again"))
    for one, two in zip(first, asked(), strict=True):
        assert np.array_equal(one.ids, two.ids) and np.array_equal(one.learn, two.learn)
        assert torch.equal(one.teacher, two.teacher)


def test_a_damaged_memory_is_made_anew(asked: Callable[..., Any], home: Path) -> None:
    first = asked()
    [path] = (home / "cache" / "answers").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert [row.ids.tolist() for row in asked()] == [row.ids.tolist() for row in first]


def test_a_system_message_opens_every_prompt(asked: Callable[..., Any], tiny_base: Path) -> None:
    template = open_base(str(tiny_base)).template
    assert all("Be brief." in template.decode(row.ids.tolist()) for row in asked(system="Be brief."))


def test_a_general_prompt_is_no_general_question() -> None:
    """What is asked before and after must not have been trained on."""
    asked = [*(one.text for one in questions.questions()), *questions.prompts()[0], *questions.prompts()[1]]
    trained = {prompt.lower() for prompt in replay.prompts()}
    assert not trained & {text.lower() for text in asked}


@pytest.mark.parametrize(("learned", "pull"), [(2, 2 * replay.WEIGHS / 30), (10, 10 * replay.WEIGHS / 30), (90, 8.0)])
def test_a_prompt_weighs_no_more_than_some_training_rows(learned: int, pull: float) -> None:
    rows, general = [row_of(learned - 1), row_of(learned + 1)], [row_of(20), row_of(40)]
    assert replay.pull(rows, general) == pytest.approx(pull)


def row_of(learned: int) -> Rendered:
    return Rendered(np.zeros(50 + learned, np.int32), np.arange(50 + learned) >= 50, Origin("rows", 1, 1))


def test_a_run_pulls_by_what_its_rows_learn(home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulls: set[float] = set()
    monkeypatch.setattr(story, "Steps", lambda *given: pulls.update(row.pull for row in given[5]) or Steps(*given))
    api.train("town.jsonl", quick(tiny_base, "retain=1", "train.max_steps=1"), out="run")
    labels = [{"prompt": f"Is {n} even?", "completion": "yes" if n % 2 == 0 else "no"} for n in range(24)]
    (home / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    api.train("labels.jsonl", quick(tiny_base, "task=chat", "retain=1", "train.max_steps=1"), out="other")
    [few, many] = sorted(pulls)
    assert few < many <= replay.PULL


@pytest.mark.parametrize("targets", ["[all-linear]", "[q_proj, lm_head]"])
def test_holding_to_the_base_keeps_it_nearer(targets: str, home: Path, tiny_base: Path) -> None:
    """The tuned model differs less from its base where the base's answers were part of the training."""
    made = {}
    for share in (0, 2):
        args = quick(tiny_base, f"retain={share}", "train.epochs=6", f"lora.targets={targets}")
        run = api.train("town.jsonl", args, out=f"share-{share}").folder
        made[share] = apart(run, tiny_base)
    assert made[2] < 0.7 * made[0]
    assert weights(home / "share-0") != weights(home / "share-2")


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_each_epoch_says_how_far_the_model_has_moved(method: str, home: Path, tiny_base: Path) -> None:
    args = quick(tiny_base, "train.epochs=3", f"train.method={method}")
    run = api.train("town.jsonl", args, out="run")
    moved = [line["divergence"] for line in rundir.read_lines(run.folder.file("metrics.jsonl")) if "divergence" in line]
    general = run.evaluation["general"]
    assert len(moved) == 2 and moved[0] > 0  # the last epoch is measured in full
    assert general["divergence"]["value"] > 0 and general["watched_divergence"] > 0
    assert "Task against retention, by epoch" in run.folder.file("report.html").read_text(encoding="utf-8")


def test_what_protection_costs_is_said_and_small(home: Path, tiny_base: Path) -> None:
    args = [item for item in quick(tiny_base) if not item.startswith("retain")]
    run = api.train("town.jsonl", args, out="run").folder
    recipe = load_recipe(run.file("recipe.yaml")).recipe
    assert 0 < float(recipe.retain) <= 2
    assert "% work" in run.file("recipe.yaml").read_text(encoding="utf-8")


def apart(run: rundir.RunDir, base: Path) -> float:
    """Mean divergence of a run from its base on general prompts and the base's own answers to them."""
    tuned, plain = (open_run(run, tuned=which).engine for which in (True, False))
    made = replay.answered(plain, plain.template, "sha", None, lambda count: None)
    total, tokens = 0.0, 0
    for row in made[:20]:
        ids, learn = torch.from_numpy(row.ids).long()[None], torch.from_numpy(row.learn)[1:]
        with torch.no_grad():
            one, two = (e.model(ids).logits[0, :-1][learn].float().log_softmax(-1) for e in (tuned, plain))
        total, tokens = total + float((two.exp() * (two - one)).sum()), tokens + row.learned
    return total / tokens
