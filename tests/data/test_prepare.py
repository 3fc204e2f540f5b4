"""The whole way of the data, with the real files where they are needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewright.data import cache as entries
from tunewright.data.prepare import Prepared, prepare
from tunewright.data.show import bracketed
from tunewright.data.template import ChatTemplate
from tunewright.errors import DataError
from tunewright.example import Chat, Rendered
from tunewright.recipe.schema import Data

TEXT = "river bread bridge moss tide lamp wool map bee clay snow rust oak fern gull"
WORDS = TEXT.split()


def some_rows(count: int = 60) -> list[dict[str, str]]:
    return [
        {
            "instruction": f"Say {WORDS[n % 15]} {n}",
            "output": f"{WORDS[n % 13]} {n * 7} {WORDS[n % 11]}.",
            "id": f"r{n}",
        }
        for n in range(count)
    ]


def put(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def ready(chatml: ChatTemplate, tmp_path: Path) -> Callable[..., Prepared]:
    def run(rows: list[dict[str, Any]], seed: int = 0, context: int = 512, **data: Any) -> Prepared:
        given = Data(train=[put(tmp_path, rows)], **data)
        return prepare(given, seed, lambda labels: chatml, context)

    return run


def adds_up(done: Prepared) -> None:
    ledger = done.ledger
    assert ledger["rows_in"] == ledger["kept"] + sum(ledger["left_out"].values())
    assert ledger["kept"] == ledger["train"] + ledger["held_out"] == len(done.train_chats) + len(done.held_out_chats)
    assert len(ledger["rows"]) == sum(ledger["left_out"].values())
    rows = [*done.train, *done.held_out]
    assert ledger["tokens"] == sum(r.length for r in rows) and ledger["learned_tokens"] == sum(r.learned for r in rows)


def test_every_row_is_rendered_and_the_ledger_adds_up(ready: Callable[..., Prepared], chatml: ChatTemplate) -> None:
    done = ready(some_rows())
    adds_up(done)
    assert (done.ledger["kept"], done.ledger["held_out"], done.format_name) == (60, 6, "instruction")
    assert done.train_chats[0].origin.extra == {"id": done.train_chats[0].origin.extra["id"]}
    for chat, row in zip(done.train_chats, done.train, strict=True):
        [again] = chatml.render(chat)
        assert np.array_equal(again.ids, row.ids) and np.array_equal(again.learn, row.learn)
        assert (row.origin.file, row.origin.line) == (chat.origin.file, chat.origin.line)
    assert done.files[0]["rows"] == 60 and len(done.data_sha256) == 64


def test_the_second_time_comes_from_the_cache_and_is_the_same(ready: Callable[..., Prepared]) -> None:
    first, second = ready(some_rows()), ready(some_rows())
    assert (first.cached, second.cached) == (False, True)
    assert [r.ids.tolist() for r in first.train] == [r.ids.tolist() for r in second.train]
    assert [r.learn.tolist() for r in first.held_out] == [r.learn.tolist() for r in second.held_out]
    assert first.held_out_chats == second.held_out_chats and first.findings == second.findings
    assert first.ledger == second.ledger and first.train_chats[3] == second.train_chats[3]


def test_anything_that_matters_makes_a_new_entry(
    ready: Callable[..., Prepared], bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ready(some_rows()).cached
    assert not ready(some_rows(), seed=1).cached
    assert not ready(some_rows(), held_out=5).cached
    assert not ready(some_rows(), context=400).cached
    changed = some_rows()
    changed[0]["output"] = "other"
    assert not ready(changed).cached
    for name in ("llama", "gemma"):  # another template over the same tokenizer
        template = ChatTemplate.from_folder(bases[name])
        assert not prepare(Data(train=[put(tmp_path, changed)]), 0, lambda labels, codec=template: codec, 512).cached
    monkeypatch.setattr(entries, "code_version", lambda: "another")
    assert not ready(changed).cached


def test_a_damaged_entry_is_noticed_and_made_again(ready: Callable[..., Prepared], own_cache: Path) -> None:
    good = ready(some_rows())
    [entry] = (own_cache / "rendered").glob("*.rows")
    content = entry.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
        entry.write_bytes(damaged)
        again = ready(some_rows())
        assert not again.cached and [r.ids.tolist() for r in again.train] == [r.ids.tolist() for r in good.train]
        assert ready(some_rows()).cached


def test_conversations_of_a_file_that_changed_meanwhile_are_refused(ready: Callable[..., Prepared]) -> None:
    done = ready(some_rows())
    Path(done.files[0]["path"]).write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="has changed"):
        done.train_chats[0]


def test_old_entries_are_forgotten(ready: Callable[..., Prepared], own_cache: Path) -> None:
    for seed in range(entries._KEPT_ENTRIES + 3):
        ready(some_rows(12), seed=seed)
    assert len(list((own_cache / "rendered").glob("*.rows"))) == entries._KEPT_ENTRIES


class AllLearned(ChatTemplate):
    """A codec of a task's own."""

    def render_many(self, chats: Sequence[Chat]) -> list[list[Rendered]]:
        return [[Rendered(r.ids, np.ones_like(r.learn), r.origin) for r in rows] for rows in super().render_many(chats)]


