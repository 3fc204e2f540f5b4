"""Readers are strict, and say file and line."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from tunewright.data.files import sources
from tunewright.data.read import read
from tunewright.errors import DataError

ROW = '{"instruction": "a", "output": "b"}'


def rows(path: Path, limit: int | None = None) -> list[tuple[dict[str, object], int, int]]:
    return [(r.fields, r.origin.line, r.origin.row) for r in read(sources([str(path)]), limit)]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def refused(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        list(read(sources([str(path)])))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.json", '[\n  {"a": "1"},\n\n  {"a":\n "2"}, {"a": "3"}\n]\n', [2, 4, 5]),
        ("a.jsonl", '{"a": "1"}\n\n{"a": "2"}\r\n{"a": "3"}', [1, 3, 4]),
        ("a.json", '{"a": "1"}\n{"a": "2"}\n{"a": "3"}\n', [1, 2, 3]),
        ("a.json", '{\n"a": "1"}\n{"a":\n"2"}\n{"a": "3"}\n', [1, 3, 5]),
        ("a.csv", 'a\n1\n"2"\n3\n', [2, 3, 4]),
        ("a.tsv", "a\tb\n1\tx\n2\ty\n3\tz\n", [2, 3, 4]),
    ],
)
def test_each_row_knows_its_line(tmp_path: Path, name: str, content: str, lines: list[int]) -> None:
    found = rows(put(tmp_path, name, content))
    assert [(fields["a"], line, number) for fields, line, number in found] == [
        (str(n), line, n) for n, line in enumerate(lines, start=1)
    ]


def test_a_quoted_cell_may_hold_lines_and_the_next_row_still_knows_its_own(tmp_path: Path) -> None:
    found = rows(put(tmp_path, "a.csv", 'q,a\n"one\ntwo","x ""y"""\nthree,z\n'))
    assert found == [({"q": "one\ntwo", "a": 'x "y"'}, 2, 1), ({"q": "three", "a": "z"}, 4, 2)]


def test_semicolons_separate_where_the_header_has_no_comma(tmp_path: Path) -> None:
    assert rows(put(tmp_path, "a.csv", "q;a\nx, y;z\n"))[0][0] == {"q": "x, y", "a": "z"}


def test_bars_separate_where_the_header_has_nothing_else(tmp_path: Path) -> None:
    assert rows(put(tmp_path, "a.csv", 'q|a\nx, y; z|"a ""b"""\n'))[0][0] == {"q": "x, y; z", "a": 'a "b"'}


def test_parquet_rows_have_numbers_and_no_lines(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"q": ["x", None], "m": [[{"role": "user"}], []]}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == [({"q": "x", "m": [{"role": "user"}]}, 0, 1), ({"q": None, "m": []}, 0, 2)]


def test_numbers_get_the_names_that_a_parquet_file_has_for_them(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"_type": "ClassLabel", "names": ["neg", "pos"]}, "n": {"_type": "Value", "dtype": "int64"}}
    table = pa.table({"text": list("abcd"), "label": [1, 0, -1, None], "n": [1, 0, 1, 0]})
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "a.parquet")
    assert [fields["label"] for fields, _line, _row in rows(tmp_path / "a.parquet")] == ["pos", "neg", None, None]
    assert [fields["n"] for fields, _line, _row in rows(tmp_path / "a.parquet")] == [1, 0, 1, 0]
    for other in (b"{", b"[]", b'{"info": {"features": {"label": 3}}}', b'{"info": {"features": {"label": {}}}}'):
        pq.write_table(table.replace_schema_metadata({b"huggingface": other}), tmp_path / "a.parquet")
        assert [fields["label"] for fields, _line, _row in rows(tmp_path / "a.parquet")] == [1, 0, -1, None]


def test_a_folder_is_read_sorted_and_limit_takes_the_first_rows_of_all(tmp_path: Path) -> None:
    put(tmp_path, "b.jsonl", ROW.replace("a", "second") + "\n")
    put(tmp_path, "a.jsonl", ROW + "\n" + ROW + "\n")
    put(tmp_path, ".DS_Store", b"\0")
    assert [Path(r.origin.file).name for r in read(sources([str(tmp_path)]))] == ["a.jsonl", "a.jsonl", "b.jsonl"]
    assert len(list(read(sources([str(tmp_path)]), limit=2))) == 2


