"""Documents: where one ends and the next begins, with nothing lost between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.digest import clusters, digests
from tunewright.data.formats import Reading
from tunewright.data.inspect import inspect
from tunewright.data.load import Loaded, find, load
from tunewright.errors import DataError
from tunewright.recipe.schema import Data

DOCUMENTS = Reading("documents")


def loaded(*paths: Path, **data: Any) -> Loaded:
    given = Data(train=[str(path) for path in paths], **data)
    return load(given, *find(given), DOCUMENTS)


def texts(done: Loaded) -> list[str]:
    assert all([(m.role, m.learn) for m in chat.messages] == [("assistant", True)] for chat in done.chats)
    return [chat.messages[0].content for chat in done.chats]


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["text", "content"])
def test_a_column_of_documents(tmp_path: Path, name: str) -> None:
    rows = [{name: f"Document {n}", "url": "x"} for n in range(3)]
    done = loaded(put(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert texts(done) == ["Document 0", "Document 1", "Document 2"] and "url" in done.format_reason


def test_two_columns_of_documents_are_asked_about(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", json.dumps({"text": "a", "content": "b"}))
    with pytest.raises(DataError, match=r"data.columns.text=content"):
        loaded(path)
    assert texts(loaded(path, columns={"text": "content"})) == ["b"]


def test_rows_without_a_text_say_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.columns.text=COLUMN"):
        loaded(put(tmp_path, "a.jsonl", json.dumps({"a": "b", "c": "d"})))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wiki.txt", "\n = One = \n \n words \n = = Part = = \n more \n = Two = \n \n end \n"),
        ("notes.md", "# One\n\nwords\n\n## Part\n\nmore\n\n# Two\n\nend\n"),
    ],
)
def test_a_document_begins_at_each_heading_of_the_first_level(tmp_path: Path, name: str, text: str) -> None:
    done = loaded(put(tmp_path, name, text))
    assert len(done.chats) == 2 and "Part" in texts(done)[0] and "Two" in texts(done)[1]
    assert [chat.origin.line for chat in done.chats] == [text[: text.index(o)].count("\n") + 1 for o in ("One", "Two")]
    assert "heading" in done.format_reason


@pytest.mark.parametrize("between", ["\n\n", "\n"], ids=["blank lines", "line ends"])
def test_a_long_text_without_headings_is_cut_and_nothing_is_lost(tmp_path: Path, between: str) -> None:
    paragraphs = [f"Paragraph {n} says: " + f"{n} and so on, " * 40 for n in range(60)]
    text = between.join(paragraphs)
    done = loaded(put(tmp_path, "book.txt", text))
    assert between.join(texts(done)) == text and 5 <= len(done.chats) <= 9
    assert all(2000 <= len(piece) <= 6000 for piece in texts(done)) and "4000 characters" in done.format_reason
    assert all(text.split("\n")[c.origin.line - 1] == c.messages[0].content.split("\n")[0] for c in done.chats)


def test_many_files_are_a_document_each(tmp_path: Path) -> None:
    for n in range(12):
        put(tmp_path, f"{n:02}.txt", f"File {n}\n\n" + "long " * 2000)
    done = loaded(tmp_path)
    assert len(done.chats) == 12 and done.format_reason == "each file is a document"


def test_wikitext_has_its_articles(shared: Path) -> None:
    path = shared / "data" / "text" / "wikitext2_valid.txt"
    done = loaded(path)
    assert len(done.chats) == 60
    assert "".join("".join(texts(done)).split()) == "".join(path.read_text(encoding="utf-8").split())
    assert {f.code for f in inspect(done, Data(), DOCUMENTS)} == {"D210"}


def test_documents_are_not_said_to_ask_the_same(tmp_path: Path) -> None:
    rows = [{"text": f"Document {n} about {n * 7} things"} for n in range(30)]
    done = loaded(put(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert {f.code for f in inspect(done, Data(), DOCUMENTS)} == {"D210"}
    _near, together = clusters(done.chats, digests(done.chats), "documents")
    assert len(set(together.tolist())) == 30


def test_an_empty_document_stops_at_its_row(tmp_path: Path) -> None:
    rows = [{"text": f"Document {n}"} for n in range(12)] + [{"text": " "}]
    done = loaded(put(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))))
    [finding] = [f for f in inspect(done, Data(), DOCUMENTS) if f.code == "D104"]
    assert finding.severity == "error" and finding.rows[0].line == 13


def test_markup_in_braces_is_a_warning_in_running_text(tmp_path: Path) -> None:
    rows = [{"text": f"Document {n} {{{{reflist}}}}"} for n in range(12)]
    done = loaded(put(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))))
    [finding] = [f for f in inspect(done, Data(), DOCUMENTS) if f.code == "D103"]
    assert finding.severity == "warning"


def test_text_and_tables_are_not_read_together(tmp_path: Path) -> None:
    table = put(tmp_path, "a.jsonl", json.dumps({"text": "a"}))
    with pytest.raises(DataError, match="files of one kind"):
        loaded(table, put(tmp_path, "b.txt", "words"))
