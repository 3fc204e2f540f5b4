"""The bases that have a name (``catalog.yaml``)."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

Ability = Literal["chat", "classify", "seq2seq", "pretrain"]


class Entry(BaseModel):
    """One named base. Sizes in bytes.

    A package carries either one GGUF ``file`` with its ``sha256``, or a ``folder`` in transformers' layout whose
    ``files`` have theirs; ``wheel_sha256`` is of the package.  tasks: what the base can learn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["package", "hub"]
    size_bytes: int
    parameters: int
    licence: str
    languages: tuple[str, ...]
    notes: str
    tasks: tuple[Ability, ...] = ("chat",)
    id: str | None = None
    package: str | None = None
    version: str | None = None
    file: str | None = None
    folder: str | None = None
    files: dict[str, str] = {}
    file_bytes: int = 0
    sha256: str = ""
    wheel_sha256: str = ""

    @model_validator(mode="after")
    def _says_where(self) -> Entry:
        if self.source == "hub" and not self.id:
            raise ValueError("a hub base needs its id")
        if self.source == "package":
            if not (self.package and self.version):
                raise ValueError("a package base needs package and version")
            if bool(self.file and self.sha256) == bool(self.folder and self.files):
                raise ValueError("a package base needs file and sha256, or folder and files")
        return self

    @property
    def inside(self) -> dict[str, str]:
        """What is taken out of the package: each path in it, with its sha256."""
        if self.file:
            return {self.file: self.sha256}
        return {f"{self.folder}/{name}": digest for name, digest in self.files.items()}

    def within(self, path: str) -> str:
        """Where a path of ``inside`` lies in the base's folder."""
        return path.removeprefix(f"{self.folder}/") if self.folder else path.rpartition("/")[2]


@cache
def catalog() -> dict[str, Entry]:
    text = files("tunewright").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return {name: Entry.model_validate(values) for name, values in yaml.safe_load(text).items()}


def suited(task: Ability) -> list[str]:
    """Names of the bases that can learn ``task``, those that need no hub first: what an error proposes."""
    able = {name: entry for name, entry in catalog().items() if task in entry.tasks}
    return sorted(able, key=lambda name: able[name].source != "package")


def nearest(name: str) -> str | None:
    """The catalog name that ``name`` was probably meant to be."""
    known = {key.lower(): key for key in catalog()} | {e.id.lower(): k for k, e in catalog().items() if e.id}
    for wanted in (name.lower(), name.lower().rpartition("/")[2]):
        begun = [key for key in catalog() if wanted and key.startswith(wanted)]
        if begun:
            return begun[0]
        found = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
        if found:
            return known[found[0]]
    return None
