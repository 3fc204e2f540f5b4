"""How much memory there is, and what to change if a training does not fit into it.

Of several changes the smallest is named: micro-batches of fewer tokens change no result; then an adapter instead of
trained weights; then shorter rows. A smaller base is another model, so it is named but never taken.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from tunewright.data.prepare import Prepared
from tunewright.errors import ResourceError
from tunewright.model.catalog import catalog, suited
from tunewright.model.memory import ModelFacts
from tunewright.recipe.load import changed
from tunewright.recipe.schema import Recipe
from tunewright.text import _
from tunewright.train.forecast import Micro, peak, step_memory

CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # what an old cgroup without a limit says is a little below 2**63
SHORTEST = 64  # tokens; rows are not proposed to be cut shorter


@dataclass(frozen=True)
class Room:
    """Bytes that this process may hold in all (on a GPU: the device), and what bounds them, in words."""

    bytes: int
    bound: str


@dataclass(frozen=True)
class Change:
    """Keys of the recipe with new values, what it costs in words, and the memory it is foreseen to need."""

    values: dict[str, Any]
    cost: str
    bytes: int

    @property
    def keys(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values.items())


class DoesNotFit(ResourceError):
    """change: the smallest one of the recipe that would do, None if nothing tried would."""

    change: Change | None = None


def room(device: str) -> Room:
    """The least of what the machine, a container and the shell's limits leave to this process."""
    if device.startswith("cuda"):
        free, _total = torch.cuda.mem_get_info()
        return Room(free + torch.cuda.memory_reserved(), _("free on the GPU"))
    own = psutil.Process().memory_info()
    rooms = [Room(psutil.virtual_memory().available + own.rss, _("free on this machine"))]
    rooms += [Room(left + own.rss, _("left by the container's limit")) for left in _left_in_cgroups()]
    limit, _hard = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:  # of addresses, of which libraries take some that hold nothing
        rooms.append(Room(max(0, limit - own.vms + own.rss), _("left by the limit on address space (ulimit -v)")))
    return min(rooms, key=lambda one: one.bytes)


def _left_in_cgroups(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Bytes left in each control group that this process is in, of either version."""
    lines = own.read_text().splitlines() if own.exists() else []
    for _number, kinds, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        new = not kinds
        if not new and "memory" not in kinds.split(","):
            continue
        top = root if new else root / "memory"
        limit, used = ("memory.max", "memory.current") if new else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        inside = top / path.strip("/")
        for folder in {top, *(p for p in (inside, *inside.parents) if p.is_relative_to(top))}:
            most, now = _number_in(folder / limit), _number_in(folder / used)
            if most is not None and now is not None and most < UNLIMITED:
                yield max(0, most - now + _reclaimable(folder / "memory.stat"))


def _number_in(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" where there is no limit


def _reclaimable(path: Path) -> int:
    """Bytes of files kept in memory, which the system gives back when they are wanted."""
    try:
        stat = dict(line.split() for line in path.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def smallest_change(
    recipe: Recipe, facts: ModelFacts, prepared: Prepared, replay: int, device: str, most: int
) -> Change | None:
    """What to change so that a training is foreseen to take at most ``most`` bytes; None if nothing tried would do.

    replay: general prompts that are mixed in.
    """
    options = _options(recipe, facts, prepared, replay, device)
    return next((change for change in options if change.bytes <= most), None)


def _options(
    recipe: Recipe, facts: ModelFacts, prepared: Prepared, replay: int, device: str
) -> Iterator[Change]:
    """From the smallest change to the largest."""
    budgets = smaller_budgets(recipe, prepared.longest)

    def needs(values: dict[str, Any]) -> int:
        return peak(changed(recipe, values), facts, prepared, replay, device).total

    for budget in budgets:
        values: dict[str, Any] = {"train.token_budget": budget}
        yield Change(values, _("which changes no result"), needs(values))
    least: dict[str, Any] = {"train.token_budget": budgets[-1]} if budgets else {}
    if recipe.train.method != "lora":
        cost = _("which trains an adapter instead of the weights themselves")
        for more in ({}, least):
            values = {"train.method": "lora", **more}
            yield Change(values, cost, needs(values))
    length = prepared.longest // 2
    while length >= SHORTEST:
        values = {"data.max_length": length, "data.too_long": "truncate", "train.token_budget": length}
        micro = Micro(length, length)  # one row
        cost = _("which cuts rows that are longer; the ledger counts them")
        yield Change(values, cost, step_memory(recipe, facts, prepared, micro, device).total)
        length //= 2


def smaller_budgets(recipe: Recipe, longest: int) -> list[int]:
    """Halves of the token budget down to the longest row, which has to be whole."""
    assert recipe.train.token_budget != "auto"
    budget, found = recipe.train.token_budget, []
    while budget > longest:
        budget = max(longest, budget // 2)
        found.append(budget)
    return found


def does_not_fit(needs: int, there: Room, change: Change | None, task: str, parameters: int) -> DoesNotFit:
    """The error, with the smallest change that would do."""
    what = _("this training needs about {needs:.1f} GB of memory; {there:.1f} GB are {bound}",
             needs=needs / 1e9, there=there.bytes / 1e9, bound=there.bound)  # fmt: skip
    if change is None:
        smaller = [name for name in suited(task) if catalog()[name].parameters < parameters]  # type: ignore[arg-type]
        do = _("close other programs, or take a machine with more memory")
        if smaller:
            do = _("take a smaller base, such as base={name}, or a machine with more memory", name=smaller[0])
        return DoesNotFit(what, where="train", do=do, command="tunewright models")
    do = _("write {keys}, {cost} ({needs:.1f} GB); or write train.fit=auto, and it is done for you",
           keys=change.keys, cost=change.cost, needs=change.bytes / 1e9)  # fmt: skip
    error = DoesNotFit(what, where="train", do=do, command=f"tunewright train SOURCE {change.keys}")
    error.change = change
    return error
