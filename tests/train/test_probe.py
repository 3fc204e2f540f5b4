"""``tunewright plan DATA --probe``: broken data is told from good data, and nothing is left behind."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import quick

from tunewright.cli.main import main
from tunewright.example import Origin, Rendered
from tunewright.train import probe

FULL = ["train.method=full", "train.learning_rate=0.002"]  # by heart within seconds, by a tiny model of random weights
WORDS = ["river", "bridge", "church", "valley", "town", "hill", "sea", "bread", "water", "salt", "note", "small"]


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    turns = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in rows
    ]
    path.write_text("\n".join(map(json.dumps, turns)) + "\n", encoding="utf-8")
    return path.name


def said() -> list[tuple[str, str]]:
    return [(f"What is the {word} number {n}?", f"The {word} is old and grey.") for n, word in enumerate(WORDS * 4)]


def probed(source: str, base: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["plan", source, *quick(base, *more), "--probe", "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out)["probe"])


def test_good_rows_are_given_back(home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = probed(write(home / "good.jsonl", said()), tiny_base, capsys, *FULL)
    assert found["rows"] == 32 and found["right"][0] == 0 and found["contradicting"] == []
    assert found["verdict"] != "not learnable" and found["curve"][-1] < 0.2 * found["curve"][0]


def test_one_prompt_with_many_answers_is_not_learnable(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [("Tell me something.", answer + f" {n}") for n, (_asked, answer) in enumerate(said())]
    more = ["data.validation=town.jsonl", "data.held_out=auto"]
    found = probed(write(home / "many.jsonl", many), tiny_base, capsys, *FULL, *more)
    assert found["verdict"] == "not learnable" and found["right"][1] <= 4
    assert "32 of 32 rows answer a prompt that other rows answer otherwise" in found["why"]
    assert "many.jsonl:1" in found["why"]


def test_it_leaves_no_run_behind_and_tells_people(
    home: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in home.iterdir()} | {"cache"}
    assert main(["plan", "town.jsonl", *quick(tiny_base, *FULL), "--probe"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert {path.name for path in home.iterdir()} <= before
    assert [line.split()[0].rstrip(":") for line in out[-3:-1]] == ["Probe", "Loss"] and "█" in out[-2]
    assert out[-1].split(":")[0] in ("Learnable", "Doubtful", "Not learnable")


def test_shuffled_labels_are_doubted_and_true_ones_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.encoders import write_encoder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "base").mkdir()
    base = write_encoder(tmp_path / "base")
    texts = [f"{word} number {n} is {'good' if n % 2 else 'bad'}" for n, word in enumerate(WORDS * 20)]
    labels = ["good" if n % 2 else "bad" for n in range(len(texts))]
    verdicts = []
    for name in ("true", "shuffled"):
        rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        more = [f"base={base}", "task=classify", "train.precision=fp32", "data.held_out=8"]  # too few to tell by
        assert main(["plan", f"{name}.jsonl", *more, "--probe", "--json"]) == 0
        verdicts.append(json.loads(capsys.readouterr().out)["probe"])
        random.Random(0).shuffle(labels)
    assert verdicts[0]["link"]["low"] > 0.2 and "nothing chooses labels better" not in verdicts[0]["why"]
    assert verdicts[1]["link"]["low"] <= 0 and verdicts[1]["verdict"] != "learnable"


@pytest.mark.slow
def test_answers_that_belong_to_other_prompts_are_doubted(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base knows Chinese, and sees that an answer has nothing to do with what was asked. It is asked before any row
    is learned, so that one pass over them is enough here."""
    monkeypatch.setattr(probe, "PASSES", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    rows = json.loads((shared / "data/alpaca/alpaca_zh_demo.json").read_text(encoding="utf-8"))[:200]
    links = []
    for name in ("true", "shuffled"):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        base = shared / "models/minimind2-small"
        links.append(probed(f"{name}.json", base, capsys, "train.learning_rate=1e-3", "data.held_out=10"))
        outputs = [row["output"] for row in rows]
        random.Random(0).shuffle(outputs)
        rows = [row | {"output": output} for row, output in zip(rows, outputs, strict=True)]
    assert links[0]["link"]["low"] > 0 and links[0]["other"] > 1.02 * links[0]["own"]
    assert links[1]["link"]["value"] < 0.5 * links[0]["link"]["value"]


# ---- its parts ---------------------------------------------------------------------------------------------------


def row(ids: list[int], learn: list[int], line: int = 1) -> Rendered:
    return Rendered(np.array(ids, np.int32), np.array(learn, np.bool_), Origin("a.jsonl", line, line))


def test_a_row_ends_with_its_first_answer() -> None:
    cut = probe.first_answer(row([1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 0, 1]))
    assert cut.ids.tolist() == [1, 2, 3, 4] and cut.learned == 2
    long = probe.first_answer(row([1] * 60, [0] + [1] * 59))
    assert long.learned == probe.LEARNED


def test_rows_with_one_prompt_and_two_answers_contradict() -> None:
    rows = [row([1, 2, 3], [0, 0, 1], 1), row([1, 2, 4], [0, 0, 1], 2), row([5, 2, 3], [0, 0, 1], 3)]
    assert probe.contradicting(rows) == ["a.jsonl:1", "a.jsonl:2"]
    assert probe.contradicting([rows[0], rows[0], rows[2]]) == []


def judged(**values: Any) -> probe.Probed:
    given: dict[str, Any] = {
        "verdict": "learnable", "why": "", "rows": 32, "seconds": 9.0, "curve": [3.0, 2.0, 1.0, 0.1], "right": (0, 30)
    }  # fmt: skip
    return probe.judged(probe.Probed(**given | values), labels=False)


def test_the_verdict_follows_from_what_was_measured() -> None:
    link = {"value": 0.8, "low": 0.5, "high": 1.1, "n": 32}
    assert judged(own=2.0, other=2.8, link=link).verdict == "learnable"
    nothing = {"value": 0.01, "low": -0.2, "high": 0.2, "n": 32}
    assert judged(own=2.0, other=2.01, link=nothing).verdict == "doubtful"
    flat = [3.0, *[2.9] * probe.PASSES, 2.9]
    assert judged(curve=flat, right=(0, 1)).verdict == "not learnable"
    assert judged(curve=[3.0, 2.8, 2.2, 2.1], right=(0, 1)).verdict == "doubtful"  # time was up
