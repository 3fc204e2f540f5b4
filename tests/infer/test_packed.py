"""Packed weights multiply as the unpacked ones did."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import model
from torch import nn

from tunewright.infer import packed
from tunewright.infer.packed import CLOSE, pack

ROWS = [1, 2, 8, 40]
KINDS = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(
            not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no products in bf16"
        ),
    ),
]

pytestmark = [
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch came without oneDNN"),
    pytest.mark.parametrize("dtype", KINDS, ids=str),
]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_multiplies_as_before(rows: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    layer = nn.Linear(64, 48, bias=bias, dtype=dtype)
    given = torch.randn(1, rows, 64, dtype=dtype)
    with torch.no_grad():
        before = layer(given)
        assert pack(nn.Sequential(layer)) == 1
        torch.testing.assert_close(layer(given), before, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    assert layer.weight.numel() == 0  # in memory once


def test_a_whole_model_says_the_same_and_keeps_its_embedding(dtype: torch.dtype) -> None:
    ids = torch.tensor([[1, 20, 30, 40]])
    one = model("tied").to(dtype)
    with torch.no_grad():
        before = one(ids).logits.float()
        assert pack(one) == 2 * 7 + 1
        after = one(ids).logits.float()
    assert float((after - before).abs().max()) < 2.5 * CLOSE[dtype] * float(before.abs().max())
    assert one.get_input_embeddings().weight.numel() > 0


def test_other_kinds_of_layers_stay_as_they_are(dtype: torch.dtype) -> None:
    assert pack(model("gpt2").to(dtype)) == 1  # the output matrix; its other layers are of another class
    assert pack(model("llama").to(torch.float64)) == 0


def test_a_product_that_does_not_agree_is_not_used(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setitem(packed.CLOSE, dtype, -1.0)
    assert pack(nn.Sequential(nn.Linear(64, 48, dtype=dtype))) == 0