def test_a_task_s_own_codec_is_used(chatml: ChatTemplate, tmp_path: Path) -> None:
    codec = AllLearned(chatml._files)
    prepare(Data(train=[put(tmp_path, some_rows())]), 0, lambda labels: chatml, 512)  # and not the other's cached rows
    done = prepare(Data(train=[put(tmp_path, some_rows())]), 0, lambda labels: codec, 512)
    assert all(row.learn.all() for row in done.train)


def test_too_long_stops_by_default_and_names_the_rows(ready: Callable[..., Prepared]) -> None:
    rows = some_rows()
    rows[4]["instruction"] = "river " * 300
    with pytest.raises(DataError) as caught:
        ready(rows, max_length=64)
    for word in ("D301", "1 rows are longer than 64 tokens", "rows.jsonl:5", "data.too_long=truncate"):
        assert word in str(caught.value)


def test_too_long_rows_are_left_out_and_counted(ready: Callable[..., Prepared]) -> None:
    rows = some_rows()
    rows[4]["instruction"] = "river " * 300
    done = ready(rows, max_length=64, too_long="drop")
    adds_up(done)
    assert done.ledger["left_out"] == {"too_long": 1} and done.ledger["rows"][0]["line"] == 5


def test_truncation_cuts_context_and_never_an_answer(ready: Callable[..., Prepared], chatml: ChatTemplate) -> None:
    rows = some_rows()
    rows[4]["instruction"] = "river " * 300
    rows[6]["output"] = "river " * 300
    done = ready(rows, max_length=64, too_long="truncate", held_out=2)
    adds_up(done)
    assert done.ledger["left_out"] == {"answer_too_long": 1} and done.ledger["rows"][0]["line"] == 7
    assert done.ledger["cut"]["rows"] == 1 and done.ledger["cut"]["context_tokens"] > 200
    [cut] = [r for r in [*done.train, *done.held_out] if r.origin.line == 5]
    text = bracketed(cut, chatml)
    assert cut.length <= 64 and text.startswith("<|im_start|>user\n") and "⟦gull" not in text
    assert text.rstrip().endswith(f"⟦{rows[4]['output']}<|im_end|>⟧")


def test_max_length_beyond_the_base_is_refused(ready: Callable[..., Prepared]) -> None:
    with pytest.raises(DataError, match="the base holds 512 tokens"):
        ready(some_rows(), max_length=513)


def test_rows_with_nothing_to_learn_stop_or_are_counted(ready: Callable[..., Prepared]) -> None:
    rows = some_rows()
    rows[9]["output"] = " "
    with pytest.raises(DataError, match=r"D104(.|\n)*rows.jsonl:10"):
        ready(rows)
    done = ready(rows, allow_unlearned=True)
    adds_up(done)
    assert done.ledger["left_out"] == {"nothing_learned": 1}


def test_placeholders_stop_the_run_until_they_are_filled(ready: Callable[..., Prepared], chatml: ChatTemplate) -> None:
    rows = some_rows()
    rows[2]["output"] = "I am {{name}}."
    with pytest.raises(DataError, match=r"\{\{name\}\}(.|\n)*rows.jsonl:3(.|\n)*data.variables.name=…"):
        ready(rows)
    done = ready(rows, variables={"name": "Zed"})
    assert any("I am Zed." in bracketed(row, chatml) for row in [*done.train, *done.held_out])


def test_few_rows_are_an_error_unless_allowed(ready: Callable[..., Prepared]) -> None:
    with pytest.raises(DataError, match="D101"):
        ready(some_rows(9))
    assert ready(some_rows(9), allow_few=True).ledger["held_out"] == 2
    assert ready(some_rows(2), allow_few=True).ledger == ready(some_rows(2), allow_few=True).ledger


def test_copies_of_a_held_out_row_are_never_trained(ready: Callable[..., Prepared]) -> None:
    done = ready(some_rows(30) * 3, held_out=0.3)
    held = {chat.messages for chat in done.held_out_chats}
    assert held and not held & {chat.messages for chat in done.train_chats}


def test_rows_that_ask_the_same_stay_on_one_side(ready: Callable[..., Prepared]) -> None:
    rows = [{**row, "output": f"{row['output']} {WORDS[n % 14]} {n}"} for n, row in enumerate(some_rows(20) * 3)]
    done = ready(rows, held_out=0.3)
    held = {chat.messages[0] for chat in done.held_out_chats}
    assert held and not held & {chat.messages[0] for chat in done.train_chats}


