"""Many LoRA adapters over one base, each token with the adapter of its own request.

The base's layers stay as they are, so its weights are in memory once. Behind each layer that an adapter of some run
sits on, a hook adds that run's update to the rows of its requests; a batch may hold the tokens of several runs and of
the base itself. The arithmetic is PEFT's (``x A B`` times alpha/rank in fp32, added, rounded once), which a test holds
to the bit.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
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
        self.rows: list[tuple[str, torch.Tensor | None]] = []  # of the batch under way: adapter, its rows; None is all
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
        """Whose the next batch's tokens are: (adapter, tokens) of each request, in the order of the packed row."""
        places: dict[str, list[torch.Tensor]] = {}
        begin = 0
        for name, tokens in spans:
            if name is not None:
                places.setdefault(name, []).append(torch.arange(begin, begin + tokens))
            begin += tokens
        device = next(self.model.parameters()).device
        alone = len(places) == 1 and all(name is not None for name, _tokens in spans)
        self.rows = [(name, None if alone else torch.cat(found).to(device)) for name, found in places.items()]

    def _hook(self, layer: str) -> Any:
        def add(_module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
            for name, rows in self.rows:
                update = self.loaded[name].get(layer)
                if update is None:
                    continue
                given = args[0] if rows is None else args[0].index_select(-2, rows)  # (1, tokens, in)
                change = given.float() @ update.down.T @ update.up.T
                if rows is None:
                    out = (out + change).to(out.dtype)
                else:
                    whole = (out.index_select(-2, rows) + change).to(out.dtype)
                    out = out.index_copy(-2, rows, whole)
            return out

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