def test_limit_does_not_read_what_stands_behind(tmp_path: Path) -> None:
    assert len(rows(put(tmp_path, "a.jsonl", ROW + "\n{broken\n"), limit=1)) == 1


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    assert len(rows(put(tmp_path, "a.jsonl", codecs.BOM_UTF8 + ROW.encode()))) == 1
    assert "q" in rows(put(tmp_path, "a.csv", codecs.BOM_UTF8 + b"q,a\n1,2\n"))[0][0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", ROW + '\n{"instruction": "x", "output":\n' + ROW, ["broken JSON at line 2", "a.jsonl:2"]),
        ("a.json", f'[{ROW},\n{{"a": }}]', ["broken JSON at line 2, column 7", "a.json:2"]),
        ("a.json", f"[{ROW}\n{ROW}]", ["comma", "a.json:2"]),
        ("a.json", f"[{ROW},\n{ROW}", ["ends before the closing bracket", "a.json:2"]),
        ("a.json", f"[{ROW},\n]", ["comma stands before", "a.json:2"]),
        ("a.json", f"[{ROW}]\n{ROW}", ["after the closing bracket", "a.json:2"]),
        ("a.json", "[" * 100_000, ["nested too deeply"]),
        ("a.json", "[1]", ["the row is a number", "a.json row 1"]),
        ("a.jsonl", ROW + "\n[1]\n", ["the row is a list", "a.jsonl:2"]),
        ("a.jsonl", '{"a": 1, "a": 2}', ["names the field 'a' twice"]),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", ["broken JSON at line 1"]),
        ("a.json", "[]", ["holds no row"]),
        ("a.json", "", ["is empty"]),
        ("a.csv", " \n ", ["is empty"]),
        ("a.csv", "q,a\n", ["holds no row"]),
        ("a.parquet", "", ["is empty"]),
        ("a.parquet", "PAR1 nonsense PAR1", ["damaged", "a.parquet"]),
        ("a.csv", "q,q\n1,2\n", ["names a column twice: q", "a.csv:1"]),
        ("a.csv", "q,\n1,2\n", ["column 2 has no name"]),
        ("a.csv", "q,a\n1,2\n1,2,3\n", ["has 3 cells, the header has 2", "a.csv:3"]),
        ("a.csv", 'q,a\n1,2\n"1,2\n3,4\n', ["table is broken", "a.csv:3"]),
        ("a.jsonl", ROW.encode() + b"\n\0", ["NUL", "a.jsonl:2"]),
        ("a.txt", "hello", ["'.txt' is no kind of file"]),
        ("a", "hello", ["'a' is no kind of file"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, name: str, content: str, words: list[str]) -> None:
    message = refused(put(tmp_path, name, content))
    for word in words:
        assert word in message
    assert "type:" in message


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("big5", "BIG5"),
        ("gb18030", "GB18030"),
        ("cp1252", "WINDOWS-1252"),
        ("shift_jis", "SHIFT_JIS"),
        ("euc_kr", "EUC_KR"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, encoding: str, named: str) -> None:
    text = {
        "gb18030": "你好，我是一个助手，很高兴认识你。",
        "utf-16-le": "你好，我是一个助手，很高兴认识你。" * 9,  # in which few bytes are zero
        "big5": "你好，我是一個助手，很高興認識你。",
        "cp1252": "“déjà vu” – naïve café",
        "shift_jis": "こんにちは、元気ですか。これはテストです。",
        "euc_kr": "안녕하세요. 저는 도우미입니다.",
    }.get(encoding, "plain words that are long enough")
    message = refused(put(tmp_path, "a.jsonl", ("\n" + ROW.replace("a", text)).encode(encoding)))
    assert named in message and "a.jsonl:" in message and f"iconv -f {named}" in message


def test_rows_that_share_their_only_line_are_named_by_number(tmp_path: Path) -> None:
    path = str(put(tmp_path, "a.json", f"[{ROW}, {ROW}]"))
    assert [str(row.origin) for row in read(sources([path]))] == [f"{path} row 1", f"{path} row 2"]


def test_a_file_of_two_encodings_is_not_to_be_converted_as_a_whole(tmp_path: Path) -> None:
    rows = [ROW.replace("a", word).encode(code) for word, code in (("né", "utf-8"), ("où", "utf-8"), ("ça", "cp1252"))]
    message = refused(put(tmp_path, "a.jsonl", b"\n".join(rows)))
    assert "mixes encodings: 1 lines" in message and "a.jsonl:3" in message and "iconv" not in message


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, "identity.json", "[]")
    assert "did you mean" in (message := refused(tmp_path / "identiti.json")) and "identity.json" in message
    assert "no folder" in refused(tmp_path / "nowhere" / "a.json")


def test_unknown_files_in_a_folder_are_named(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", ROW)
    put(tmp_path, "notes.md", "x")
    assert "notes.md" in refused(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no data file" in refused(tmp_path / "empty")


def test_a_file_given_twice_is_refused(tmp_path: Path) -> None:
    path = str(put(tmp_path, "a.jsonl", ROW))
    with pytest.raises(DataError, match="given twice"):
        sources([path, path])
