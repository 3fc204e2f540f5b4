"""Bases from Hugging Face and from ModelScope: safetensors, config, tokenizer and template; never code."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

from tunewright.errors import BaseModelError, MissingExtra
from tunewright.model import hashes
from tunewright.model.catalog import nearest
from tunewright.model.progress import say
from tunewright.settings import settings
from tunewright.text import _

WANTED = ["*.safetensors", *hashes.NAMES, *(f"*{suffix}" for suffix in hashes.SUFFIXES), hashes.POOLING]
# Subfolders other than `1_Pooling` hold the same weights in other formats, `consolidated` in another naming.
UNWANTED = ["[!1]*/*", "1[!_]*/*", "consolidated*", "adapter_model.safetensors"]


def huggingface(identity: str, show: bool) -> Path:
    """The snapshot folder of a hub id. An interrupted download goes on where it stopped."""
    folder = _snapshot(identity, show)
    damaged = [path for path in sorted(folder.iterdir()) if _is_damaged(path)]
    if damaged:
        names = ", ".join(path.name for path in damaged)
        say(_("{name}: {files} is damaged in the hub's cache. Removing it and fetching it again.",
              name=identity, files=names))  # fmt: skip
        for path in damaged:
            path.resolve().unlink()
            path.unlink()
        folder = _snapshot(identity, show)
    return folder


def is_cached(identity: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(identity, "config.json"), str)


def _snapshot(identity: str, show: bool) -> Path:
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]

    page = f"https://huggingface.co/{identity}"
    (enable_progress_bars if show else disable_progress_bars)()
    try:
        return Path(
            snapshot_download(
                identity, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=settings().offline
            )
        )
    except errors.GatedRepoError:
        what, do = _("its owner asks you to accept its terms first"), _("accept them at {page}, then log in", page=page)
        command = "hf auth login"
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        what, do, command = _("the hub has no such model (or it is private)"), _like(identity), "tunewright models"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        what = _("it is not on this machine, and the hub cannot be reached")
        do = _("connect to the network, or take a base that is on this machine")
        if settings().offline:
            what = _("it is not on this machine, and Tunewright was told to stay offline")
            do = _("fetch it once without TUNEWRIGHT_OFFLINE and HF_HUB_OFFLINE")
        command = "tunewright models"
    except errors.HfHubHTTPError as error:
        what, do = str(error).strip().splitlines()[0], _("try again later; what was fetched is kept")
        command = "tunewright models"
    whole = _("{name} could not be fetched: {why}", name=identity, why=what)
    raise BaseModelError(whole, where=page, do=do, command=command)


def _like(identity: str) -> str:
    name = nearest(identity)
    return _("did you mean {name}?", name=name) if name else _("look at the id's spelling, as owner/name")


def _is_damaged(path: Path) -> bool:
    """The hub's cache names each file by its content: sha256 for large files, git's blob hash for small ones."""
    if not path.is_symlink():
        return False
    blob = path.resolve()
    if not blob.exists():
        return True
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return hashes.remembered(blob) != blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() != blob.name
    return False


def modelscope(identity: str) -> Path:
    """The folder of a ModelScope id."""
    if importlib.util.find_spec("modelscope") is None:
        raise MissingExtra("modelscope", "modelscope", _("fetching a base from ModelScope"))
    from modelscope import snapshot_download

    try:
        return Path(
            snapshot_download(
                identity, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=settings().offline
            )
        )
    except Exception as error:  # the library has no tree of errors of its own
        why = str(error).strip().splitlines()
        raise BaseModelError(
            _("{name} could not be fetched from ModelScope: {why}", name=identity, why=why[0] if why else type(error)),
            where=f"modelscope:{identity}", do=_("look at the id's spelling, as owner/name, and at the network"),
        ) from error  # fmt: skip
