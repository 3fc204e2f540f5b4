"""The bases that have a name (``catalog.yaml``)."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator


class Entry(BaseModel):
    """One named base. Sizes in bytes; ``sha256`` is of ``file`` inside the package, ``wheel_sha256`` of the package."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["package", "hub"]
    size_bytes: int
    parameters: int
    licence: str
    languages: tuple[str, ...]
    notes: str
    id: str | None = None
    package: str | None = None
    version: str | None = None
    file: str | None = None
    file_bytes: int = 0
    sha256: str = ""
    wheel_sha256: str = ""

    @model_validator(mode="after")
    def _says_where(self) -> Entry:
        if self.source == "hub" and not self.id:
            raise ValueError("a hub base needs its id")
        if self.source == "package" and not (self.package and self.version and self.file and self.sha256):
            raise ValueError("a package base needs package, version, file and sha256")
        return self


@cache
def catalog() -> dict[str, Entry]:
    text = files("tunewright").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return {name: Entry.model_validate(values) for name, values in yaml.safe_load(text).items()}


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
