"""Runs and bases by name: each base in memory once, each run with its own template, stops and adapter."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.encoders import write_encoder
from tests.predicting import labelled, write_rows

from tunewright import api
from tunewright.errors import BaseModelError, RunError
from tunewright.example import Message, Origin, Rendered
from tunewright.infer.fleet import RunFleet
from tunewright.infer.live import Ask, Served
from tunewright.infer.open import Told, open_run
from tunewright.infer.serving import open_fleet
from tunewright.model.source import Base
from tunewright.recipe.load import load
from tunewright.rundir import RunDir

QUESTION = [Message("user", "What is at the harbour?")]


pytestmark = pytest.mark.usefixtures("in_home")


@pytest.fixture
def fleet(tiny_run: Path, tmp_path: Path) -> Iterator[RunFleet]:
    """The tiny run twice, under two names, and its base."""
    twin = tmp_path / "twin"
    shutil.copytree(tiny_run, twin)
    opened = open_fleet([RunDir(tiny_run), RunDir(twin)])
    yield opened
    asyncio.run(opened.close())


async def said(served: Served, new: int = 12) -> list[int]:
    ask = Ask(tuple(served.codec.prompt_ids(QUESTION)), new, served.stops, served.adapter, temperature=0.0)  # type: ignore[attr-defined]
    return [step.token async for step in served.engine.answer(ask) if step.end != "stop"]


def test_runs_and_then_their_base_can_be_asked_for(fleet: RunFleet, tiny_run: Path) -> None:
    assert [(card.name, card.gives) for card in fleet.cards()] == [
        (tiny_run.name, "answers"), ("twin", "answers"), (fleet.cards()[-1].base.rpartition("/")[2], "answers"),
    ]  # fmt: skip


def test_a_card_says_whether_its_model_chats(fleet: RunFleet, tiny_run: Path, tmp_path: Path) -> None:
    """Before a weight is read: what is shown for it must not name a path that refuses it."""
    (tmp_path / "reader").mkdir()
    fleet.add_base(str(write_encoder(tmp_path / "reader")))
    (tmp_path / "pages.txt").write_text("\n\n".join(f"# Page {n}\n\nThe river rises in the hills." for n in range(40)))
    base = load(tiny_run / "recipe.yaml").recipe.base
    settings = ["task=pretrain", f"base={base}", "train.max_steps=1", "data.max_length=64"]
    made = api.train(str(tmp_path / "pages.txt"), settings, out=tmp_path / "pages")
    fleet.add_run(made.folder)
    chats = {card.name: card.chats for card in fleet.cards()}
    assert chats.pop("reader") is chats.pop("pages") is False
    assert all(chats.values()) and len(chats) == 3
    for card in fleet.cards():
        assert asyncio.run(fleet.get(card.name)).chats == card.chats


def test_two_bases_in_folders_of_one_name_are_told_apart(fleet: RunFleet, tiny_base: Path, tmp_path: Path) -> None:
    for number in range(2):
        other = tmp_path / str(number) / fleet.cards()[-1].name
        shutil.copytree(tiny_base, other)
        (other / "config.json").write_text((other / "config.json").read_text() + "\n" * (number + 1))
        fleet.add_base(str(other))
        fleet.add_base(str(other))
    names = [card.name for card in fleet.cards()[2:]]
    assert len(set(names)) == 3 and all(name.startswith(names[0]) for name in names)


def test_a_base_with_the_name_of_a_run_is_refused(fleet: RunFleet, tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    shutil.copytree(tiny_base, tmp_path / "bases" / "twin")
    config = tmp_path / "bases" / "twin" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(RunError, match="two models are called twin"):
        fleet.add_base(str(tmp_path / "bases" / "twin"))


def test_all_of_them_share_one_base(fleet: RunFleet) -> None:
    async def engines() -> list[Any]:
        return [served.engine for served in await asyncio.gather(*(fleet.get(c.name) for c in fleet.cards()))]

    first, *others = asyncio.run(engines())
    assert all(engine is first for engine in others)


def test_a_run_answers_as_it_does_when_it_is_opened_alone(fleet: RunFleet, tiny_run: Path) -> None:
    async def both() -> tuple[list[int], list[int]]:
        tuned, base = await fleet.get(tiny_run.name), await fleet.get(fleet.cards()[-1].name)
        return await said(tuned), await said(base)

    tuned, base = asyncio.run(both())
    opened = open_run(RunDir(tiny_run))
    [alone] = opened.engine.generate([opened.engine.template.prompt_ids(QUESTION)], 12)
    assert tuned == list(alone.ids)
    assert base != tuned


def test_a_run_that_trained_its_weights_has_its_own_engine(fleet: RunFleet, tiny_run: Path, tmp_path: Path) -> None:
    """The same words of its base are not its words."""
    from tests.tiny import quick, write_chats

    full = api.train(str(write_chats(tmp_path / "t.jsonl")), quick_full(tiny_run, quick), out=tmp_path / "full")
    fleet.add_run(full.folder)

    async def asked() -> tuple[bool, list[int]]:
        served, other = await fleet.get("full"), await fleet.get(tiny_run.name)
        return served.engine is other.engine, await said(served)

    shared, answer = asyncio.run(asked())
    opened = open_run(full.folder)
    assert not shared
    assert answer == list(opened.engine.generate([opened.engine.template.prompt_ids(QUESTION)], 12)[0].ids)


def quick_full(run: Path, quick: Any) -> list[str]:
    return [*quick(Path(load(run / "recipe.yaml").recipe.base)), "train.method=full"]


def test_runs_of_labels_on_one_base_share_its_weights(tmp_path: Path) -> None:
    """And say what they said alone: a weight is shared only where it is the same number for number."""
    (tmp_path / "base").mkdir()
    write_encoder(tmp_path / "base")
    write_rows(tmp_path / "texts.jsonl", labelled(64))
    settings = ["task=classify", "classify.head=linear", f"base={tmp_path / 'base'}", "train.epochs=1"]
    settings += ["train.keep=last", "train.precision=fp32", "data.held_out=8"]
    rates = {"slow": "0.001", "quick": "0.02"}
    for name, rate in rates.items():
        api.train(str(tmp_path / "texts.jsonl"), [*settings, f"train.learning_rate={rate}"], out=tmp_path / name)
    fleet = open_fleet([RunDir(tmp_path / name) for name in rates])

    async def opened() -> list[Any]:
        return [(await fleet.get(name)).engine for name in rates]

    engines = asyncio.run(opened())
    places = [{weight.data_ptr() for weight in engine.model.parameters()} for engine in engines]
    assert len(places[0] & places[1]) > 0.5 * len(places[0])
    said = [engine.probabilities(probe(engine)) for engine in engines]
    for name, found in zip(rates, said, strict=True):
        alone = open_run(RunDir(tmp_path / name)).engine
        assert np.array_equal(found, alone.probabilities(probe(alone)))
    assert not np.array_equal(*said)


def probe(engine: Any) -> list[Rendered]:
    """A text's ids and the label's number behind them, as ``tasks/classify.py`` writes a row."""
    ids = np.array([2, 40, 41, 42, 43, 3, 0], dtype=np.int32)
    return [Rendered(ids, np.arange(7) == 6, Origin("probe", 1, 0))]


# -- clients that leave while a model is loaded ----------------------------------------------------------------------


class Slow:
    """Engines that take a while to be read. fails: so often before the first is made.  open: made and not closed."""

    name = "slow"

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.made = self.open = 0

    def of_base(self, base: Base, precision: str | None) -> Any:
        raise NotImplementedError

    def of_run(self, run: RunDir, told: Told) -> Any:
        time.sleep(0.3)
        if self.fails:
            self.fails -= 1
            raise RunError("it cannot be read")
        self.made += 1
        self.open += 1
        return self

    def close(self) -> None:
        self.open -= 1


async def left(fleet: RunFleet, name: str) -> None:
    """A request for a model whose client leaves before it is loaded."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fleet.get(name), 0.05)


