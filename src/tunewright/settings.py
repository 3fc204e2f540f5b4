"""The only place, besides the launcher, that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    cache: converted bases and rendered data; may be deleted at any time (``TUNEWRIGHT_CACHE``).
    language: of text for people, ``en`` until a translation exists (``TUNEWRIGHT_LANGUAGE``).
    offline: never ask a hub or a package index (``TUNEWRIGHT_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``).
    serve_key: a key that clients of ``tunewright serve`` have to show (``TUNEWRIGHT_SERVE_KEY``).
    """

    cache: Path
    language: str
    offline: bool
    serve_key: str | None = None


def settings() -> Settings:
    """Read anew at each call, because tests and notebooks change the environment."""
    env = os.environ
    cache = env.get("TUNEWRIGHT_CACHE") or os.path.join(
        env.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "tunewright"
    )
    return Settings(
        cache=Path(cache),
        language=env.get("TUNEWRIGHT_LANGUAGE", "en"),
        offline="1" in (env.get("TUNEWRIGHT_OFFLINE"), env.get("HF_HUB_OFFLINE")),
        serve_key=env.get("TUNEWRIGHT_SERVE_KEY") or None,
    )


def secret(name: str) -> str | None:
    """A key that the person keeps in the environment under a name of their own; None where there is none."""
    return os.environ.get(name) or None


@dataclass(frozen=True)
class Launched:
    """What a launcher such as ``torchrun`` told this process: its number among ``count``.  sharded: the weights are to
    be divided among them (FSDP, DeepSpeed)."""

    number: int
    count: int
    sharded: bool = False


def launched() -> Launched | None:
    """This process's place among several, None without a launcher. Taken away from the environment: transformers and
    accelerate would share out the work in their own way (``train/ranks.py``)."""
    _one_gpu()
    number, count = (os.environ.pop(name, None) for name in ("RANK", "WORLD_SIZE"))
    sharded = "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))
    return Launched(int(number), int(count), sharded) if number and count and int(count) > 1 else None


def before_torch() -> None:
    """Called by the launchers before torch is imported, which reads these once.

    Waiting threads sleep instead of spinning: on a machine that does anything else besides, spinning made a small
    model's layers more than twice as slow (benchmarks/threads.py); on a quiet one a training step takes the same time.
    oneDNN keeps the kernels of 64 shapes instead of 1,024: micro-batches have a hundred different lengths, and their
    kernels took 300 MB by the fortieth step of the demo's training.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    _one_gpu()


def before_llama_cpp() -> None:
    """Called before torch is imported where llama.cpp will answer, which uses the same OpenMP. Its threads meet several
    hundred times a token; asleep they write a quarter of the tokens. So they wait awake, but a thirtieth as long as
    OpenMP lets them by itself: beside other work, where a thread waits for one that has no core, that is three times
    as fast, and a thread that is not late is there by then. A count, because it goes before the policy set above."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _one_gpu() -> None:
    """Of several processes on one machine each sees a GPU of its own. torch reads this when it first asks for one."""
    place = os.environ.pop("LOCAL_RANK", None)
    if place is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = place if seen is None else ",".join(seen.split(",")[int(place) : int(place) + 1])
        os.environ["CUDA_VISIBLE_DEVICES"] = names
