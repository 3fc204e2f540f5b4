"""How much of an adapter is kept: what is looked at, what is chosen, and what the run folder then holds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import quick, rows, write_chats

from tunewright import api
from tunewright.errors import RecipeError
from tunewright.recipe.load import load
from tunewright.rundir import RunDir
from tunewright.train import settle
from tunewright.train.choose import SETTLE_COST, SIZES
from tunewright.train.settle import LEAST_LEARNED, NEAR, _lowest, price, sample


def parabola(lowest: float, bend: float) -> list[tuple[float, float]]:
    return [(size, 1 + bend * (size - lowest) ** 2) for size in SIZES]


@pytest.mark.parametrize(("lowest", "kept"), [(0.8, 0.8), (0.73, 0.73), (0.956, 0.96), (0.4, 0.6), (1.3, 1.0)])
def test_the_lowest_price_between_the_sizes_looked_at_is_taken(lowest: float, kept: float) -> None:
    assert _lowest(parabola(lowest, 2.0)) == kept


def test_prices_that_bend_the_other_way_or_are_no_numbers() -> None:
    assert _lowest([(1.0, 3.0), (0.8, 4.0), (0.6, 2.0)]) == 0.6
    assert _lowest([(1.0, 2.0), (0.8, 2.0), (0.6, 2.0)]) == 1.0
    for bad in (math.nan, math.inf):
        assert _lowest([(1.0, 3.0), (0.8, bad), (0.6, 2.0)]) == 1.0


def test_a_task_whose_loss_is_low_keeps_its_last_steps() -> None:
    """Losses of training rows at the three sizes, and the divergence, as trainings have shown them."""
    seen = {
        "identity, 3 epochs": ((1.006597, 1.091585, 1.256681), 0.1668),
        "identity, 5 epochs": ((0.6578, 0.7596, 1.0357), 0.1434),
        "medical reasoning": ((2.3592, 2.4472, 2.5769), 0.0840),
    }
    kept = {
        name: _lowest([(size, price(loss, far * size**2)) for size, loss in zip(SIZES, losses, strict=True)])
        for name, (losses, far) in seen.items()
    }
    assert kept == {"identity, 3 epochs": 1.0, "identity, 5 epochs": 1.0, "medical reasoning": 0.73}
    assert math.isnan(price(0.0, 0.1)) and _lowest([(1.0, 1.0), (0.8, math.nan), (0.6, math.nan)]) == 1.0


def test_what_is_looked_at_costs_a_share_of_what_was_trained() -> None:
    given = rows(200)
    trained = 5 * sum(row.length for row in given)
    found = sample(given, trained, seed=0)
    assert 1 < len(found) < 64 and sum(row.length for row in found) <= SETTLE_COST * trained
    assert sample(given, trained, seed=0) == found != sample(given, trained, seed=1)
    few = sample(given, 1, seed=0)  # however little was trained
    assert LEAST_LEARNED <= sum(row.learned for row in few) < LEAST_LEARNED + 40
    assert len(sample(given, 10**9, seed=0)) == 64


def trained(base: Path, folder: Path, *more: str) -> RunDir:
    write_chats(folder / "town.jsonl", 80)
    args = quick(base, "retain=0.5", "train.epochs=3", *more)
    return api.train(str(folder / "town.jsonl"), args, out=folder / "run").folder


def adapters(run: RunDir) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """As it was after the last step, and as the run ends with it."""
    last = max(run.checkpoints.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
    return tuple(load_file(folder / "adapter_model.safetensors") for folder in (last, run.file("adapter")))  # type: ignore[return-value]


@pytest.mark.usefixtures("home", "fewer_prompts", "fewer_questions")
def test_an_adapter_is_kept_as_large_as_the_two_losses_say(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "NEAR", 0.0)  # a model this small does not get far
    run = trained(tiny_base, tmp_path)
    settled = run.manifest()["settled"]
    size, looks = settled["size"], settled["looks"]
    assert [look["size"] for look in looks] == list(SIZES) and 0.6 <= size <= 1
    whole = settled["divergence"]
    assert size == _lowest([(one["size"], price(one["loss"], whole * one["size"] ** 2)) for one in looks])
    before, after = adapters(run)
    for name, values in before.items():
        assert torch.equal(after[name], values * size if "lora_B" in name else values), name
    # The last epoch is told as it was trained; what was measured is what is kept.
    lines = [line for line in run.file("metrics.jsonl").read_text().splitlines() if "held_out_loss" in line]
    assert len(lines) == 3
    far = run.read("evaluation.json")["general"]["watched_divergence"]
    assert json.loads(lines[-1])["divergence"] == pytest.approx(whole, abs=1e-6)
    assert 0 < far <= whole + 1e-6
    assert f"Settled after training: {size:.0%} of the adapter is kept" in run.file("report.html").read_text()
    assert api.train(run.file("recipe.yaml"), out=tmp_path / "again").folder.manifest()["settled"] == settled


@pytest.mark.usefixtures("home", "fewer_prompts", "fewer_questions")
def test_the_best_epoch_is_settled_from_where_it_stood(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "NEAR", 0.0)
    run = trained(tiny_base, tmp_path, "train.keep=best", "data.held_out=40")
    settled = run.manifest()["settled"]
    lines = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    stood = [line for line in lines if "divergence" in line]
    best = min(stood, key=lambda line: line["held_out_loss"] + line["divergence"])
    assert settled["divergence"] == pytest.approx(best["divergence"], abs=1e-6)


@pytest.mark.usefixtures("home", "fewer_prompts", "fewer_questions")
def test_a_model_that_has_hardly_moved_is_left_alone(tiny_base: Path, tmp_path: Path) -> None:
    run = trained(tiny_base, tmp_path, "train.learning_rate=1e-4")
    settled = run.manifest()["settled"]
    assert settled["size"] == 1 and not settled["looks"] and 0 < settled["divergence"] < NEAR
    before, after = adapters(run)
    assert all(torch.equal(values, after[name]) for name, values in before.items())


@pytest.mark.usefixtures("home", "fewer_prompts", "fewer_questions")
@pytest.mark.parametrize("more", ["lora.settle=false", "retain=off"])
def test_an_adapter_is_left_alone(tiny_base: Path, tmp_path: Path, more: str) -> None:
    run = trained(tiny_base, tmp_path, more)
    before, after = adapters(run)
    assert all(torch.equal(values, after[name]) for name, values in before.items())
    assert "settled" not in run.manifest() and load(run.file("recipe.yaml")).recipe.lora.settle is False


def test_the_key_is_for_adapters_of_chats(tmp_path: Path) -> None:
    for other in ("task=classify", "train.method=full"):
        with pytest.raises(RecipeError, match=r"lora\.settle"):
            load(str(write_chats(tmp_path / "town.jsonl")), [other, "lora.settle=true"])
