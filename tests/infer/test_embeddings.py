"""Vectors of a base that only reads: pooled as the base says, of length one, the same alone and in company."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.encoders import write_encoder
from transformers import AutoModel

from tunewright.errors import BaseModelError
from tunewright.infer.embeddings import open_encoder, pooling_of
from tunewright.model.load import quiet
from tunewright.model.source import fetch

TEXTS = ["the river", "the bridge is older than the church and the town", "a [SEP] b", "bread"]


@pytest.fixture(params=["bert", "roberta"])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "encoder"
    folder.mkdir()
    return write_encoder(folder, request.param)


def say(folder: Path, **told: Any) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "max_tokens"])
def test_a_vector_is_what_the_base_says_it_is(base: Path, mode: str) -> None:
    say(base, **{f"pooling_mode_{name}": name == mode for name in ("mean_tokens", "cls_token", "max_tokens")})
    encoder = open_encoder(fetch(str(base)))
    with quiet():
        model = AutoModel.from_pretrained(base).eval()
    for row, vector in zip(encoder.read(TEXTS), encoder.vectors(encoder.read(TEXTS)), strict=True):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([row])).last_hidden_state[0]
        pooled = {"mean_tokens": states.mean(0), "cls_token": states[0], "max_tokens": states.amax(0)}[mode]
        assert np.allclose(vector, (pooled / pooled.norm()).numpy(), atol=1e-5)


def test_company_changes_nothing(base: Path) -> None:
    encoder = open_encoder(fetch(str(base)))
    rows = encoder.read(TEXTS)
    together = encoder.vectors(rows)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6) and together[0].shape == (encoder.size,)
    for row, vector in zip(rows, together, strict=True):
        assert np.allclose(encoder.vectors([row])[0], vector, atol=1e-6)


def test_a_typed_special_token_is_text(base: Path) -> None:
    encoder = open_encoder(fetch(str(base)))
    assert len(encoder.read(["a [SEP] </s> b"])[0]) > len(encoder.read(["a b"])[0]) + 2


def test_a_pooling_that_is_not_known_is_refused(base: Path) -> None:
    assert pooling_of(base) == "mean"
    say(base, pooling_mode_weightedmean_tokens=True)
    with pytest.raises(BaseModelError, match="weightedmean"):
        open_encoder(fetch(str(base)))
