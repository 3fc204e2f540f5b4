"""Chat training on bases of other shapes, from the file to answers that end, and back from the run's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.shapes import SHAPES, write_base
from tests.tiny import model as tiny_model
from tests.tiny import quick, recipe, rows

from tunewright import api
from tunewright.data.prepare import prepare
from tunewright.data.template import ChatTemplate
from tunewright.example import Message, Rendered
from tunewright.infer.open import open_run
from tunewright.model import adapter
from tunewright.model.fast import kernels
from tunewright.model.forward import HiddenStates
from tunewright.model.loss import summed_loss
from tunewright.recipe.schema import Recipe
from tunewright.rundir import EVALUATION, FINDINGS, METRICS
from tunewright.tasks import TASKS


@pytest.fixture(scope="session")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_base(tmp_path_factory.mktemp(kind) / "base", kind)
        return made[kind]

    return make


def lines(path: Path) -> Iterator[Any]:
    return (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


# An adapter on random weights learns slowly: the embeddings stay what they are.
@pytest.mark.parametrize(("method", "rate", "falls_to"), [("lora", 0.02, 0.95), ("full", 0.005, 0.8)])
@pytest.mark.parametrize("kind", SHAPES)
def test_a_base_of_this_shape_learns_and_opens_as_it_was_trained(
    home: Path, shaped: Callable[[str], Path], kind: str, method: str, rate: float, falls_to: float
) -> None:
    base = shaped(kind)
    more = [f"train.method={method}", f"train.learning_rate={rate}", "train.epochs=6"]
    run = api.train("town.jsonl", quick(base, *more))
    evaluation = json.loads(run.folder.file(EVALUATION).read_text(encoding="utf-8"))
    assert evaluation["after"]["loss"]["value"] < falls_to * evaluation["before"]["loss"]["value"]
    losses = [line["loss"] for line in lines(run.folder.file(METRICS))]
    assert losses[-1] < falls_to * losses[0]

    opened = open_run(run.folder)
    trained_with = TASKS["chat"].codec(base, Recipe())
    asked = [Message("user", "What is the river number 3 called?")]
    assert isinstance(opened.codec, ChatTemplate) and isinstance(trained_with, ChatTemplate)
    assert opened.codec.prompt_ids(asked) == trained_with.prompt_ids(asked)
    assert opened.engine.stops >= set(trained_with.stop_ids)
    assert opened.codec.source == trained_with.source
    if "template" not in SHAPES[kind]:
        said = [line["message"] for line in lines(run.folder.file(FINDINGS)) if line["code"] == "D305"]
        assert any("`plain` is used and saved with the model" in message for message in said)
    again = _scored(opened)
    assert again == pytest.approx(evaluation["after"]["loss"]["value"], rel=1e-4)


def _scored(opened: Any) -> float:
    """Loss a token of the held-out rows, measured anew by the opened run."""
    prepared = prepare(opened.recipe.data, opened.recipe.seed, lambda _labels: opened.codec, 256)
    scores = opened.engine.score(prepared.held_out)
    return sum(score.loss for score in scores) / sum(score.tokens for score in scores)


def test_an_adapter_on_gpt2_reaches_its_transposed_layers(home: Path, shaped: Callable[[str], Path]) -> None:
    run = api.train("town.jsonl", quick(shaped("gpt2"), "train.max_steps=2"))
    with safe_open(run.folder.path / "adapter" / "adapter_model.safetensors", "pt") as stored:
        names = {key.split(".lora_")[0].rpartition("h.")[2].partition(".")[2] for key in stored.keys()}  # noqa: SIM118
    assert {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"} <= names


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "qwen2", "qwen3", "mistral", "granite", "gemma2", "bloom"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_quicker_parts_give_the_gradients_of_the_model_s_own(kind: str, method: str) -> None:
    model = adapter.prepare(tiny_model(kind), recipe(train__method=method))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at birth, which would hide what flows through the other half
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    model.eval()  # no dropout, so that the two are comparable
    batch = rows(5)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = torch.autograd.grad(summed_loss(HiddenStates(model), batch), learned, allow_unused=True)
    with kernels(model):
        ours = torch.autograd.grad(summed_loss(HiddenStates(model), batch), learned, allow_unused=True)
    for left, right in zip(own, ours, strict=True):
        assert (left is None) == (right is None)
        assert left is None or torch.allclose(left, right, rtol=1e-3, atol=1e-4 * float(left.abs().max() + 1))


def test_a_learned_end_counts_although_padding_is_the_same_token() -> None:
    model, made = tiny_model(), rows(4)
    end = model.config.pad_token_id
    ended = [Rendered(np.append(r.ids, np.int32(end)), np.append(r.learn, True), r.origin) for r in made]
    with torch.no_grad():
        states = HiddenStates(model)
        alone = sum(float(summed_loss(states, [row])) for row in ended)
        together, without = float(summed_loss(states, ended)), float(summed_loss(states, made))
    assert together == pytest.approx(alone, rel=1e-5)
    assert together > 1.01 * without


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_prompts", "fewer_questions")
def test_minimind_learns_in_chinese_and_english_and_its_answers_end(home: Path, shared: Path) -> None:
    """A small base with weights in float16 and a template that adds a system message of its own."""
    more = [
        f"base={shared / 'models' / 'minimind2-small'}", "data.variables.name=Wren", "data.variables.author=Harrow",
        "retain=off", "train.epochs=6", "evaluate.rows=9", "checks=[{contains: Wren}]",
    ]  # fmt: skip
    run = api.train(shared / "data" / "identity" / "identity.json", more)
    evaluation = json.loads(run.folder.file(EVALUATION).read_text(encoding="utf-8"))
    before, after = evaluation["before"], evaluation["after"]
    assert after["loss"]["value"] < 0.5 * before["loss"]["value"]
    assert after["stops"]["value"] == 1
    assert after["check: contains: Wren"]["value"] > before["check: contains: Wren"]["value"]
    prompts = "".join(row["prompt"] for row in evaluation["rows"])
    assert prompts.isascii() is False, "none of the questions held out is Chinese"
    assert any(row["prompt"].isascii() for row in evaluation["rows"])
