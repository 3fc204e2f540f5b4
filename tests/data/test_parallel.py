"""Pairs of texts: two files, two columns or an object with two languages; and what stops a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.formats import Reading
from tunewright.data.inspect import inspect
from tunewright.data.load import Loaded, find, load
from tunewright.data.plain import shifted
from tunewright.errors import DataError
from tunewright.example import Finding
from tunewright.recipe.schema import Data

PAIRS = Reading("pairs")
ENGLISH = [f"The {one} of number {n} stands by the river." for n, one in enumerate(["house", "old mill", "tree"] * 10)]
FRENCH = [f"Le {one} du numéro {n} est au bord de la rivière." for n, one in enumerate(["toit", "vieux moulin"] * 15)]


def loaded(folder: Path, *rows: dict[str, Any], **data: Any) -> Loaded:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = Data(train=[str(path)], **data)
    return load(given, *find(given), PAIRS)


def pair(done: Loaded) -> list[tuple[str, str, bool]]:
    return [(m.role, m.content, m.learn) for m in done.chats[0].messages]


def side_by_side(folder: Path, sources: list[str], targets: list[str], **more: Any) -> Data:
    (folder / "a.en").write_text("\n".join(sources) + "\n", encoding="utf-8")
    (folder / "a.fr").write_text("\n".join(targets) + "\n", encoding="utf-8")
    return Data(train=[str(folder / "a.en")], target=[str(folder / "a.fr")], **more)


def found(data: Data) -> dict[str, Finding]:
    return {finding.code: finding for finding in inspect(load(data, *find(data), PAIRS), data, PAIRS)}


S_T = [("user", "S", False), ("assistant", "T", True)]


@pytest.mark.parametrize(
    "row",
    [
        {"source": "S", "target": "T"},
        {"en": "S", "fr": "T"},
        {"eng_Latn": "S", "zho_Hans": "T", "id": "a-3"},
        {"translation": {"en": "S", "fr": "T"}},
        {"document": "S", "summary": "T"},
        {"instruction": "S", "output": "T"},
        {"prompt": "S", "completion": "T"},
        {"messages": [{"role": "user", "content": "S"}, {"role": "assistant", "content": "T"}]},
    ],
)
def test_source_and_target_are_found_by_name(tmp_path: Path, row: dict[str, Any]) -> None:
    done = loaded(tmp_path, row)
    assert pair(done) == S_T and done.format_reason


def test_the_direction_of_two_languages_is_said_and_can_be_turned(tmp_path: Path) -> None:
    row = {"translation": {"fr": "T", "en": "S"}}
    done = loaded(tmp_path, row)
    assert "the other way: data.columns.source=en data.columns.target=fr" in done.format_reason
    assert pair(done)[0][1] == "T"
    assert pair(loaded(tmp_path, row, columns={"source": "en", "target": "fr"})) == S_T


def test_three_languages_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 ways(.|\n)*data.columns.source=en data.columns.target=de"):
        loaded(tmp_path, {"en": "S", "fr": "T", "de": "U"})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"a": "S", "b": "T"}, "data.columns.source=COLUMN"),
        ({"question": "S", "answer": "T"}, "data.columns.source=COLUMN"),
        ({"source": ["S"], "target": "T"}, "holds a list, not text"),
        ({"Question": "S", "Complex_CoT": "C", "Response": "T"}, "task=chat"),
        ({"instruction": "S", "output": "T", "system": "be brief"}, "task=chat"),
    ],
)
def test_rows_that_are_no_pairs(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, row)
    assert expected in str(caught.value)


def test_line_n_belongs_to_line_n(tmp_path: Path) -> None:
    data = side_by_side(tmp_path, ENGLISH, FRENCH)
    done = load(data, *find(data), PAIRS)
    assert [tuple(m.content for m in chat.messages) for chat in done.chats] == list(zip(ENGLISH, FRENCH, strict=True))
    assert str(done.chats[6].origin) == f"{tmp_path}/a.en:7" and "a.fr" in done.format_reason


def test_the_hash_covers_both_files(tmp_path: Path) -> None:
    before = find(side_by_side(tmp_path, ENGLISH, FRENCH))[0][0].sha256()
    after = find(side_by_side(tmp_path, ENGLISH, [*FRENCH[:-1], "Autre chose."]))[0][0].sha256()
    assert before != after


def test_validation_has_its_own_targets(tmp_path: Path) -> None:
    data = side_by_side(tmp_path, ENGLISH, FRENCH)
    for name in ("b.en", "b.fr"):
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")
    both = data.model_copy(
        update={"validation": [str(tmp_path / "b.en")], "validation_target": [str(tmp_path / "b.fr")]}
    )
    done = load(both, *find(both), PAIRS)
    assert [m.content for m in done.validation[0].messages] == ["b.en", "b.fr"]
    half = data.model_copy(update={"validation": [str(tmp_path / "b.en")]})
    with pytest.raises(DataError, match=r"data.validation_target=FILE"):
        load(half, *find(half), PAIRS)


def test_files_of_different_lengths_name_both_counts_and_the_place(tmp_path: Path) -> None:
    sources = [f"{'word ' * (3 + n * n % 17)}end" for n in range(60)]
    targets = [f"{'mot ' * (3 + n * n % 17)}fin" for n in range(60)]
    data = side_by_side(tmp_path, sources, targets[:40] + targets[41:])
    with pytest.raises(DataError) as caught:
        load(data, *find(data), PAIRS)
    message = str(caught.value)
    assert "60 and 59" in message and "a.en" in message and "a.fr" in message
    place = shifted(sources, targets[:40] + targets[41:])
    assert place is not None and abs(place - 41) <= 2 and f"a.en:{place}" in message
    assert shifted(sources, targets[:20]) is None  # too much is missing to tell


def test_a_text_file_alone_has_no_targets(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\n", encoding="utf-8")
    data = Data(train=[str(tmp_path / "a.en")])
    with pytest.raises(DataError, match=r"data.target=FILE"):
        load(data, *find(data), PAIRS)


def test_targets_of_a_table_are_a_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("source,target\nS,T\n", encoding="utf-8")
    (tmp_path / "a.fr").write_text("T\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"data.columns.target=COLUMN"):
        find(Data(train=[str(tmp_path / "a.csv")], target=[str(tmp_path / "a.fr")]))


def test_as_many_targets_as_sources(tmp_path: Path) -> None:
    data = side_by_side(tmp_path, ENGLISH, FRENCH)
    (tmp_path / "c.fr").write_text("T\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"names 1 files, data.target names 2"):
        find(data.model_copy(update={"target": [*data.target, str(tmp_path / "c.fr")]}))


# -- findings --------------------------------------------------------------------------------------------------------


def test_sound_pairs_have_no_findings_but_few_rows_and_their_language(tmp_path: Path) -> None:
    assert set(found(side_by_side(tmp_path, ENGLISH, FRENCH))) == {"D102", "D210"}


@pytest.mark.parametrize(("side", "code"), [("source", "D508"), ("target", "D104")])
def test_an_empty_side_stops_at_its_line(tmp_path: Path, side: str, code: str) -> None:
    sources, targets = list(ENGLISH), list(FRENCH)
    (sources if side == "source" else targets)[6] = " "
    finding = found(side_by_side(tmp_path, sources, targets))[code]
    assert finding.severity == "error" and [str(row) for row in finding.rows] == [f"{tmp_path}/a.en:7"]


def test_a_target_that_is_its_source_is_found(tmp_path: Path) -> None:
    assert [r.line for r in found(side_by_side(tmp_path, ENGLISH, [*FRENCH[:-1], ENGLISH[-1]]))["D511"].rows] == [30]


def test_a_side_that_was_cut_off_is_found(tmp_path: Path) -> None:
    sources = [f"{line} {line} {line}" for line in ENGLISH]
    targets = [f"{line} {line} {line}" for line in FRENCH]
    assert "D512" not in found(side_by_side(tmp_path, sources, targets))
    targets[4] = "Le"
    assert [row.line for row in found(side_by_side(tmp_path, sources, targets))["D512"].rows] == [5]


def test_answers_of_any_length_are_no_oddity(tmp_path: Path) -> None:
    words = [90 if n == 3 else 4 + 7 * n % 13 for n in range(len(ENGLISH))]
    rows = [{"instruction": one, "output": "well " * many} for one, many in zip(ENGLISH, words, strict=True)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert "D512" not in found(Data(train=[str(path)]))


def test_multi30k_as_it_comes(shared: Path) -> None:
    folder = shared / "data" / "multi30k"
    data = Data(train=[str(folder / "train.en")], target=[str(folder / "train.fr")])
    done = load(data, *find(data), PAIRS)
    assert len(done.chats) == 3000 and done.chats[0].messages[1].content.startswith("Deux jeunes hommes blancs")