def test_only_duplicates_cannot_be_split(ready: Callable[..., Prepared]) -> None:
    with pytest.raises(DataError, match="D101"):
        ready(some_rows(1) * 20)
    with pytest.raises(DataError, match="D402"):
        ready(some_rows(1) * 20, allow_few=True)


def talk(turns: int, number: int, opening: str | None = None) -> dict[str, Any]:
    """A conversation that says about each turn what no other says."""
    messages = [("user", opening), ("assistant", "Hello! What can I do for you?")] if opening else []
    for turn in range(turns):
        place = 37 * number + 11 * turn
        question, answer = (" ".join(WORDS[(place * k + k) % 15] for k in range(1, 9)) for place in (place, place + 5))
        messages += [("user", f"{number}.{turn}: {question}?"), ("assistant", f"{answer}, {place}.")]
    return {"messages": [{"role": role, "content": text} for role, text in messages]}


@pytest.mark.parametrize("seed", range(4))
def test_a_talk_that_was_written_down_after_each_turn_stays_on_one_side(
    ready: Callable[..., Prepared], seed: int
) -> None:
    done = ready([talk(turns, number) for number in range(12) for turns in (1, 2, 4, 5)], seed=seed, held_out=8)
    sides = [
        {chat.messages[0].content for chat in chats} for chats in (done.train_chats, done.held_out_chats)
    ]  # fmt: skip
    assert len(done.held_out_chats) == 8 and not sides[0] & sides[1]


def test_a_greeting_that_opens_every_talk_ties_none_of_them_together(ready: Callable[..., Prepared]) -> None:
    rows = [talk(2, number, "Hi") for number in range(12)] + [talk(0, 0, "Hi")]
    assert len(ready(rows, held_out=4).held_out_chats) == 4


def test_a_validation_talk_that_goes_on_from_a_training_row_overlaps(
    ready: Callable[..., Prepared], tmp_path: Path
) -> None:
    rows = [talk(1 + number % 4, number) for number in range(20)]
    held = [talk(1, 30), talk(5, 3), talk(2, 7), talk(6, 4)]  # one on its own; row 4 and a half, half of row 8, row 5
    done = ready(rows, validation=[put(tmp_path, held, "val.jsonl")])
    [overlap] = [finding for finding in done.findings if finding.code == "D401"]
    assert [(row.row, twin.row) for row, twin in zip(overlap.rows, overlap.others, strict=True)] == [
        (2, 4), (3, 8), (4, 5),
    ]  # fmt: skip
    assert "3 as a part of the same talk" in overlap.message


def test_rows_that_are_all_too_long_are_named_as_the_cause(ready: Callable[..., Prepared]) -> None:
    with pytest.raises(DataError, match="20 more are longer than 8 tokens") as caught:
        ready(some_rows(20), max_length=8, too_long="drop")
    assert "D402" in str(caught.value) and "rows.jsonl:1" in (caught.value.where or "")


def test_a_validation_file_that_overlaps_is_a_finding_with_its_rows(
    ready: Callable[..., Prepared], tmp_path: Path
) -> None:
    fresh = [{"instruction": f"Q {n} {WORDS[n]}", "output": f"A {n}"} for n in range(3)]
    validation = put(tmp_path, [*fresh, some_rows()[7]], "val.jsonl")
    done = ready(some_rows(), validation=[validation])
    adds_up(done)
    assert (done.ledger["train"], done.ledger["held_out"]) == (60, 4)
    [overlap] = [finding for finding in done.findings if finding.code == "D401"]
    assert [str(row) for row in overlap.rows] == [f"{validation}:4"]
    with pytest.raises(DataError, match="validation file is a training file"):
        ready(some_rows(), validation=[str(tmp_path / "rows.jsonl")])


def test_a_system_prompt_nobody_wrote_is_counted(shared: Path, tmp_path: Path) -> None:
    template = ChatTemplate.from_folder(shared / "models/minimind2-small")
    done = prepare(Data(train=[put(tmp_path, some_rows())]), 0, lambda labels: template, 512)
    assert done.ledger["template_system_rows"] == 60
    assert any(f.code == "D304" and "You are a helpful assistant" in f.message for f in done.findings)


def test_special_tokens_of_this_base_are_reported(ready: Callable[..., Prepared]) -> None:
    rows = some_rows()
    rows[0]["output"] = "ends <end_of_turn> here"
    assert "D207" in {finding.code for finding in ready(rows).findings}


@pytest.mark.parametrize(
    "file", ["identity/identity.json", "alpaca/alpaca_zh_demo.json", "medical_cot/medical_o1_demo.json"]
)
def test_real_files_add_up(shared: Path, chatml: ChatTemplate, file: str) -> None:
    given = Data(train=[str(shared / "data" / file)], variables={"name": "小智", "author": "Ann"})
    adds_up(prepare(given, 0, lambda labels: chatml, 100_000, cache=False))
