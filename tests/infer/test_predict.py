"""What a run says of rows: the same as its engine says of them alone, with everything that was left out named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright.api import Run
from tunewright.errors import DataError, RunError
from tunewright.infer.predict import plain, reading_of
from tunewright.recipe.schema import Recipe
from tunewright.tasks import TASKS


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder.parents[1])
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(folder.parents[1] / "cache"))
    return Run.open(folder)


def without_place(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key not in ("file", "line", "row")} for one in results]


def test_labels_are_those_of_each_text_alone(label_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(label_run, monkeypatch)
    texts = ["The river rises in the hills 3", "the bridge is older than the church", "what is the name of the river?"]
    together = run.predict(texts)
    assert [one["label"] for one in together] == ["wet", "dry", "wet"]
    assert together != run.predict(texts, tuned=False)
    for one, text in zip(together, texts, strict=True):
        [alone] = run.predict([{"text": text, "label": "not known"}])
        assert alone["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)


def test_answers_are_those_of_a_chat(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(tiny_run, monkeypatch)
    questions = [f"What is the river number {i} called?" for i in range(3)]
    got = run.predict([{"question": question} for question in questions], max_new_tokens=12)
    assert [one["answer"] for one in got] == [run.chat(question, max_new_tokens=12) for question in questions]
    assert all(one["thinking"] is None and isinstance(one["stopped"], bool) for one in got)


def test_thinking_stands_apart_from_the_answer(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(tiny_run, monkeypatch)
    opening = run._open(True)
    ids = opening.engine.template._encoder.encode("<think>\nThe river.\n</think>\n\nHarrow")
    monkeypatch.setattr(opening.engine.model, "generate", lambda input_ids, **_more: _with(input_ids, ids))
    [got] = run.predict(["Which town?"])
    assert (got["answer"], got["thinking"]) == ("Harrow", "The river.")


def _with(prompt: Any, ids: list[int]) -> Any:
    import torch

    return torch.cat([prompt, torch.tensor([ids])], dim=1)


def test_outputs_are_those_of_each_source_alone(pair_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(pair_run, monkeypatch)
    got = run.predict(["salt 3", "salt 14"], max_new_tokens=6)
    assert [one["input"] for one in got] == [{"text": "salt 3"}, {"text": "salt 14"}]
    for one in got:
        [alone] = run.predict([{"source": one["input"]["text"], "target": "x"}], max_new_tokens=6)
        assert alone["output"] == one["output"] and set(alone) >= {"output", "stopped"}


@pytest.mark.parametrize("kind", ["tiny_run", "pair_run", "label_run"])
def test_a_row_that_is_too_long(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(request.getfixturevalue(kind), monkeypatch)
    rows = ["the river", "the river and the bridge " * 200]
    with pytest.raises(DataError, match="rows row 2"):
        run.predict(rows, max_new_tokens=4)
    kept, skipped = run.predict(rows, too_long="skip", max_new_tokens=4)
    assert "skipped" not in kept and "too long" in skipped["skipped"]
    kept_too, cut = run.predict(rows, too_long="truncate", max_new_tokens=4)
    assert kept_too == kept and cut["truncated"] > 100 and "skipped" not in cut


def test_a_row_without_text(label_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(label_run, monkeypatch)
    with pytest.raises(DataError, match="it has no text"):
        run.predict(["a", " "])
    assert "skipped" in run.predict(["a", " "], empty="skip")[1]
    assert run.predict([]) == []


def test_a_run_on_plain_texts_has_nothing_to_predict() -> None:
    with pytest.raises(RunError, match="it has no labels, outputs or answers"):
        reading_of(TASKS["pretrain"], Recipe(), ())


def test_fields_are_written_as_standard_json() -> None:
    from datetime import date

    assert plain({"a": float("nan"), 1: (date(2020, 1, 2), b"x"), "c": [None, True, 1.5]}) == {
        "a": None, "1": ["2020-01-02", "b'x'"], "c": [None, True, 1.5],
    }  # fmt: skip
