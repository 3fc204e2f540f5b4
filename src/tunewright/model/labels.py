"""Logits of labels: a number for each label and row, from a head on top of the base or from its own output matrix.

A row's ids are what the model reads, and behind them, where ``learn`` is True, what is wanted: the label's number, a 0
or 1 for each label, or the token that names the label. The model never sees the wanted part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from tunewright.example import Rendered
from tunewright.model.forward import HiddenStates, causal_model, collate
from tunewright.model.pooling import MARK


class LabelLogits(Protocol):
    """What a loss and an engine need to know of a model that chooses labels."""

    model: Any

    def __call__(self, rows: Sequence[Rendered]) -> torch.Tensor:
        """(rows, labels) fp32."""
        ...

    def wanted(self, rows: Sequence[Rendered]) -> torch.Tensor:
        """(rows, 1) int64: each row's label; or (rows, labels) of 0 and 1 where a row may have several."""
        ...


class LabelLoss:
    """Rows to their summed loss in nats, () fp32: cross entropy over the labels; with ``multi_label`` the binary cross
    entropy of each label by itself."""

    def __init__(self, logits: LabelLogits, multi_label: bool = False) -> None:
        self.logits, self.multi_label = logits, multi_label

    def __call__(self, rows: Sequence[Rendered]) -> torch.Tensor:
        logits = self.logits(rows)
        wanted = self.logits.wanted(rows).to(logits.device)
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="sum")
        return functional.cross_entropy(logits, wanted[:, 0], reduction="sum")


class TokenLogits:
    """Logits of the label tokens at the one place where a causal model would write one of them.

    label_ids: the token of each label, in the order of the labels' numbers. Of the output matrix only these rows are
    multiplied; a model that caps or scales its logits goes through its own head (see ``HiddenStates``).
    """

    def __init__(self, model: Any, label_ids: Sequence[int]) -> None:
        self.model = model
        self.states = HiddenStates(model)
        self.label_ids = torch.tensor(list(label_ids))
        self._number = {int(token): number for number, token in enumerate(label_ids)}

    def __call__(self, rows: Sequence[Rendered]) -> torch.Tensor:
        device = self.model.device
        ids = self.label_ids.to(device)
        reached = self.states(collate(rows, device))  # (rows, H), or (rows, V) of a model whose head is not plain
        if self.states.whole:
            return reached[:, ids].float()
        head = self.states.head
        bias = None if getattr(head, "bias", None) is None else head.bias[ids]
        return functional.linear(reached, head.weight[ids].to(reached.dtype), bias).float()

    def wanted(self, rows: Sequence[Rendered]) -> torch.Tensor:
        return torch.tensor([[self._number[int(row.ids[-1])]] for row in rows])