def test_a_model_whose_clients_leave_while_it_is_loaded_is_loaded_once(tiny_run: Path) -> None:
    slow = Slow()
    fleet = open_fleet([RunDir(tiny_run)], with_bases=False, engines=slow)

    async def asked() -> list[Served]:
        for _client in range(3):
            await left(fleet, tiny_run.name)
        found = list(await asyncio.gather(fleet.get(tiny_run.name), fleet.get(tiny_run.name)))
        await fleet.close()
        return found

    first, second = asyncio.run(asked())
    assert first is second and (slow.made, slow.open) == (1, 0)


def test_a_model_that_could_not_be_loaded_is_tried_again(tiny_run: Path) -> None:
    slow = Slow(fails=1)
    fleet = open_fleet([RunDir(tiny_run)], with_bases=False, engines=slow)

    async def asked() -> Served:
        await left(fleet, tiny_run.name)
        with pytest.raises(RunError, match="cannot be read"):
            await fleet.get(tiny_run.name)
        return await fleet.get(tiny_run.name)

    assert asyncio.run(asked()).engine is slow and slow.made == 1


def test_a_fleet_that_is_closed_while_it_loads_keeps_nothing(tiny_run: Path) -> None:
    slow = Slow()
    fleet = open_fleet([RunDir(tiny_run)], with_bases=False, engines=slow)

    async def asked() -> None:
        await left(fleet, tiny_run.name)
        await fleet.close()
        assert (slow.made, slow.open) == (1, 0)

    asyncio.run(asked())


def test_a_changed_base_is_refused_before_any_weight_is_read(tiny_run: Path, tmp_path: Path) -> None:
    from tunewright import rundir

    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    manifest = rundir.read_json(copy / "manifest.json")
    manifest["base"]["sha256"] = "0" * 64
    rundir.write_json(copy / "manifest.json", manifest)
    with pytest.raises(BaseModelError, match="not the one this run was trained on"):
        open_fleet([RunDir(copy)])


def test_two_runs_of_one_name_are_an_error(tiny_run: Path) -> None:
    with pytest.raises(RunError, match="two models are called"):
        open_fleet([RunDir(tiny_run), RunDir(tiny_run)])


def test_a_name_that_nobody_has_is_a_key_error(fleet: RunFleet) -> None:
    with pytest.raises(KeyError):
        asyncio.run(fleet.get("nobody"))
