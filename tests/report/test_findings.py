"""The page of findings: one file, text escaped, secrets masked, the rows beside the finding."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tunewright.cli.main import main


@pytest.fixture
def page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    rows = [{"instruction": f"Say {n}", "output": f"The number is {n * 7} now."} for n in range(60)]
    rows[3] = dict(rows[1])
    rows[6]["output"] = "<script>alert(1)</script> As an AI language model, I am bob.smith@mailbox.org."
    rows[7]["output"] = ""
    path, out = tmp_path / "rows.jsonl", tmp_path / "page.html"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["data", "check", str(path), "--html", str(out)]) == 2
    assert "page.html" in capsys.readouterr().out
    return out.read_text(encoding="utf-8")


def test_the_page_is_one_file_without_script_or_request(page: str) -> None:
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page) and "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page and "default-src 'none'" in page


def test_each_finding_stands_with_its_severity_advice_and_rows(page: str) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2]).split())
    titles = {"D104": "Nothing to learn in a row", "D201": "Exact duplicates", "D601": "E-mail addresses"}
    for code, title in titles.items():
        assert f'id="{code}"' in page and f"{code} {title}" in text
    assert "One finding stops a training" in text and "rows.jsonl:8" in text
    assert re.search(r"rows\.jsonl:4 like \S*rows\.jsonl:2", text) and text.count("The number is 7 now.") == 2
    assert "Replace the addresses" in text


def test_a_persons_address_is_masked_wherever_it_stands(page: str) -> None:
    assert "bob.smith" not in page and "b…@m….org" in page