class LinearLogits:
    """Logits of a model for sequence classification, whichever way it finds the place that it classifies from.

    An encoder reads its first token or an average, and is told by the attention mask what is padding. A decoder of
    transformers takes the last token that is not its pad token, which is the wrong one where a text ends in that token
    (a base whose pad token ends texts too). So each batch is padded with a token that no row of it ends in, and the
    model is told that this is its pad token. Which of both a model is, is found by trying.

    separator: for models that number a pair's texts (BERT's token types): the id that ends the first text.
    """

    def __init__(self, model: Any, separator: int | None = None) -> None:
        self.model = model
        self.inner = causal_model(model)
        self.separator = separator
        self.pad = _pad_id(self.inner)
        _widen(self.inner)
        self.pools_last, self.causal = self._tried()

    def __call__(self, rows: Sequence[Rendered]) -> torch.Tensor:
        device = self.model.device
        texts = [row.ids[~row.learn] for row in rows]
        pad = _not_in({int(text[-1]) for text in texts}) if self.pools_last else self.pad
        longest = max(len(text) for text in texts)
        ids = torch.full((len(rows), longest), pad)
        mask = torch.zeros_like(ids)
        for index, text in enumerate(texts):
            ids[index, : len(text)] = torch.from_numpy(text.astype("int64"))
            mask[index, : len(text)] = 1
        given = {"input_ids": ids.to(device)}
        if not self.causal:  # there no real token sees padding on its right, and attention without a mask is quicker
            given["attention_mask"] = mask.to(device)
        if self.separator is not None:
            given["token_type_ids"] = token_types(ids, self.separator).to(device)
        with _pad_token(self.inner, pad if self.pools_last else None):
            logits: torch.Tensor = self.inner(**given).logits
        return logits.float()

    def wanted(self, rows: Sequence[Rendered]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(row.ids[row.learn].astype("int64")) for row in rows])

    @torch.no_grad()
    def _tried(self) -> tuple[bool, bool]:
        """(the model takes the last token that is not its pad token, and no token sees what stands right of it).

        The same short text, ended by one token or another: both of them padding, neither, or one.
        """
        training = self.inner.training
        self.inner.eval()
        text, one, other = [5, 6, 7], 8, 9

        def logits(end: int, pad: int) -> torch.Tensor:
            ids = torch.tensor([[*text, end, end]], device=self.model.device)
            with _pad_token(self.inner, pad):
                out: torch.Tensor = self.inner(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            return out

        try:
            pools_last = not torch.equal(logits(one, one), logits(one, other))
            return pools_last, pools_last and torch.equal(logits(one, one), logits(other, other))
        finally:
            self.inner.train(training)


def token_types(ids: torch.Tensor, separator: int) -> torch.Tensor:
    """(B, T) 0 up to and with the first separator of each row, 1 behind it, as BERT's kind numbers two texts.

    >>> token_types(torch.tensor([[101, 7, 102, 8, 102]]), 102).tolist()
    [[0, 0, 0, 1, 1]]
    """
    ends = (ids == separator).long()
    return ((ends.cumsum(1) - ends) > 0).long()


def is_classifier(model: nn.Module) -> bool:
    """Whether the model was loaded with a head for labels."""
    return "ForSequenceClassification" in type(causal_model(model)).__name__


def head_names(model: nn.Module) -> list[str]:
    """What a classifier has behind its last layer: the pooler of an encoder, and the modules on top that have weights;
    and the query that began at zero (``pooling.py``). Most of it is new, so that all of it is always trained."""
    inner = causal_model(model)
    body = str(inner.base_model_prefix)
    names = [f"{body}.pooler", *(name for name, _child in inner.named_children() if name != body)]
    names += [str(even)] if (even := getattr(inner.config, MARK, None)) else []
    found = dict(inner.named_modules())
    return [name for name in names if name in found and any(True for _p in found[name].parameters())]


def _pad_id(model: Any) -> int:
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    return 0 if pad is None else int(pad)


def _not_in(taken: set[int]) -> int:
    """The smallest id that is not ``taken``; at most as large as a batch."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


@contextlib.contextmanager
def _pad_token(model: Any, token: int | None) -> Iterator[None]:
    """While the block runs, ``token`` is what the model believes to be padding; None leaves it as it is."""
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [getattr(config, "pad_token_id", None) for config in configs]
    try:
        for config in configs if token is not None else ():
            config.pad_token_id = token
        yield
    finally:
        for config, value in zip(configs, before, strict=True):
            config.pad_token_id = value


def _widen(model: Any) -> None:
    """A head in fp32 on a body in bf16: states are made fp32 on their way in, so that what is new and small is
    computed exactly; what lies inside the body answers in the body's precision. Under autocast torch sees to it."""
    for name in head_names(model):
        module = model.get_submodule(name)
        if _cast not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_cast)
            if name == getattr(model.config, MARK, None):
                module.register_forward_hook(partial(_back, model.get_input_embeddings()))


def _back(embeddings: nn.Module, _module: nn.Module, _args: Any, out: torch.Tensor) -> torch.Tensor | None:
    return None if torch.is_autocast_enabled(out.device.type) else out.to(embeddings.weight.dtype)


def _cast(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    weight = next(p for p in reversed(list(module.parameters())) if p.is_floating_point())
    if not args or not isinstance(args[0], torch.Tensor) or torch.is_autocast_enabled(args[0].device.type):
        return None
    return (args[0].to(weight.dtype), *args[1:])
