"""The lines that are shown can be run as they stand."""

from __future__ import annotations

import json
import shlex

import pytest

from tunewright.infer.live import Card
from tunewright.serve import snippets

GIVES = ("answers", "outputs", "labels", "vectors", "likelihood")
ASKED = "Who's there? „Ich“ — 你是谁？"


@pytest.mark.parametrize("gives", GIVES)
@pytest.mark.parametrize("key", [True, False])
def test_curl_is_read_by_a_shell_as_it_is_meant(gives: str, key: bool) -> None:
    words = shlex.split(snippets.curl("identity-1", gives, ASKED, key=key).replace("\\\n", ""))
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "identity-1"
    assert ASKED in json.dumps(body, ensure_ascii=False)
    assert words[1].startswith("http://127.0.0.1:8000/v1/")
    assert any("Bearer" in word for word in words) == key


@pytest.mark.parametrize("gives", GIVES)
@pytest.mark.parametrize("key", [True, False])
def test_python_compiles_and_names_the_model(gives: str, key: bool) -> None:
    code = snippets.python("identity-1", gives, ASKED, key=key)
    compile(code, "snippet", "exec")
    assert '"identity-1"' in code
    assert ASKED in code
    assert ("os.environ" in code) == key


def test_a_question_of_the_person_s_own_data_is_asked_where_one_is_short() -> None:
    assert snippets.question(["x" * 500, "two\nlines", "Where is the harbour?"]) == "Where is the harbour?"
    assert snippets.question([]) is None


def test_a_model_that_does_not_chat_is_shown_with_the_path_that_it_has() -> None:
    for gives, chats, path in (
        ("answers", True, "chat/completions"),
        ("answers", False, "completions"),
        ("outputs", True, "chat/completions"),
        ("labels", False, "classify"),
        ("vectors", False, "embeddings"),
    ):
        kind = snippets.gives_of(Card("it's", 0, "b", gives, None, chats))  # type: ignore[arg-type]
        words = shlex.split(snippets.curl("it's", kind, url="http://h/v1", key=True).replace("\\\n", ""))
        assert words[1] == f"http://h/v1/{path}" and "Authorization: Bearer $TUNEWRIGHT_KEY" in words
        assert json.loads(words[-1])["model"] == "it's"
