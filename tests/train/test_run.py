"""A whole run on a tiny base: what its folder holds, that it can be had again, and every method."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import quick, sha256, weights, write_chats

from tunewright import api, rundir
from tunewright.errors import BaseModelError, DataError, RecipeError, ResourceError, RunError, TunewrightError
from tunewright.infer.open import open_run
from tunewright.recipe.keys import keys
from tunewright.recipe.load import load
from tunewright.rundir import RunDir
from tunewright.train import run as story
from tunewright.train.events import Listener


def train(base: Path, *overrides: str, out: str = "run", source: str | Path = "town.jsonl") -> Path:
    return api.train(source, quick(base, *overrides), out=out).folder.path


def read(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text(encoding="utf-8"))


# ---- the folder --------------------------------------------------------------------------------------------------


def test_every_promised_file_is_there_and_no_other(tiny_run: Path) -> None:
    there = {path.name for path in tiny_run.iterdir()}
    assert there == set(rundir.FILES) - {rundir.MODEL, rundir.CONFUSION, rundir.VERIFY, rundir.EXPORT} | {".lock"}


def test_nothing_half_written_is_left(tiny_run: Path) -> None:
    assert [p for p in tiny_run.rglob(".*") if p.name != ".lock"] == []


def test_status_says_that_it_is_done(tiny_run: Path) -> None:
    status = read(tiny_run, rundir.STATUS)
    assert status["state"] == "done" and status["step"] == status["steps"] == 75


def test_manifest_names_versions_hashes_seed_and_hardware(tiny_run: Path, tiny_base: Path) -> None:
    manifest = read(tiny_run, rundir.MANIFEST)
    assert manifest["base"]["files"]["model.safetensors"] == sha256(tiny_base / "model.safetensors")
    assert manifest["data"][0]["sha256"] == sha256(tiny_run.parents[1] / "town.jsonl")
    assert manifest["data"][0]["rows"] == 24 and manifest["seed"] == 0
    assert {"python", "torch", "transformers", "peft"} <= set(manifest["versions"])
    assert {"machine", "threads", "device"} <= set(manifest["hardware"])
    assert all(len(manifest[name]) == 64 for name in ("data_sha256", "template_sha256", "recipe_sha256"))


def test_ledger_adds_up(tiny_run: Path) -> None:
    ledger = read(tiny_run, rundir.LEDGER)
    assert ledger["rows_in"] == 24 == ledger["kept"] + sum(ledger["left_out"].values())
    assert ledger["train"] + ledger["held_out"] == ledger["kept"] and ledger["held_out"] == 4


def test_evaluation_has_the_promised_shape(tiny_run: Path) -> None:
    evaluation = read(tiny_run, rundir.EVALUATION)
    assert evaluation["verdict"] and isinstance(evaluation["verdict"], str)
    assert set(evaluation["before"]) == set(evaluation["after"]) != set()
    for side in ("before", "after"):
        assert all({"value", "low", "high"} <= set(metric) for metric in evaluation[side].values())
    assert len(evaluation["rows"]) == 2 and {"prompt", "reference", "before", "after"} <= set(evaluation["rows"][0])


def test_a_training_that_taught_something_says_so(tiny_run: Path) -> None:
    evaluation = read(tiny_run, rundir.EVALUATION)
    assert evaluation["after"]["loss"]["value"] < 0.9 * evaluation["before"]["loss"]["value"]
    assert evaluation["verdict"].startswith("Better")


def test_the_recipe_has_no_auto_left_and_a_source_for_every_value(tiny_run: Path) -> None:
    text = (tiny_run / rundir.RECIPE).read_text()
    auto = [key.name for key in keys().values() if key.name in ("auto",)]
    assert auto == [] and ": auto " not in text.replace("format: auto ", "")
    for line in text.splitlines():
        if ":" in line and not line.startswith("#") and not line.rstrip().endswith(":"):
            assert "# " in line, line
    assert "# chosen: " in text and "# command line" in text and "# default" in text


def test_three_examples_are_shown_with_brackets(tiny_run: Path) -> None:
    text = (tiny_run / rundir.SHOWN).read_text(encoding="utf-8")
    assert text.count("town.jsonl:") == 3 and text.count("⟦") == text.count("⟧") == 3


def test_plan_holds_what_was_foreseen_and_what_was_measured(tiny_run: Path) -> None:
    plan = read(tiny_run, rundir.PLAN)
    assert plan["foreseen"]["memory_bytes"] > 0 and plan["foreseen"]["seconds"] > 0
    assert plan["measured"]["memory_bytes"] > 0 and plan["measured"]["seconds"] > 0


# ---- the same again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_its_own_recipe_gives_the_same_bytes_again(method: str, home: Path, tiny_base: Path) -> None:
    first = train(tiny_base, f"train.method={method}", "retain=0.2")
    again = api.train(first / rundir.RECIPE, out="again").folder.path
    assert weights(again) == weights(first)
    one, two = ((run / rundir.RECIPE).read_text().splitlines() for run in (first, again))
    assert [line.split("#")[0] for line in one] == [line.split("#")[0] for line in two]


def test_the_adapter_has_the_same_bytes_in_every_file(home: Path, tiny_base: Path) -> None:
    runs = [train(tiny_base, out=out) for out in ("one", "two")]
    files = [{p.name: sha256(p) for p in (run / "adapter").iterdir()} for run in runs]
    assert files[0] == files[1]


def test_another_seed_gives_another_adapter(home: Path, tiny_base: Path) -> None:
    assert weights(train(tiny_base, out="one")) != weights(train(tiny_base, "seed=1", out="two"))


def test_the_token_budget_changes_only_rounding(home: Path, tiny_base: Path) -> None:
    ends = []
    for budget in (30, 4000):
        run = train(tiny_base, f"train.token_budget={budget}", out=str(budget))
        ends.append([line["loss"] for line in rundir.read_lines(run / rundir.METRICS)])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


# ---- methods and precision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_every_method_learns_in_every_precision(method: str, precision: str, home: Path, tiny_base: Path) -> None:
    run = train(tiny_base, f"train.method={method}", f"train.precision={precision}", "train.epochs=6")
    evaluation = read(run, rundir.EVALUATION)
    assert evaluation["after"]["loss"]["value"] < 0.9 * evaluation["before"]["loss"]["value"]
    assert (run / "adapter").is_dir() is (method == "lora") and (run / "model").is_dir() is (method != "lora")


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_a_whole_model_is_loaded_by_plain_transformers(method: str, home: Path, tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = train(tiny_base, f"train.method={method}", "train.epochs=6")
    engine = open_run(RunDir(run)).engine
    prompt = engine.template.prompt_ids(load_chat("Who are you?"))
    model = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32).eval()
    assert AutoTokenizer.from_pretrained(run / "model").chat_template
    with torch.no_grad():
        theirs, ours = model(torch.tensor([prompt])).logits, engine.model(torch.tensor([prompt])).logits
    torch.testing.assert_close(theirs, ours)


def load_chat(text: str) -> Any:
    from tunewright.example import Message

    return [Message("user", text)]


def test_frozen_layers_stay_as_they_were(home: Path, tiny_base: Path) -> None:
    from safetensors.torch import load_file

    run = train(tiny_base, "train.method=freeze", "freeze.layers=1")
    before, after = load_file(tiny_base / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name].to(before[name].dtype))}
    assert changed and all("layers.1." in name or name == "model.norm.weight" for name in changed)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_nothing_learned_is_said_plainly(method: str, home: Path, tiny_base: Path) -> None:
    run = train(tiny_base, f"train.method={method}", "train.learning_rate=1e-9")
    assert "Nothing was learned" in read(run, rundir.EVALUATION)["verdict"]


# ---- what is refused, and leaves nothing behind ------------------------------------------------------------------


BAD: dict[str, tuple[list[str], type[TunewrightError], str]] = {
    "a misspelt key": (["train.epoch=2"], RecipeError, "epoch"),
    "a key of another method": (["train.method=full", "lora.rank=2"], RecipeError, "lora.rank"),
    "a target that is not there": (["lora.targets=[query]"], RecipeError, "query"),
    "too many layers": (["train.method=freeze", "freeze.layers=9"], RecipeError, "freeze.layers"),
    "no such base": (["base=/no/such/folder"], BaseModelError, "base"),
    "longer than the base": (["data.max_length=9999"], DataError, "max_length"),
    "rows too long": (["data.max_length=10"], DataError, "tokens"),
    "a held-out file that is not there": (["data.validation=no.jsonl"], DataError, "no.jsonl"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_refused_leaves_no_run_behind(kind: str, home: Path, tiny_base: Path) -> None:
    overrides, error, text = BAD[kind]
    with pytest.raises(error, match=text):
        api.train("town.jsonl", quick(tiny_base, *overrides))
    assert not (home / "runs").exists()


def test_few_rows_leave_no_run_behind(home: Path, tiny_base: Path) -> None:
    write_chats(home / "few.jsonl", 5)
    with pytest.raises(DataError):
        train(tiny_base, source="few.jsonl")
    assert not (home / "run").exists()


def test_a_folder_that_exists_is_refused_before_anything_is_read(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "run").mkdir()
    (home / "run" / "mine.txt").write_text("mine")
    told: list[str] = []

    class Ear(Listener):
        def say(self, text: str) -> None:
            told.append(text)

    with pytest.raises(RunError, match="exists already"):
        api.train("town.jsonl", quick(tiny_base), out="run", listener=Ear())
    assert [p.name for p in (home / "run").iterdir()] == ["mine.txt"] and told == []


@pytest.mark.parametrize("out", ["town.jsonl/run", "below/" + "x" * 300])
def test_a_folder_that_cannot_be_made_is_refused_before_a_base_is_fetched(
    home: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "get_fitting", lambda *_given: pytest.fail("the base was fetched"))
    with pytest.raises(ResourceError, match="cannot write"):
        api.train("town.jsonl", out=out)
    assert not (home / "below").exists()


def test_runs_are_numbered(home: Path, tiny_base: Path) -> None:
    for number in (1, 2):
        run = api.train("town.jsonl", quick(tiny_base, "train.max_steps=1")).folder.path
        assert run == Path("runs") / f"town-{number}"
    assert rundir.find().path.resolve() == run.resolve()
    named = api.train("town.jsonl", quick(tiny_base, "train.max_steps=1", "name=a b/c")).folder.path
    assert named == Path("runs/a-b-c-1")


# ---- what a run is opened with -----------------------------------------------------------------------------------


def copied(run: Path, home: Path) -> RunDir:
    shutil.copytree(run, home / "copy")
    return RunDir(home / "copy")


def test_an_adapter_of_another_base_is_refused(tiny_run: Path, home: Path, tiny_base: Path) -> None:
    run = copied(tiny_run, home)
    other = shutil.copytree(tiny_base, home / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    recipe = (run.path / rundir.RECIPE).read_text()
    (run.path / rundir.RECIPE).write_text(recipe.replace(str(tiny_base), str(other)))
    with pytest.raises(BaseModelError, match="not the one this run was trained on"):
        open_run(run)


def test_a_damaged_adapter_is_an_error_and_no_traceback(tiny_run: Path, home: Path) -> None:
    run = copied(tiny_run, home)
    path = run.path / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match="cannot be read"):
        open_run(run)


def test_a_run_without_weights_says_how_to_go_on(tiny_run: Path, home: Path) -> None:
    run = copied(tiny_run, home)
    shutil.rmtree(run.path / "adapter")
    with pytest.raises(RunError, match="tunewright resume"):
        open_run(run)


def test_a_run_is_opened_from_anywhere(home: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Its base and its data were given as relative paths."""
    shutil.copytree(tiny_base, home / "base")
    run = api.train("town.jsonl", quick(Path("base")), out="run").folder.path.resolve()
    assert load(run / rundir.RECIPE).recipe.base == str((home / "base").resolve())
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    open_run(RunDir(run))


# ---- the adapter elsewhere ---------------------------------------------------------------------------------------


def test_tokenizer_and_template_are_the_bases_own_bytes(tiny_run: Path, tiny_base: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tiny_run / "adapter" / name).read_bytes() == (tiny_base / name).read_bytes()


def test_the_generation_config_has_every_stop_id(home: Path, tiny_base: Path) -> None:
    base = shutil.copytree(tiny_base, home / "base")
    config = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [0, 1]}))
    run = train(base, "train.max_steps=1")
    assert read(run / "adapter", "generation_config.json")["eos_token_id"] == [0, 1, 2]
