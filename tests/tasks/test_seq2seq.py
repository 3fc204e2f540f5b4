"""Source and target as ids: ends, prefix, languages, special tokens that a person typed, and what is too long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.sequences import SENTENCES, write_base
from tokenizers import Tokenizer

from tunewright.errors import BaseModelError, DataError, MissingExtra, RecipeError
from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.model.sequence import split
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.tasks import seq2seq
from tunewright.tasks.seq2seq import Seq2SeqCodec, Seq2SeqTask

TASK = Seq2SeqTask()
KINDS = ["t5", "bart", "marian", "mbart25", "mbart50", "nllb"]
LANGUAGES = {"mbart25": ("en_XX", "fr_XX"), "mbart50": ("en_XX", "fr_XX"), "nllb": ("eng_Latn", "fra_Latn")}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("bases")
    return {kind: write_base(home / kind, kind) for kind in KINDS}


def codec(folder: Path, **values: object) -> Seq2SeqCodec:
    kind = folder.name
    languages = dict(zip(("source_language", "target_language"), LANGUAGES.get(kind, (None, None)), strict=True))
    given = {"data.truncation_side": values.pop("side", "right")}
    return TASK.codec(folder, changed(Recipe(), given | {f"seq2seq.{k}": v for k, v in (languages | values).items()}))


def pair(source: str, target: str) -> Chat:
    return Chat((Message("user", source), Message("assistant", target, learn=True)), Origin("pairs.tsv", 7, 7))


def row(one: Seq2SeqCodec, source: str = SENTENCES[0], target: str = SENTENCES[1]) -> Rendered:
    [[made]] = one.render_many([pair(source, target)])
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_source_and_target_and_the_target_with_its_end_is_learned(kind: str, bases: dict[str, Path]) -> None:
    one = codec(bases[kind])
    source, target = split(row(one))
    end = one.tokenizer.eos_token_id
    assert end in source[-2:] and end in target[-2:]
    assert one.decode(source, skip_special=True).strip() == SENTENCES[0]
    assert one.decode(target, skip_special=True).strip() == SENTENCES[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_the_source_of_its_training_row(kind: str, bases: dict[str, Path]) -> None:
    one = codec(bases[kind])
    question = TASK.question(pair(SENTENCES[0], SENTENCES[1]), one)
    assert question is not None and question.prompt == split(row(one))[0]
    assert (question.text, question.reference) == (SENTENCES[0], SENTENCES[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_token_that_a_person_typed_is_text(kind: str, bases: dict[str, Path]) -> None:
    one = codec(bases[kind])
    end = one.tokenizer.eos_token_id
    for side in split(row(one, "a </s> b", "b </s> a")):
        assert side.count(end) == 1
    assert "</s>" in one.specials_in("a </s> b") and not one.specials_in(SENTENCES[0])


@pytest.mark.parametrize("kind", KINDS)
def test_reopened_from_a_runs_folder_it_writes_the_same_ids(kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    one = codec(bases[kind])
    folder = tmp_path / kind
    folder.mkdir()
    one.save(folder)
    assert row(codec(folder)).ids.tolist() == row(one).ids.tolist()


def test_a_tokenizer_that_does_not_name_its_class_is_reopened(bases: dict[str, Path], tmp_path: Path) -> None:
    """As the files of the first T5 are; a run's folder has no config.json that would say what they belong to."""
    base = tmp_path / "t5"
    base.mkdir()
    for name in ("tokenizer.json", "config.json"):
        (base / name).write_bytes((bases["t5"] / name).read_bytes())
    (base / "tokenizer_config.json").write_text('{"model_max_length": 64, "eos_token": "</s>"}')
    one, folder = codec(base), tmp_path / "run"
    folder.mkdir()
    one.save(folder)
    assert not (folder / "config.json").exists()
    assert row(codec(folder)).ids.tolist() == row(one).ids.tolist()


def test_marian_writes_targets_with_the_targets_own_pieces(bases: dict[str, Path]) -> None:
    one = codec(bases["marian"])
    source, target = split(row(one, SENTENCES[1], SENTENCES[1]))
    assert source != target


def test_the_prefix_stands_before_each_source(bases: dict[str, Path]) -> None:
    one = codec(bases["t5"], prefix="translate, ")
    source, target = split(row(one, "a", "b"))
    assert one.decode(source, skip_special=True) == "translate, a" and one.decode(target, skip_special=True) == "b"


# ---- languages ---------------------------------------------------------------------------------------------------


def test_languages_stand_where_each_base_wants_them(bases: dict[str, Path]) -> None:
    for kind, place, frozen in (
        ("mbart25", -1, "decoder_start_token_id"), ("mbart50", 0, "forced_bos_token_id"),
        ("nllb", 0, "forced_bos_token_id"),
    ):  # fmt: skip
        one = codec(bases[kind])
        first, second = (one.tokenizer.convert_tokens_to_ids(name) for name in LANGUAGES[kind])
        source, target = split(row(one))
        assert (source[place], target[place]) == (first, second) and one.generation == {frozen: second}


def test_an_unknown_language_is_an_error_that_lists_near_ones(bases: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="knows no language 'fra_Lat'") as caught:
        codec(bases["nllb"], target_language="fra_Lat")
    assert "fra_Latn" in str(caught.value) and "seq2seq.target_language" in str(caught.value)


