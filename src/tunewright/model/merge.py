"""An adapter added into the weights it sits on, so that a model can be served without PEFT."""

from __future__ import annotations

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from tunewright.model.load import quiet


def merged(model: PeftModel) -> PreTrainedModel:
    """The model with its adapter in its weights; ``model`` itself is used up.

    Sums are made in fp32, one layer after the other, and each weight is rounded once, back to the dtype it was loaded
    in: added in bf16, an update smaller than a weight's last bit would be lost twice. A classifier's head, which is
    trained whole, stays in fp32. An output matrix with an adapter is parted from the embedding that it was tied to,
    which nobody trained.
    """
    for layer in _adapted(model):
        weighted = layer.get_base_layer()
        _untie(model, weighted)
        kind = weighted.weight.dtype
        weighted.weight.data = weighted.weight.data.float()
        layer.merge()
        weighted.weight.data = weighted.weight.data.to(kind)
    with quiet():
        plain: PreTrainedModel = model.unload()  # the layers are merged; this takes PEFT's coat off
    plain.eval()
    return plain


def _adapted(model: PeftModel) -> list[BaseTunerLayer]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _untie(model: PeftModel, layer: nn.Module) -> None:
    embedding = model.get_base_model().get_input_embeddings()
    if embedding is not None and layer is not embedding and layer.weight is embedding.weight:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        for config in (model.get_base_model().config, model.get_base_model().config.get_text_config()):
            config.tie_word_embeddings = False
