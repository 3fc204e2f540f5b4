"""Many LoRA adapters over one base, each token with the adapter of its own request.

The base's layers stay as they are, so its weights are in memory once. Behind each layer that an adapter of some run
sits on, a hook adds the update to the tokens that it belongs to; a batch may hold the tokens of several runs and of the
base itself: then the adapters lie side by side as one of larger rank, and a mask leaves each token its own part. The
arithmetic is PEFT's (``x A B`` times alpha/rank in fp32, added, rounded once), for one adapter to the bit.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright.errors import RunError
from tunewright.text import _

STACKED = 4  # combinations of adapters that are kept side by side
# What an adapter's configuration may not ask for, because the hooks here do not do it.
UNKNOWN = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "lora_bias")


@dataclass(frozen=True, slots=True)
class Update:
    """One layer's part of an adapter. down: (rank, in).  up: (out, rank), times alpha/rank; both fp32."""

    down: torch.Tensor
    up: torch.Tensor


class Adapters:
    """most: adapters kept in memory; the one used longest ago leaves first, but none that a request still needs.
    still: a context in which the model does not run, entered to put a hook into it."""

    def __init__(self, model: nn.Module, most: int, still: Callable[[], AbstractContextManager[None]]) -> None:
        self.model, self.most, self.still = model, most, still
        self.folders: dict[str, Path] = {}
        self.loaded: OrderedDict[str, dict[str, Update]] = OrderedDict()
        self.in_use: Counter[str] = Counter()
        self.now: dict[str, Update] = {}  # of the batch under way: each layer's update
        self.mask: torch.Tensor | None = None  # (tokens, ranks): which token has which adapter; None if all have one
        self.stacked: OrderedDict[tuple[str, ...], dict[str, Update]] = OrderedDict()
        self.hooked: set[str] = set()
        self.lock = threading.Lock()

    def offer(self, name: str, folder: Path) -> None:
        """``name`` may be asked for from now on; nothing is read yet."""
        self.folders[name] = folder

    def hold(self, name: str) -> None:
        """A request begins that needs ``name``; its adapter is read if it is not in memory. Raises RunError if it is
        damaged, of a kind that is not served, or does not fit the base."""
        with self.lock:
            if name not in self.loaded:
                updates = _read(self.model, self.folders[name])
                self._attach(updates)
                self.loaded[name] = updates
            self.loaded.move_to_end(name)
            self.in_use[name] += 1
            self._make_room()

    def release(self, name: str) -> None:
        with self.lock:
            self.in_use[name] -= 1
            self._make_room()

    def route(self, spans: Sequence[tuple[str | None, int]]) -> None:
        """Whose the next batch's tokens are: (adapter, tokens) of each request, in the order of the packed row.

        An adapter that has left belongs to a request whose client has: its tokens are read by nobody.
        """
        asked = sorted({name for name, _tokens in spans if name is not None})
        mine = {name: found for name in asked if (found := self.loaded.get(name)) is not None}
        names = tuple(mine)
        self.mask = None
        if not names:
            self.now = {}
        elif len(names) == 1 and all(name in mine for name, _tokens in spans):
            self.now = mine[names[0]]
        else:
            self.now = self._together(mine)
            device = next(self.model.parameters()).device
            places = torch.tensor([names.index(name) if name in mine else -1 for name, _tokens in spans])
            whose = places.repeat_interleave(torch.tensor([tokens for _name, tokens in spans]))  # (tokens,)
            blocks = torch.cat([torch.full((_rank(one),), n) for n, one in enumerate(mine.values())])  # (ranks,)
            self.mask = (whose[:, None] == blocks[None, :]).float().to(device)

    def _together(self, mine: Mapping[str, Mapping[str, Update]]) -> dict[str, Update]:
        """The updates of several adapters as one, their ranks side by side: one product for all of a batch's tokens."""
        found = self.stacked.pop(tuple(mine), None)
        if found is None:
            layers = sorted(set().union(*mine.values()))
            found = {layer: _side_by_side(layer, mine.values()) for layer in layers}
        self.stacked[tuple(mine)] = found
        while len(self.stacked) > STACKED:
            self.stacked.popitem(last=False)
        return found

    def _hook(self, layer: str) -> Any:
        def add(_module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor | None:
            update = self.now.get(layer)
            if update is None:
                return None
            small = args[0].float() @ update.down.T  # (1, tokens, ranks)
            if self.mask is not None:
                small = small * self.mask
            return (out + small @ update.up.T).to(out.dtype)

        return add

    def _attach(self, updates: Mapping[str, Update]) -> None:
        if fresh := updates.keys() - self.hooked:
            with self.still():
                for layer in sorted(fresh):
                    self.model.get_submodule(layer).register_forward_hook(self._hook(layer))
            self.hooked |= fresh

    def _make_room(self) -> None:
        for name in list(self.loaded):
            if len(self.loaded) <= self.most:
                return
            if not self.in_use[name]:
                del self.loaded[name]
                for names in [one for one in list(self.stacked) if name in one]:
                    self.stacked.pop(names, None)


def _side_by_side(layer: str, adapters: Collection[Mapping[str, Update]]) -> Update:
    some = next(one[layer] for one in adapters if layer in one)
    parts = []
    for one in adapters:
        rank = _rank(one)
        none = Update(some.down.new_zeros(rank, some.down.shape[1]), some.up.new_zeros(some.up.shape[0], rank))
        parts.append(one.get(layer, none))
    return Update(torch.cat([one.down for one in parts]), torch.cat([one.up for one in parts], dim=1))


def _rank(adapter: Mapping[str, Update]) -> int:
    return len(next(iter(adapter.values())).down)


def _read(model: nn.Module, folder: Path) -> dict[str, Update]:
    """layer's path -> its update."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weights = load_file(str(folder / "adapter_model.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(
            _("the adapter cannot be read: {why}", why=error), where=str(folder),
            do=_("train again, or bring the folder back"),
        ) from None  # fmt: skip
    asked = [key for key in UNKNOWN if config.get(key)]
    if asked or config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise RunError(
            _("this adapter is of a kind that is not served: {what}", what=", ".join(asked) or config.get("peft_type")),
            where=str(folder / "adapter_config.json"), do=_("merge it and serve the merged model"),
            command="tunewright export RUN --to merged",
        )  # fmt: skip
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    device = next(model.parameters()).device
    updates = {}
    for name, down in weights.items():
        layer, part, _rest = name.removeprefix("base_model.model.").rpartition(".lora_A.weight")
        if not part:
            continue
        up = weights.get(name.replace(".lora_A.", ".lora_B."))
        _require_layer(model, layer, down, up, folder)
        assert up is not None
        updates[layer] = Update(down.float().to(device), (up.float() * scale).to(device))
    if 2 * len(updates) != len(weights):
        raise RunError(_("the adapter holds weights that belong to no layer"), where=str(folder))
    return updates


def _require_layer(model: nn.Module, layer: str, down: torch.Tensor, up: torch.Tensor | None, folder: Path) -> None:
    try:
        module = model.get_submodule(layer)
    except AttributeError:
        module = None
    shape = None
    if isinstance(module, Conv1D):  # GPT-2 keeps its weights transposed
        shape = (module.weight.shape[0], module.weight.shape[1])
    elif isinstance(module, nn.Linear):
        shape = (module.in_features, module.out_features)
    if up is None or shape != (down.shape[1], up.shape[0]):
        raise RunError(
            _("the adapter does not fit its base at {layer}", layer=layer), where=str(folder),
            do=_("bring back the base that it was trained on"), command="tunewright verify RUN --only identity",
        )  # fmt: skip