def test_a_base_of_many_languages_wants_them_named(bases: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="wants the language named") as caught:
        codec(bases["mbart50"], source_language=None)
    assert "seq2seq.source_language" in str(caught.value)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_base_without_languages_refuses_them(kind: str, bases: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="knows no language codes"):
        codec(bases[kind], target_language="fr_XX")


def test_marian_knows_its_own_pair_alone(bases: dict[str, Path]) -> None:
    assert row(codec(bases["marian"], source_language="en", target_language="fr")).length
    with pytest.raises(RecipeError, match="knows no language 'de'"):
        codec(bases["marian"], target_language="de")


def test_a_marian_of_many_targets_is_told_by_a_mark_before_the_source(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "marian"
    folder.mkdir()
    for path in bases["marian"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    known = json.loads((folder / "vocab.json").read_text())
    known |= {">>fra<<": len(known), ">>por<<": len(known) + 1}
    (folder / "vocab.json").write_text(json.dumps(known))
    with pytest.raises(RecipeError, match="wants the language named"):
        codec(folder)
    assert split(row(codec(folder, target_language="por")))[0][0] == known[">>por<<"]


# ---- too long ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_source_is_cut_at_the_side_that_was_asked_for(kind: str, side: str, bases: dict[str, Path]) -> None:
    one = codec(bases[kind], side=side)
    whole = row(one, SENTENCES[0], "a")
    source, target = split(whole)
    done = one.cut(pair(SENTENCES[0], "a"), [whole], 12)
    [made] = done.rows
    kept, same = split(made)
    assert len(kept) == 12 == one.size(made) and same == target and done.lost == len(source) - 12
    assert one.tokenizer.eos_token_id in kept[-2:]
    body, text = one.decode(kept, skip_special=True).strip(), SENTENCES[0]
    assert text.endswith(body) if side == "left" else text.startswith(body)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prefix_is_never_cut_away(side: str, bases: dict[str, Path]) -> None:
    one = codec(bases["t5"], side=side, prefix="say, ")
    done = one.cut(pair(SENTENCES[0], "a"), [row(one, SENTENCES[0], "a")], 14)
    assert one.decode(split(done.rows[0])[0], skip_special=True).startswith("say, ")


def test_a_target_is_never_cut(bases: dict[str, Path]) -> None:
    one = codec(bases["t5"])
    assert one.cut(pair("a", SENTENCES[0]), [row(one, "a", SENTENCES[0])], 12).rows == ()


def test_the_size_of_a_row_is_that_of_its_longer_side(bases: dict[str, Path]) -> None:
    one = codec(bases["bart"])
    made = row(one, "a", SENTENCES[0])
    assert one.size(made) == max(map(len, split(made))) < made.length


# ---- what does not fit ----------------------------------------------------------------------------------------------


def test_characters_that_the_base_cannot_write_are_named(bases: dict[str, Path]) -> None:
    one = codec(bases["t5"])
    assert one.notes == ()
    one.render_many([pair("a", "b {c}"), pair("a", "{"), pair("{", "a")])
    assert "'{' (2), '}' (1)" in one.notes[0]


def test_a_conversation_of_several_turns_is_refused_with_its_row(bases: dict[str, Path]) -> None:
    first = (Message("user", "a"), Message("assistant", "b"))
    turns = (*first, Message("user", "c"), Message("assistant", "d", learn=True))
    with pytest.raises(DataError, match="several turns") as caught:
        codec(bases["t5"]).render_many([Chat(turns, Origin("talk.jsonl", 3, 3))])
    assert "talk.jsonl:3" in str(caught.value)


def test_a_decoder_is_refused_and_bases_that_would_do_are_named(tiny_base: Path) -> None:
    with pytest.raises(BaseModelError, match="tiny cannot write one text from another") as caught:
        TASK.require(tiny_base, "tiny")
    assert "t5" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_decoders_are_accepted(kind: str, bases: dict[str, Path]) -> None:
    TASK.require(bases[kind], kind)


@pytest.mark.parametrize("package", ["sentencepiece", "sacremoses"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seq2seq, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(MissingExtra, match=rf"{package}.*\n.*\n?.*tunewright\[translate\]"):
        codec(bases["marian"])


def test_a_damaged_tokenizer_is_named(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    folder.mkdir()
    (folder / "config.json").write_bytes((bases["t5"] / "config.json").read_bytes())
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BaseModelError, match="tokenizer cannot be read"):
        codec(folder)


def test_a_target_gets_an_end_where_the_tokenizer_puts_none(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    folder.mkdir()
    for path in bases["t5"].glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain = json.loads(tokenizer.to_str()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(plain))
    one = codec(folder)
    assert [side[-1] for side in split(row(one))] == [one.tokenizer.eos_token_id] * 2


def test_the_hash_knows_prefix_and_languages(bases: dict[str, Path]) -> None:
    assert len({codec(bases["t5"]).sha256, codec(bases["t5"], prefix="x ").sha256, codec(bases["bart"]).sha256}) == 3
    assert codec(bases["t5"]).sha256 == codec(bases["t5"]).sha256


@pytest.mark.parametrize("kind", KINDS)
def test_each_id_reads_as_a_piece(kind: str, bases: dict[str, Path]) -> None:
    one = codec(bases[kind])
    made = row(one)
    pieces = one.pieces(made)
    assert len(pieces) == made.length and "river" in "".join(pieces)
