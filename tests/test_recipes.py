"""Every shipped recipe is sound, says how it is run, and makes its model better."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.recipes import RECIPES, recipes, run
from tests.predicting import write_t5

from tunewright.cli.main import VERBS
from tunewright.model.source import fetch
from tunewright.recipe.load import load
from tunewright.settings import settings

ROOT = RECIPES.parent
WANTED = {
    "identity", "sentiment-lora", "sentiment-full", "sentiment-label-token", "instruct-seq2seq", "translate",
    "medical-reasoning", "pretrain",
}  # fmt: skip

# A test has less time than a person: fewer epochs or answers show as well whether a recipe teaches anything.
SHORTER = {
    "medical-reasoning": [
        # All six held-out answers must be right to be more than chance: fewer updates than 87 teach too few of them.
        "evaluate.rows=6", "evaluate.max_new_tokens=128", "train.epochs=3", "train.batch_size=2", "retain=off"
    ],
    "pretrain": ["train.epochs=1"],
}


def text(name: str) -> str:
    return (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")


def test_there_is_one_for_each_kind_of_training() -> None:
    assert set(recipes()) == WANTED


@pytest.mark.parametrize("name", recipes())
def test_it_is_sound_and_its_data_is_there(name: str) -> None:
    recipe = load(RECIPES / f"{name}.yaml").recipe
    assert recipe.data.train and all(Path(path).is_file() for path in recipe.data.train)
    assert all(Path(path).is_relative_to(ROOT) for path in recipe.data.train)


@pytest.mark.parametrize("name", recipes())
def test_it_opens_with_the_two_commands_and_names_a_larger_base(name: str) -> None:
    lines = text(name).splitlines()
    said = next(number for number, line in enumerate(lines[:4]) if line.endswith("Two commands:"))
    train, after = lines[said + 1 : said + 3]
    assert train.startswith(f"#   tunewright train recipes/{name}.yaml")
    verb = re.search(r"tunewright (\w+)", after)
    assert verb is not None and any(verb[1] in verbs for verbs in VERBS.values())
    comment = re.sub(r"\n#\s*", " ", text(name))
    assert re.search(r"With a GPU, take [^;:]*?\w[\w.-]*/[\w.-]+", comment), "no base of the hub is named"


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fewer_prompts: None, fewer_questions: None) -> None:
    """The person's own bases, but not their last run; and few general questions, since nothing here is about them."""
    for base in ("smollm2-135m-instruct", "minilm-l6"):
        fetch(base)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "bases").symlink_to(settings().cache / "bases")
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("name", sorted(WANTED - {"identity", "instruct-seq2seq", "translate"}))
def test_it_makes_its_base_better(name: str, tmp_path: Path) -> None:
    """``identity`` is trained by ``test_identity.py``, and the last two have tests of their own below."""
    found = run(name, tmp_path / "run", SHORTER.get(name, []))
    if name == "sentiment-label-token":  # its base knows much already; of 41 rows chance may explain what it gains
        before, after = (float(text.split()[0]) for text in (found.before, found.after))
        assert after >= before + 5, found
    else:
        assert found.better, found


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_translating_gets_better(tmp_path: Path, shared: Path) -> None:
    found = run("translate", tmp_path / "run", [f"base={shared / 'models' / 'opus-mt-en-fr'}"])
    assert found.metric == "chrf" and found.better, found


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_a_translator_learns_instructions(tmp_path: Path, shared: Path) -> None:
    base = shared / "models" / "opus-mt-en-fr"  # in place of the recipe's, which is on a hub
    found = run("instruct-seq2seq", tmp_path / "run", [f"base={base}", "train.epochs=3", "seq2seq.beams=1"])
    assert found.metric == "chrf" and found.better, found


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_instructions_are_learned_even_by_a_base_that_knows_nothing(tmp_path: Path) -> None:
    """The base of the recipe is on a hub; this one has random weights, so that only the likelihood can tell."""
    orders = (ROOT / "examples" / "instruct" / "orders.jsonl").read_text(encoding="utf-8").splitlines()
    base = write_t5(tmp_path / "base", orders)
    words = [f"base={base}", "train.method=full", "train.learning_rate=3e-3", "seq2seq.beams=1", "train.epochs=12"]
    found = run("instruct-seq2seq", tmp_path / "run", words)
    assert "loss" in found.verdict and found.verdict.startswith("Better"), found
