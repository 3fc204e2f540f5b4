"""``tunewright data check --fix OUT``: a cleaned copy of what is certain, each change in a ledger; the input stays."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.cli.main import main
from tunewright.data.fix import _clean
from tunewright.data.mojibake import mended

Capture = pytest.CaptureFixture[str]


def row(question: str, answer: str, **more: str) -> dict[str, Any]:
    return {**more, "instruction": question, "output": answer}


def sound(count: int = 60) -> list[dict[str, Any]]:
    return [row(f"Tell me fact {n}.", f"The number {n} is {n * n} in all.", id=f"r{n}") for n in range(count)]


def put(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def codes(capsys: Capture, *words: str) -> dict[str, int]:
    assert main(["data", "check", *words, "--json"]) in (0, 2)
    return {finding["code"]: finding["count"] for finding in json.loads(capsys.readouterr().out)["findings"]}


ODD = [
    row("Tell me fact 3.", "The number 3 is 9 in all. \n"),
    row("Coffee?", "A cafÃ© with crÃ¨me, and â€œquotesâ€\x9d."),
    row("Bell?", "It \x07rings\ufeff and don\x92t stop."),
    row("Nothing?", "  "),
    row("Who are you?", "As an AI language model, I have no name."),
]


def test_the_copy_has_none_of_what_was_fixed_and_all_of_what_was_not(tmp_path: Path, capsys: Capture) -> None:
    path, out = put(tmp_path / "rows.jsonl", [*sound(), *ODD]), tmp_path / "clean.jsonl"
    before = Path(path).read_bytes()
    assert {"D104", "D201", "D205", "D206", "D211"} <= set(codes(capsys, path))
    assert main(["data", "check", path, "--fix", str(out)]) == 0
    told = capsys.readouterr().out
    assert "65 rows in = 63 kept + 2 removed; 2 changed" in told and "D211 (1)" in " ".join(told.split())
    assert told.rstrip().endswith(f"tunewright train {out}")
    assert Path(path).read_bytes() == before
    assert set(codes(capsys, str(out))) == {"D210", "D211"}
    rows = read(out)
    assert rows[:60] == sound() and len(rows) == 63
    assert rows[60]["output"] == "A café with crème, and “quotes”."
    assert rows[61]["output"] == "It rings and don’t stop."


def test_the_ledger_adds_up_and_names_each_row(tmp_path: Path) -> None:
    path, out = put(tmp_path / "rows.jsonl", [*sound(), *ODD]), tmp_path / "clean.jsonl"
    main(["data", "check", path, "--fix", str(out)])
    ledger = json.loads((tmp_path / "clean.jsonl.ledger.json").read_text(encoding="utf-8"))
    assert ledger["rows_in"] == ledger["kept"] + sum(ledger["removed"].values()) == 65
    assert ledger["removed"] == {"duplicate": 1, "nothing_to_learn": 1}
    assert ledger["changed"] == {"mojibake": 1, "control_characters": 1} and ledger["changed_rows"] == 2
    assert [(r["line"], r.get("removed") or r["changed"]) for r in ledger["rows"]] == [
        (61, "duplicate"), (64, "nothing_to_learn"), (62, ["mojibake"]), (63, ["control_characters"]),
    ]  # fmt: skip
    assert ledger["rows"][0]["detail"] == f"like {path}:4" and ledger["left"] == {"D211": 1}
    assert ledger["files"][0]["path"] == path and len(ledger["files"][0]["sha256"]) == 64


def test_clean_rows_come_out_as_they_went_in(tmp_path: Path) -> None:
    path, out = put(tmp_path / "rows.jsonl", sound()), tmp_path / "clean.jsonl"
    assert main(["data", "check", path, "--fix", str(out)]) == 0
    assert out.read_bytes() == Path(path).read_bytes()


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("cafÃ©", "café"),
        ("Ã¼ber â€™s", "über ’s"),
        ("ÃƒÂ©", "é"),  # wrong twice
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("\u4f60\u597d".encode().decode("latin-1"), "\u4f60\u597d"),
        ("il dit : « été\u00a0» et café…»", "il dit : « été\u00a0» et café…»"),
        ("crème brûlée – “fine”", "crème brûlée – “fine”"),
        ("SÃO PAULO", "SÃO PAULO"),
        ("lost \ufffd and 锟斤拷", "lost \ufffd and 锟斤拷"),
        ("你好 cafÃ©", "你好 café"),
        ("It\u00e2\u0080\u0099s", "It’s"),  # read as Latin-1, which leaves control characters
        ("prix 5 â‚¬", "prix 5 €"),
        ("Nice ðŸ˜€ smile", "Nice 😀 smile"),
        ("PRODUCCIÃ“N", "PRODUCCIÓN"),
        ("A palavra é “ALEMÃ”.", "A palavra é “ALEMÃ”."),
        ("la lettre «LÂ»", "la lettre «LÂ»"),
        ("O ÂNGULO Â°", "O ÂNGULO Â°"),
        ("25Â°C", "25°C"),
        ("涓枃娴嬭瘯", "涓枃娴嬭瘯"),
    ],
)
def test_mojibake_is_mended_where_the_way_back_is_exact(text: str, better: str) -> None:
    assert mended(text) == better and mended(better) == better


def test_what_latin_1_left_is_no_control_character(tmp_path: Path) -> None:
    rows = [*sound(), row("Whose?", "It\u00e2\u0080\u0099s a dog.")]
    out = tmp_path / "clean.jsonl"
    main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out)])
    assert read(out)[60]["output"] == "It’s a dog."
    assert json.loads((tmp_path / "clean.jsonl.ledger.json").read_text())["changed"] == {"mojibake": 1}


def test_a_row_about_broken_characters_keeps_those_it_shows(tmp_path: Path) -> None:
    rows = [*sound(), row("What is mojibake?", "Text that was read wrongly: “cafÃ©” for “café”."), row("Q", "a cafÃ©")]
    out = tmp_path / "clean.jsonl"
    main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out)])
    assert read(out)[60:] == [rows[60], row("Q", "a café")]


def test_signs_of_direction_stay_where_they_mean_something() -> None:
    assert _clean("\u202bשלום\u202c", {}) == "\u202bשלום\u202c"
    assert _clean("turned \u202e text", {}) == "turned  text"


def test_rows_that_differ_in_case_lines_or_indentation_stay(tmp_path: Path, capsys: Capture) -> None:
    code = "What does it print?\nx = 0\nfor i in range(3):\n    x += 1\n{}print(x)"
    rows = [
        *sound(),
        row("Swap the case: AbC", "aBc"), row("Swap the case: aBc", "AbC"),
        row("Is this YAML valid?\na:\n  b: 1", "Yes."), row("Is this YAML valid?\na:\nb: 1", "Yes."),
        row(code.format(""), "3"), row(code.format("    "), "1\n2\n3"),
        row("Count the spaces: a  b", "2"), row("Count the spaces: a b", "2"),
    ]  # fmt: skip
    path, out = put(tmp_path / "rows.jsonl", rows), tmp_path / "clean.jsonl"
    seen = codes(capsys, path)
    assert "D203" not in seen and seen.get("D201", 0) <= 1
    assert main(["data", "check", path, "--fix", str(out)]) == 0
    assert read(out) == rows


def test_the_copy_is_standard_json(tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "clean.jsonl"
    put(path, sound())
    with open(path, "a") as file:
        file.write('{"instruction": "Q", "output": "It is so.", "x": NaN, "y": [Infinity, 1e400, -Infinity, 1.5]}\n')
    assert main(["data", "check", str(path), "--fix", str(out)]) == 0

    def refuse(name: str) -> None:
        raise ValueError(name)

    last = [json.loads(line, parse_constant=refuse) for line in out.read_text().splitlines()][-1]
    assert last["x"] is None and last["y"] == ["Infinity", "Infinity", "-Infinity", 1.5]
    ledger = json.loads((tmp_path / "clean.jsonl.ledger.json").read_text())
    assert ledger["rows"] == [{"file": str(path), "line": 61, "row": 61, "changed": ["no_number"]}]


def labelled(labels: list[str]) -> list[dict[str, Any]]:
    return [{"text": f"Fact {n} is {n * 7}.", "label": label} for n, label in enumerate(labels)]


def test_labels_are_trimmed_and_spelt_as_most_are(tmp_path: Path, capsys: Capture) -> None:
    rows = labelled(["bad", "good"] * 30 + ["Good", " bad", "bad ", "GOOD", "not good", "not_good"])
    path, out = put(tmp_path / "rows.jsonl", rows), tmp_path / "clean.jsonl"
    assert "D504" in codes(capsys, path)
    main(["data", "check", path, "--fix", str(out)])
    assert [r["label"] for r in read(out)[60:]] == ["good", "bad", "bad", "good", "not good", "not_good"]
    assert "D504 (" in " ".join(capsys.readouterr().out.split())  # two words for one thing are for a person to join


def test_of_two_spellings_as_frequent_neither_is_taken(tmp_path: Path) -> None:
    rows = labelled(["bad", "good", "Good"] * 20)
    out = tmp_path / "clean.jsonl"
    main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out)])
    assert read(out) == rows


def test_contradictions_near_copies_and_secrets_stay(tmp_path: Path) -> None:
    rows = [*sound(), row("Tell me fact 5.", "It is another one."), row("Key?", "sk-abcdEFGH1234567890abcdEFGH12345")]
    out = tmp_path / "clean.jsonl"
    main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out)])
    assert read(out) == rows


def test_calls_that_differ_are_no_copies(tmp_path: Path) -> None:
    def talk(number: int) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "add", "arguments": json.dumps({"left": number})}}
        return {"messages": [{"role": "user", "content": "Add."}, {"role": "assistant", "tool_calls": [call]}]}

    rows, out = [talk(n) for n in range(12)], tmp_path / "clean.jsonl"
    main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out)])
    assert read(out) == rows


def test_the_ending_chooses_the_format(tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "rows.csv"
    lines = ["text,label", *(f'"Fact {n}, is ""{n}"".",{"ab"[n % 2]}' for n in range(30)), '"Fact 1, is ""1"".",b']
    table.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    for name in ("clean.csv", "clean.tsv", "clean.json", "clean.jsonl"):
        assert main(["data", "check", str(table), "--fix", str(tmp_path / name)]) == 0
        capsys.readouterr()
        assert codes(capsys, str(tmp_path / name)).keys() & {"D201", "D206"} == set()
    with open(tmp_path / "clean.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 and rows[1] == {"text": 'Fact 1, is "1".', "label": "b"}
    assert main(["data", "check", str(table), "--fix", ""]) == 2
    assert main(["data", "check", str(table), "--fix", str(tmp_path / "clean.txt")]) == 2
    assert ".jsonl, .ndjson, .json, .csv, .tsv" in capsys.readouterr().err


def test_rows_that_no_table_can_hold_are_refused(tmp_path: Path, capsys: Capture) -> None:
    answer = {"role": "assistant", "content": "So."}
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}, answer]} for n in range(12)]
    out = tmp_path / "clean.csv"
    assert main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out)]) == 2
    assert "clean.jsonl" in capsys.readouterr().err and not out.exists()


def test_text_files_become_rows(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.en").write_text("".join(f"House {n}.\n" for n in range(40)) + "House 3.\n", encoding="utf-8")
    (tmp_path / "a.fr").write_text("".join(f"Maison {n}.\n" for n in range(40)) + "Maison 3.\n", encoding="utf-8")
    out = tmp_path / "clean.jsonl"
    words = [str(tmp_path / "a.en"), f"data.target={tmp_path / 'a.fr'}"]
    assert main(["data", "check", *words, "--fix", str(out)]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"tunewright train {out}")
    assert read(out) == [{"source": f"House {n}.", "target": f"Maison {n}."} for n in range(40)]
    assert set(codes(capsys, str(out))) <= {"D102", "D210"}


def test_nothing_is_overwritten_without_being_asked(tmp_path: Path, capsys: Capture) -> None:
    path, out = put(tmp_path / "rows.jsonl", sound()), tmp_path / "clean.jsonl"
    out.write_text("mine", encoding="utf-8")
    assert main(["data", "check", path, "--fix", str(out)]) == 2
    assert out.read_text(encoding="utf-8") == "mine" and "--overwrite" in capsys.readouterr().err
    assert not (tmp_path / "clean.jsonl.ledger.json").exists()
    assert main(["data", "check", path, "--fix", str(out), "--overwrite"]) == 0 and len(read(out)) == 60


@pytest.mark.parametrize("name", ["rows.jsonl", "link.jsonl"])
def test_the_input_is_never_replaced(tmp_path: Path, capsys: Capture, name: str) -> None:
    path = put(tmp_path / "rows.jsonl", [*sound(), *ODD])
    (tmp_path / "link.jsonl").symlink_to(path)
    before = Path(path).read_bytes()
    assert main(["data", "check", path, "--fix", str(tmp_path / name), "--overwrite"]) == 2
    assert Path(path).read_bytes() == before and "replace its input" in capsys.readouterr().err


def test_a_copy_does_not_land_in_the_folder_that_is_read(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    put(folder / "rows.jsonl", sound())
    assert main(["data", "check", str(folder), "--fix", str(folder / "clean.jsonl")]) == 2
    assert "the folder that is read" in capsys.readouterr().err and len(list(folder.iterdir())) == 1


def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright import rundir
    from tunewright.errors import ResourceError

    def full(path: Path, content: str) -> None:
        raise ResourceError("the disk is full")

    json_writer = rundir.write_bytes
    monkeypatch.setattr(rundir, "write_text", lambda path, text: full(path, text) if path.suffix == ".jsonl"
                        else json_writer(path, text.encode()))  # fmt: skip
    assert main(["data", "check", put(tmp_path / "rows.jsonl", sound()), "--fix", str(tmp_path / "clean.jsonl")]) == 2
    assert [path.name for path in tmp_path.iterdir() if "clean" in path.name] == []


def test_a_file_without_a_row_to_keep_is_refused(tmp_path: Path, capsys: Capture) -> None:
    rows, out = [row(f"Q{n}", "") for n in range(12)], tmp_path / "clean.jsonl"
    assert main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out)]) == 2
    assert "no row would be left" in capsys.readouterr().err and not out.exists()


def test_what_still_stops_a_training_is_the_exit_code(tmp_path: Path, capsys: Capture) -> None:
    rows, out = [*sound(), row("Who?", "I am {{name}}.")], tmp_path / "clean.jsonl"
    assert main(["data", "check", put(tmp_path / "rows.jsonl", rows), "--fix", str(out), "--json"]) == 2
    fixed = json.loads(capsys.readouterr().out)["fixed"]
    assert fixed["errors"] == 1 and fixed["kept"] == 61 and fixed["format"] == "JSON Lines" and read(out) == rows


def test_real_data_is_cleaned_of_its_copies_and_nothing_else(shared: Path, tmp_path: Path, capsys: Capture) -> None:
    path, out = str(shared / "data/alpaca/alpaca_en_demo.json"), tmp_path / "clean.json"
    before = codes(capsys, path)
    assert main(["data", "check", path, "--fix", str(out)]) == 0
    capsys.readouterr()
    after = codes(capsys, str(out))
    assert before["D201"] and "D201" not in after and set(before) - set(after) == {"D201"}
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    assert len(json.loads(out.read_text(encoding="utf-8"))) == len(rows) - before["D201"]
