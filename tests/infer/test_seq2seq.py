"""The engine of encoder-decoders: outputs of a batch are those of each source alone, and nothing is sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sequences import SENTENCES, write_base
from torch.nn import functional
from transformers import AutoModelForSeq2SeqLM

from tunewright.example import Chat, Message, Origin, Rendered
from tunewright.infer.seq2seq import Seq2SeqEngine, Unwanted, frozen_generation
from tunewright.model.sequence import split
from tunewright.model.source import fetch
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.tasks.seq2seq import Seq2SeqTask

KINDS = ["t5", "bart", "marian", "mbart50"]
NEW = 10


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("bases")
    return {kind: write_base(home / kind, kind) for kind in KINDS}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))


def engine(folder: Path, beams: int = 3, **stored: Any) -> Seq2SeqEngine:
    languages = {"seq2seq.source_language": "en_XX", "seq2seq.target_language": "fr_XX"}
    recipe = changed(Recipe(), languages if folder.name == "mbart50" else {})
    codec = Seq2SeqTask().codec(folder, recipe)
    made = AutoModelForSeq2SeqLM.from_pretrained(folder)
    for name, value in stored.items():
        setattr(made.generation_config, name, value)
    return Seq2SeqEngine(made, codec, frozen_generation(fetch(str(folder)), codec), beams)


def rows(one: Seq2SeqEngine) -> list[Rendered]:
    texts = [(SENTENCES[i], SENTENCES[(i + 1) % 6][: 5 + 9 * i]) for i in range(6)]
    chats = [
        Chat((Message("user", source), Message("assistant", target, learn=True)), Origin("pairs.tsv", n, n))
        for n, (source, target) in enumerate(texts, start=1)
    ]
    return [made for [made] in one.codec.render_many(chats)]


def prompts(one: Seq2SeqEngine) -> list[list[int]]:
    return [split(row)[0] for row in rows(one)]


def greedy(one: Seq2SeqEngine, prompt: list[int]) -> tuple[list[int], bool]:
    """One token after the other, the whole of it through the model each time."""
    config = one.settings
    ids, banned = [config["decoder_start_token_id"]], [t[0] for t in config.get("bad_words_ids", [])]
    forced = config.get("forced_bos_token_id")
    if forced is not None:
        ids.append(forced)
    first = len(ids)
    for _step in range(NEW):
        with torch.no_grad():
            logits = one.model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([ids])).logits[0, -1]
        logits[banned] = -torch.inf
        token = int(logits.argmax())
        if token in one.stops:
            return ids[1:], True
        ids.append(token)
    assert len(ids) == first + NEW
    return ids[1:], False


@pytest.mark.parametrize("kind", KINDS)
def test_one_beam_is_the_plain_loop(kind: str, bases: dict[str, Path]) -> None:
    one = engine(bases[kind], beams=1)
    for prompt, output in zip(prompts(one), one.generate(prompts(one), NEW), strict=True):
        assert (list(output.ids), output.stopped) == greedy(one, prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_each_source_gives_alone(kind: str, bases: dict[str, Path]) -> None:
    one = engine(bases[kind])
    together = one.generate(prompts(one), NEW)
    assert together == [one.generate([prompt], NEW)[0] for prompt in prompts(one)]
    assert len({output.ids for output in together}) > 1


def test_beams_find_likelier_outputs_than_greed(bases: dict[str, Path]) -> None:
    """Measured by the model itself, over outputs of one length."""
    totals = []
    for beams in (1, 6):
        one = engine(bases["bart"], beams)
        one.settings["eos_token_id"] = [10_000]  # nothing ends
        total = 0.0
        for prompt, output in zip(prompts(one), one.generate(prompts(one), NEW), strict=True):
            start = torch.tensor([[one.settings["decoder_start_token_id"], *output.ids]])
            with torch.no_grad():
                logits = one.model(input_ids=torch.tensor([prompt]), decoder_input_ids=start[:, :-1]).logits[0]
            total -= float(functional.cross_entropy(logits, start[0, 1:], reduction="sum"))
        totals.append(total)
    assert totals[1] > totals[0]


def test_what_a_base_says_about_sampling_changes_no_output(bases: dict[str, Path]) -> None:
    plain = engine(bases["t5"])
    expected = plain.generate(prompts(plain), NEW)
    one = engine(
        bases["t5"], do_sample=True, temperature=3.0, repetition_penalty=5.0, no_repeat_ngram_size=1, min_length=8,
        length_penalty=9.0, num_beams=7,
    )  # fmt: skip
    assert one.generate(prompts(one), NEW) == expected


def test_a_forced_end_makes_no_output_look_finished(bases: dict[str, Path]) -> None:
    one = engine(bases["bart"])
    expected = one.generate(prompts(one), 2)
    assert not expected[0].stopped
    codec = one.codec
    forced = {**frozen_generation(fetch(str(bases["bart"])), codec), "forced_eos_token_id": 1}
    other = Seq2SeqEngine(one.model, codec, forced, 3)
    assert other.generate(prompts(one), 2) == expected


def test_marian_never_writes_its_padding(bases: dict[str, Path]) -> None:
    one = engine(bases["marian"])
    one.model.final_logits_bias[0, one.pad] = 1e4
    assert all(one.pad not in output.ids for output in one.generate(prompts(one), NEW))


def test_what_a_run_keeps_about_generating(bases: dict[str, Path]) -> None:
    settings = engine(bases["mbart50"]).settings
    token = engine(bases["mbart50"]).codec.tokenizer.convert_tokens_to_ids("fr_XX")
    assert settings["forced_bos_token_id"] == token and settings["num_beams"] == 3
    assert engine(bases["marian"]).settings["bad_words_ids"] and not settings["do_sample"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_is_without_special_tokens(kind: str, bases: dict[str, Path]) -> None:
    one = engine(bases[kind])
    for output in one.generate(prompts(one), NEW):
        assert not one.codec.specials_in(output.text) and output.text == output.text.strip()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [1, 10_000])
def test_scores_are_those_of_plain_code(kind: str, budget: int, bases: dict[str, Path]) -> None:
    one = engine(bases[kind])
    one.token_budget = budget
    given = rows(one)
    for row, score in zip(given, one.score(given), strict=True):
        source, target = (torch.tensor([side]) for side in split(row))
        with torch.no_grad():
            out = one.model(input_ids=source, labels=target)
        assert score.loss == pytest.approx(float(out.loss) * row.learned, rel=1e-5)
        assert score.correct == int((out.logits[0].argmax(1) == target[0]).sum())
        assert score.tokens == row.learned == target.shape[1]


def test_progress_counts_every_item(bases: dict[str, Path]) -> None:
    counted: list[int] = []
    one = engine(bases["t5"])
    one.generate(prompts(one) * 10, 2, counted.append)
    assert sum(counted) == 60
    counted.clear()
    one.score(rows(one), counted.append)
    assert sum(counted) == 6


def test_nothing_to_write_is_no_error(bases: dict[str, Path]) -> None:
    assert engine(bases["t5"]).generate([], NEW) == [] and engine(bases["t5"]).score([]) == []


def test_a_search_that_nobody_waits_for_ends(bases: dict[str, Path]) -> None:
    one = engine(bases["t5"])
    one.settings["eos_token_id"] = [10_000]  # nothing ends by itself
    asked: list[bool] = []

    def wanted() -> bool:
        asked.append(len(asked) < 5)
        return asked[-1]

    with pytest.raises(Unwanted):
        one.generate(prompts(one), 100_000, wanted=wanted)
    assert asked == [True] * 5 + [False]  # also where the sources make several batches
    assert one.generate(prompts(one), NEW, wanted=lambda: True) == one.generate(prompts(one), NEW)
