"""OpenAI's own schema, tried by schemathesis: whatever is sent, the server answers, and never with a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import Server

SERVED = ("/models", "/models/{model}", "/chat/completions", "/completions", "/embeddings")
REFUSED_IS_FINE = {200, 400, 404, 405, 413, 415}


@pytest.fixture(scope="module")
def cases(shared: Path, server: Server) -> list[Any]:
    """A handful of requests for each operation, valid and not, with our models' names in half of them."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, seed, settings

    document = json.loads((shared / "openai_api.json").read_text(encoding="utf-8"))
    document["paths"] = {
        path: {method: told for method, told in methods.items() if method in ("get", "post")}
        for path, methods in document["paths"].items()
        if path in SERVED
    }
    schema = schemathesis.openapi.from_dict(document)
    made: list[Any] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except Exception:  # an operation of which nothing can be wrong
                continue

            @seed(1)
            @settings(
                max_examples=8, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=strategy)
            def gather(case: Any) -> None:
                made.append(case)

            try:
                gather()
            except Exception as error:
                if "Unsatisfiable" not in type(error).__name__:
                    raise
    return made


def test_no_request_is_a_failure_of_the_server(cases: list[Any], server: Server) -> None:
    seen: dict[str, set[int]] = {}
    for number, case in enumerate(cases):
        if isinstance(case.body, dict) and number % 2:
            case.body = case.body | {"model": "town-1", "max_tokens": 2}
        response = case.call(base_url=server.url)
        seen.setdefault(case.operation.path, set()).add(response.status_code)
        assert response.status_code in REFUSED_IS_FINE, (case.operation.path, case.body, response.text)
        assert response.headers["x-request-id"][0].startswith("req_")
        if response.status_code >= 400:
            error = json.loads(response.text)["error"]
            assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert set(seen) == set(SERVED)
