"""Packed weights multiply as the unpacked ones did."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import model
from torch import nn

from tunewright.infer import packed
from tunewright.infer.packed import pack

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="packing is for CPUs with bf16 products; this one has none"
)
ROWS = [1, 2, 8, 40]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_multiplies_as_before(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layer = nn.Linear(64, 48, bias=bias, dtype=torch.bfloat16)
    given = torch.randn(1, rows, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        before = layer(given)
        assert pack(nn.Sequential(layer)) == 1
        torch.testing.assert_close(layer(given), before, rtol=2**-7, atol=2**-7)
    assert layer.weight.numel() == 0  # in memory once


def test_a_whole_model_says_the_same_and_keeps_its_embedding() -> None:
    ids = torch.tensor([[1, 20, 30, 40]])
    one = model("tied").to(torch.bfloat16)
    with torch.no_grad():
        before = one(ids).logits.float()
        assert pack(one) == 2 * 7 + 1
        after = one(ids).logits.float()
    assert float((after - before).abs().max()) < 0.02 * float(before.abs().max())
    assert one.get_input_embeddings().weight.numel() > 0


def test_fp32_and_other_kinds_of_layers_stay_as_they_are() -> None:
    assert pack(model("llama")) == 0
    assert pack(model("gpt2").to(torch.bfloat16)) == 1  # the output matrix; its other layers are of another class


def test_a_product_that_does_not_agree_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "CLOSE", -1.0)
    assert pack(nn.Sequential(nn.Linear(64, 48, dtype=torch.bfloat16))) == 0
