"""From a recipe file or a data file to the typed recipe, and what every kind of bad input is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunewright.errors import DataError, InputError, RecipeError
from tunewright.recipe.load import changed, load


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("data:\n  train: rows.jsonl\n", encoding="utf-8")
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


# ---- what is given ---------------------------------------------------------------------------------------------


def test_data_file_alone_is_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.jsonl", "{}")
    monkeypatch.chdir(tmp_path)
    loaded = load("rows.jsonl")
    assert loaded.recipe.data.train == [str(tmp_path / "rows.jsonl")]
    assert loaded.sources["data.train"] == "command line"
    assert loaded.sources["train.epochs"] == "default"
    assert loaded.path is None


def test_folder_of_data_is_data_and_folder_with_recipe_is_a_recipe(tmp_path: Path, recipe: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert load(data).recipe.data.train == [str(data)]
    assert load(tmp_path).path == recipe


def test_paths_are_relative_to_the_recipe_and_on_the_command_line_to_the_working_directory(
    recipe: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    loaded = load(recipe, ["data.validation=held_out.jsonl"]).recipe
    assert loaded.data.train == [str(recipe.parent / "rows.jsonl")]
    assert loaded.data.validation == [str(elsewhere / "held_out.jsonl")]


def test_home_is_expanded(recipe: Path) -> None:
    assert load(recipe, ["data.train=~/x.jsonl"]).recipe.data.train == [os.path.expanduser("~/x.jsonl")]


def test_several_data_files_on_the_command_line(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    names = load(recipe, ["data.train=[a.jsonl, 'b c.csv']"]).recipe.data.train
    assert [Path(name).name for name in names] == ["a.jsonl", "b c.csv"]


@pytest.mark.parametrize("base", ["smollm2-135m-instruct", "org/name", "modelscope:org/name"])
def test_named_base_stays_as_it_is(recipe: Path, base: str) -> None:
    assert load(recipe, [f"base={base}"]).recipe.base == base


@pytest.mark.parametrize("base", ["./mine", "../mine", "weights.gguf", "sub/mine"])
def test_base_beside_the_recipe_is_found_from_anywhere(recipe: Path, base: str) -> None:
    (recipe.parent / "sub" / "mine").mkdir(parents=True)
    write(recipe, f"base: {base}\ndata: {{train: x.jsonl}}")
    assert load(recipe).recipe.base == os.path.abspath(recipe.parent / base)


# ---- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2e-4", "2.0e-4", "0.0002", "2E-4", "'2e-4'"])
def test_every_spelling_of_a_number_is_a_number(recipe: Path, text: str) -> None:
    write(recipe, f"data: {{train: x.jsonl}}\ntrain: {{learning_rate: {text}}}")
    assert load(recipe).recipe.train.learning_rate == 2e-4
    assert load(recipe, ["train.learning_rate=2e-4"]).recipe.train.learning_rate == 2e-4


@pytest.mark.parametrize(
    "name", ["no", "on", "yes", "true", "123", "1e5", "null", "~", "2024-01-01", "0x1F", "1_000", "Zed"]
)
def test_a_name_stays_a_name(recipe: Path, name: str) -> None:
    write(recipe, f"data:\n  train: x.jsonl\n  variables:\n    name: {name}\n")
    assert load(recipe).recipe.data.variables == {"name": name}
    assert load(recipe, [f"data.variables.name={name}"]).recipe.data.variables == {"name": name}


@pytest.mark.parametrize(
    "text", ["诊断问题:{Question}\n详细分析:{A}", "a: b # c", "{x}", "[x]", "*x", "'quoted'", " x ", "a=b"]
)
def test_a_text_on_the_command_line_is_taken_letter_by_letter(recipe: Path, text: str) -> None:
    assert load(recipe, [f"data.prompt={text}", "data.answer={A}"]).recipe.data.prompt == text


def test_null_unsets_a_key_that_may_be_empty(recipe: Path) -> None:
    write(recipe, "data: {train: x.jsonl, limit: 5, system: hello}")
    loaded = load(recipe, ["data.limit=null", "data.system=null"]).recipe
    assert (loaded.data.limit, loaded.data.system) == (None, None)


def test_empty_section_changes_nothing(recipe: Path) -> None:
    write(recipe, "data: {train: x.jsonl}\ntrain:\nlora: # all commented out\n")
    assert load(recipe).recipe.train.epochs == "auto"


def test_held_out_is_a_count_or_a_share(recipe: Path) -> None:
    assert load(recipe, ["data.held_out=50"]).recipe.data.held_out == 50
    assert load(recipe, ["data.held_out=0.1"]).recipe.data.held_out == 0.1
    assert "`1` is not allowed here" in message(recipe, "data.held_out=1")


def test_checks_in_all_their_forms(recipe: Path) -> None:
    write(
        recipe,
        "data: {train: x.jsonl}\nchecks:\n- contains: '{{name}}'\n- number\n- {kind: regex, value: ^a}\n- equals: no\n",
    )
    names = [check.name for check in load(recipe).recipe.checks]
    assert names == ["contains: {{name}}", "number", "regex: ^a", "equals: no"]
    assert [c.name for c in load(recipe, ["checks=json"]).recipe.checks] == ["json"]
    assert [c.name for c in load(recipe, ["checks=[{contains: x}, json]"]).recipe.checks] == ["contains: x", "json"]


def test_sources_name_line_command_line_or_default(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    write(recipe, "data:\n  train: x.jsonl\n  variables:\n    name: A\n    author: B\n")
    sources = load("recipe.yaml", ["data.variables.name=Zed", "train.epochs=2"]).sources
    assert sources["data.train"] == "recipe.yaml:2"
    assert sources["data.variables.author"] == "recipe.yaml:5"
    assert sources["data.variables.name"] == "command line"
    assert sources["train.epochs"] == "command line"
    assert sources["seed"] == "default"


def test_override_mends_a_wrong_value_in_the_file(recipe: Path) -> None:
    write(recipe, "data: {train: x.jsonl}\ntrain: {epochs: [3]}")
    assert load(recipe, ["train.epochs=3"]).recipe.train.epochs == 3


def test_changed_gives_a_checked_copy(recipe: Path) -> None:
    before = load(recipe).recipe
    after = changed(before, {"train.epochs": 3, "seed": 7})
    assert (after.train.epochs, after.seed, before.train.epochs) == (3, 7, "auto")
    with pytest.raises(RecipeError, match=r"train\.epochs"):
        changed(before, {"train.epochs": -1})
    with pytest.raises(RecipeError, match="no key"):
        changed(before, {"train.epoch": 1})


# ---- bad input (TRUST row 9) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.epoch", "train.epochs"),
        ("epochs", "train.epochs"),
        ("lerning_rate", "train.learning_rate"),
        ("train.lerning_rate", "train.learning_rate"),
        ("learning-rate", "train.learning_rate"),
        ("lora.r", "train"),
        ("data.collumns", "data.columns"),
        ("Base", "base"),
    ],
)
def test_misspelt_key_is_an_error_with_the_nearest_name(recipe: Path, typed: str, meant: str) -> None:
    text = message(recipe, f"{typed}=1")
    assert f"there is no key `{typed}`" in text
    assert meant in text or typed == "lora.r"


def test_misspelt_key_in_a_file_is_named_with_its_line(recipe: Path) -> None:
    write(recipe, "data:\n  train: x.jsonl\ntrain:\n  method: full\n  lerning_rate: 1\n")
    text = message(recipe)
    assert f"{recipe}:5" in text and "`train.learning_rate`" in text
    assert text.splitlines()[-1] == "  type:  tunewright recipe explain train.learning_rate"


@pytest.mark.parametrize(
    ("method", "key"), [("full", "lora.rank=4"), ("freeze", "lora.alpha=4"), ("lora", "freeze.layers=1")]
)
def test_key_that_the_method_does_not_use_is_an_error(recipe: Path, method: str, key: str) -> None:
    text = message(recipe, f"train.method={method}", key)
    assert f"is not used by `train.method: {method}`" in text


def test_all_problems_are_reported_together(recipe: Path) -> None:
    write(recipe, "data:\n  trian: x\ntrain:\n  epochs: many\n  epochs: 2\nlora: {rank: 0}\nseed: -1\n")
    text = message(recipe, "save.evry=3")
    for part in ("data.trian", "`many`", "written twice", "lora.rank", "`-1`", "save.every", "6 problems"):
        assert part in text, part


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("", "the recipe is empty"),
        ("# nothing\n", "the recipe is empty"),
        ("null\n", "the recipe is empty"),
        ("- a\n- b\n", "a list"),
        ("just text\n", "the single value `just text`"),
        ("data:\n\ttrain: x\n", "a tab"),
        ("data: {train: x\n", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("data: !!python/object:os.system x\n", "tags"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("data: {train: x}\nseed: 1\nseed: 2\n", "`seed` is written twice"),
        ("data: {train: x, variables: {a: 1, a: 2}}\n", "`data.variables.a` is written twice"),
        ("data: {train: x, variables: {a: }}\n", "`data.variables.a` takes one text, and this is nothing"),
        ("data: {train: x}\ndata: {limit: 3}\n", "`data` is written twice"),
        ("data: rows.jsonl\n", "`data` is a section of keys"),
        ("data: {train: x}\ntrain: {epochs: }\n", "`train.epochs` has no value"),
        ("data: {train: x}\ntrain: {epochs: {a: 1}}\n", "takes one value"),
        ("data: {train: x}\ntrain: {epochs: .nan}\n", "allowed: `auto` or a number"),
        ("data: {train: x}\nseed: true\n", "`true` is not allowed here"),
        ("data: {train: x}\ntrain: {method: qlora}\n", "one of `lora`, `full`, `freeze`"),
        ("data: {train: x}\ntrain: {report_to: tensorbord}\n", "no tracker"),
        ("data: {train: [[x]]}\n", "holds a list where a text is expected"),
        ("data: {train: x}\nchecks: [{contains: x, regex: y}]\n", "neither"),
        ("data: {train: x}\nchecks: [contains]\n", "needs a text"),
        ("data: {train: x}\nchecks: [{regex: '('}]\n", "no regular expression"),
        ("data: {train: x}\nchecks: [nonsense]\n", "a list of checks"),
        ("? [a]\n: 1\n", "a key must be a word"),
        ("seed: 1\n", "the recipe names no data"),
        ("data: {train: []}\n", "the recipe names no data"),
        ("data: {train: x, columns: {question: q, answer: a}, prompt: p, answer: a}\n", "two ways to say the same"),
        ("data: {train: x, columns: {question: q}}\n", "both `question` and `answer`"),
        ("data: {train: x, columns: {qestion: q}}\n", "the names being `question`"),
        ("data: {train: x, prompt: p}\n", "`data.prompt` needs `data.answer`"),
        ("data: {train: x, answer: p}\n", "`data.answer` needs `data.prompt`"),
        ("data: {train: x, format: template}\n", "needs `data.prompt`"),
        ("data: {train: x, format: columns}\n", "needs `data.columns`"),
        ("data: {train: x, format: sharegpt, prompt: p, answer: a}\n", "not used by `data.format: sharegpt`"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: 'x\x00y'\n", "U+0000"),
        ('a: "\\xZZ"\n', "not valid YAML"),
    ],
)
def test_bad_recipe_is_told_what_is_wrong(recipe: Path, yaml: str, expected: str) -> None:
    text = message(write(recipe, yaml))
    assert expected in text
    assert "  type:  tunewright" in text


def test_aliases_cannot_blow_up_the_memory(recipe: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert "anchors" in message(write(recipe, bomb))


def test_invalid_utf8_is_named_with_its_line(recipe: Path) -> None:
    recipe.write_bytes(b"data:\n  train: \xff\xfe\n")
    text = message(recipe)
    assert "not valid UTF-8" in text and f"{recipe}:2" in text


def test_byte_order_mark_is_tolerated(recipe: Path) -> None:
    recipe.write_bytes(b"\xef\xbb\xbfdata: {train: x.jsonl}\n")
    assert load(recipe).recipe.data.train == [str(recipe.parent / "x.jsonl")]


def test_huge_file_is_no_recipe(recipe: Path) -> None:
    assert "too large" in message(write(recipe, "# " + "x" * 1_100_000))


def test_missing_recipe_and_missing_data(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe.*nope\.yaml"):
        load(tmp_path / "nope.yaml")
    with pytest.raises(DataError, match=r"no file or folder.*nope\.jsonl"):
        load(tmp_path / "nope.jsonl")
    (tmp_path / "town.jsonl").touch()
    (tmp_path / "bridge.yaml").touch()
    with pytest.raises(DataError, match=r"did you mean .*town\.jsonl"):
        load(tmp_path / "towm.jsonl")
    with pytest.raises(RecipeError, match=r"did you mean .*bridge\.yaml"):
        load(tmp_path / "brigde.yaml")
    for odd in ("", "a\0b", "x" * 5000):
        with pytest.raises(InputError):
            load(odd)


@pytest.mark.parametrize("override", ["", "=", "train.epochs", "=3", "other.jsonl"])
def test_override_that_is_none(recipe: Path, override: str) -> None:
    assert "is no `key=value`" in message(recipe, override)


def test_override_given_twice(recipe: Path, tmp_path: Path) -> None:
    assert "given twice" in message(recipe, "seed=1", "seed=2")
    assert "given twice" in message(write(tmp_path / "rows.jsonl", "{}"), "data.train=other.jsonl")


def test_override_of_a_section(recipe: Path) -> None:
    assert "`train` is a section" in message(recipe, "train=3")


def test_broken_list_on_the_command_line(recipe: Path) -> None:
    assert "command line" in message(recipe, "checks=[{contains: x")


def test_an_override_does_not_hide_that_the_file_misspells_its_key(recipe: Path) -> None:
    write(recipe, "data:\n  train: rows.jsonl\ntrain:\n  lerning_rate: 0.1\n")
    text = message(recipe, "train.learning_rate=0.01")
    assert "there is no key `train.lerning_rate`" in text and "recipe.yaml:4" in text
