"""Texts and pairs as a base's tokenizer writes them for reading, with what is wanted behind them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from tests.encoders import write_tokenizer
from transformers import AutoTokenizer

from tunewright.data.basefiles import BaseFiles
from tunewright.data.texts import TextCodec, given, wanted
from tunewright.errors import BaseModelError, DataError
from tunewright.example import Chat, Message, Origin

LABELS = ("bad", "good", "odd")
LONG = "the river rises in the hills and runs slowly to the sea"


def chat(text: str, label: str, pair: str | None = None) -> Chat:
    said = [Message("user", text), *([] if pair is None else [Message("user", pair)])]
    return Chat((*said, Message("assistant", label, learn=True)), Origin("x.csv", 7, 6))


@pytest.fixture(params=["bert", "roberta"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path, request.param)


def codec(folder: Path, **more: object) -> TextCodec:
    return TextCodec(BaseFiles.read(folder), LABELS, **more)  # type: ignore[arg-type]


def test_the_ids_are_those_of_the_bases_own_tokenizer(folder: Path) -> None:
    own = AutoTokenizer.from_pretrained(folder)
    [[row]] = codec(folder).render_many([chat(LONG, "good")])
    assert row.ids[:-1].tolist() == own(LONG)["input_ids"]
    [[pair]] = codec(folder).render_many([chat(LONG, "good", "the bridge is old")])
    assert pair.ids[:-1].tolist() == own(LONG, "the bridge is old")["input_ids"]


def test_the_label_stands_behind_the_text_as_its_number(folder: Path) -> None:
    [[row]] = codec(folder).render_many([chat(LONG, "odd")])
    assert (row.ids[-1], row.learned, row.learn.nonzero()[0].tolist()) == (2, 1, [row.length - 1])
    assert str(row.origin) == "x.csv:7"


def test_the_label_takes_no_room_in_the_base(folder: Path) -> None:
    reader = codec(folder)
    [[row]] = reader.render_many([chat(LONG, "odd")])
    assert reader.size(row) == row.length - 1


def test_several_labels_are_a_number_each(folder: Path) -> None:
    reader = codec(folder, multi_label=True)
    [[two], [none]] = reader.render_many([chat(LONG, '["bad", "odd"]'), chat(LONG, "[]")])
    assert (two.ids[-3:].tolist(), none.ids[-3:].tolist()) == ([1, 0, 1], [0, 0, 0])
    assert two.learned == 3


def test_a_row_without_a_label_is_no_row(folder: Path) -> None:
    assert codec(folder).render_many([Chat((Message("user", LONG),), Origin("x", 1, 1))]) == [[]]


def test_a_text_can_be_asked_about_without_a_label(folder: Path) -> None:
    reader = codec(folder)
    [[known]] = reader.render_many([chat(LONG, "good")])
    [asked] = reader.ask([(LONG, None)])
    assert asked.ids[~asked.learn].tolist() == known.ids[:-1].tolist()
    assert [row.learned for row in codec(folder, multi_label=True).ask([(LONG, None)])] == [3]


def test_special_tokens_that_a_person_typed_are_text(folder: Path) -> None:
    reader = codec(folder)
    special = "[SEP]" if (folder / "bert").exists() else "</s>"
    [row] = reader.ask([(f"one {special} two", None)])
    inside = row.ids[~row.learn][1:-1].tolist()
    assert row.ids[~row.learn][-1] not in inside
    assert reader.specials_in(f"one {special} two") == [special]


@pytest.mark.parametrize(("side", "kept"), [("right", "the river rises"), ("left", "to the sea")])
def test_a_text_is_cut_from_the_side_that_was_asked_for(folder: Path, side: str, kept: str) -> None:
    reader = codec(folder, side=side)
    one = chat(LONG, "good")
    rows = reader.render_many([one])[0]
    cut = reader.cut(one, rows, 8)
    [row] = cut.rows
    assert reader.size(row) == 8
    assert cut.lost == reader.size(rows[0]) - 8
    ids = row.ids.tolist()
    assert (ids[0], ids[7], ids[-1]) == (rows[0].ids[0], rows[0].ids[-2], 1)  # special tokens and label stay
    text = reader.decode(ids[1:7]).strip()
    assert text in LONG
    assert text.startswith(kept[:8]) if side == "right" else text.endswith(kept[-4:])


def test_of_a_pair_the_longer_text_is_cut_first(folder: Path) -> None:
    reader = codec(folder)
    one = chat(LONG, "good", "the sea")
    rows = reader.render_many([one])[0]
    [row] = reader.cut(one, rows, 14).rows
    [short] = reader.ask([("the sea", None)])
    end = reader.size(short) - 1
    assert row.ids[~row.learn][-end:].tolist() == short.ids[~short.learn][-end:].tolist()


def test_a_row_that_fits_is_left_as_it_is(folder: Path) -> None:
    reader = codec(folder)
    one = chat("the sea", "good")
    rows = reader.render_many([one])[0]
    cut = reader.cut(one, rows, 8)
    assert (cut.lost, cut.rows[0] is rows[0]) == (0, True)


def test_the_tokenizers_own_limit_cuts_nothing_in_silence(tmp_path: Path) -> None:
    """A tokenizer.json may say itself that texts are cut or padded; sentence encoders' do."""
    folder = write_tokenizer(tmp_path, "bert")
    before = codec(folder).render_many([chat(LONG, "good")])[0][0].ids.tolist()
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["truncation"] = {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    stored["padding"] = {
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    path.write_text(json.dumps(stored))
    assert codec(folder).render_many([chat(LONG, "good")])[0][0].ids.tolist() == before


def test_types_of_a_pair_are_told_only_to_bases_that_have_them(folder: Path) -> None:
    own = AutoTokenizer.from_pretrained(folder)
    assert codec(folder).separator == (own.sep_token_id if (folder / "bert").exists() else None)


def test_types_that_are_numbered_in_another_way_are_refused(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, "bert")
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["post_processor"]["pair"][0]["SpecialToken"]["type_id"] = 1  # the first token counts as the second text
    path.write_text(json.dumps(stored))
    with pytest.raises(BaseModelError, match="numbers the two texts of a pair"):
        codec(folder)


def test_a_tokenizer_that_puts_nothing_between_two_texts_gets_a_line_break(tiny_base: Path) -> None:
    reader = codec(tiny_base)
    [row] = reader.ask([("the sea", "the hill")])
    assert reader.decode(row.ids[~row.learn].tolist()) == "the sea\nthe hill"


def test_a_run_writes_the_same_ids_again(folder: Path, tmp_path: Path) -> None:
    reader = codec(folder)
    saved = tmp_path / "run"
    saved.mkdir()
    reader.save(saved)
    (saved / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = codec(saved)
    assert again.sha256 == reader.sha256
    assert again.ask([(LONG, "x")])[0].ids.tolist() == reader.ask([(LONG, "x")])[0].ids.tolist()
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.sha256 == reader.sha256


def test_what_decides_the_ids_decides_the_hash(folder: Path) -> None:
    files = BaseFiles.read(folder)
    made = [
        TextCodec(files, LABELS), TextCodec(files, LABELS[::-1]), TextCodec(files, LABELS, True),
        TextCodec(files, LABELS, False, "left"),
    ]  # fmt: skip
    assert len({one.sha256 for one in made}) == 4


def test_a_row_reads_as_its_text_and_its_label(folder: Path) -> None:
    [[row]] = codec(folder).render_many([chat("the sea", "good")])
    pieces = codec(folder).pieces(row)
    assert len(pieces) == row.length
    assert pieces[-1] == " good"
    assert "the sea" in "".join(pieces)
    [[several]] = codec(folder, multi_label=True).render_many([chat("the sea", '["bad", "odd"]')])
    assert codec(folder, multi_label=True).pieces(several)[-3:] == [" bad", "", " odd"]


def test_what_is_given_and_wanted() -> None:
    assert given(chat("a", "good", "b")) == ("a", "b")
    assert given(chat("a", "good")) == ("a", None)
    assert wanted(chat("a", "odd"), LABELS) == (2,)
    assert wanted(chat("a", '["odd", "bad"]'), LABELS) == (0, 2)
    assert wanted(chat("a", "[]"), LABELS) == ()


@pytest.mark.parametrize("label", ["goood", '["good", "goood"]', "[good"])
def test_an_unknown_label_is_named_with_its_row(label: str) -> None:
    with pytest.raises(DataError, match="not one of: bad, good, odd") as error:
        wanted(chat("a", label), LABELS)
    assert error.value.where == "x.csv:7"


def test_a_text_of_which_a_tokenizer_makes_nothing_is_still_a_row(tiny_base: Path) -> None:
    [row] = codec(tiny_base).ask([("", None)])
    assert row.ids[~row.learn].tolist() == [2]  # the end of a text
