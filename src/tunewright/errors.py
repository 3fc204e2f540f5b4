"""Every error a person can meet, as one tree.

    TunewrightError          exit 1: our fault
    └── InputError           exit 2: the input's fault, never shown with a traceback
        ├── RecipeError      a key, a value or a combination of them
        ├── DataError        a file or a row
        ├── BaseModelError   a base that does not exist, is damaged or does not fit the task
        ├── RunError         a run folder: exists already, is missing, is damaged
        ├── ResourceError    no disk, no memory, no permission
        ├── MissingExtra     an optional package that this verb needs
        └── TrainingError    a training that had to stop (non-finite loss, nothing to learn)

A message has four parts, and each has its own argument: *what* is wrong, *where* (``file:line``, a row, a key),
what to *do* about it, and the command to *type* next.
"""

from __future__ import annotations


class TunewrightError(Exception):
    """Base of the tree. ``str(error)`` is the whole message, one part to a line."""

    exit_code = 1
    default_command = "tunewright doctor"

    def __init__(
        self, what: str, *, where: str | None = None, do: str | None = None, command: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.do = do
        self.command = command or self.default_command

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.do:
            parts.append(f"  do:    {self.do}")
        parts.append(f"  type:  {self.command}")
        return "\n".join(parts)

    def as_dict(self) -> dict[str, str | None]:
        """The same parts for programs (``--json``)."""
        return {"error": self.what, "where": self.where, "do": self.do, "command": self.command}


class InputError(TunewrightError):
    exit_code = 2
    default_command = "tunewright --help"


class RecipeError(InputError):
    default_command = "tunewright recipe explain"


class DataError(InputError):
    default_command = "tunewright data check FILE"


class BaseModelError(InputError):
    default_command = "tunewright models"


class RunError(InputError):
    default_command = "tunewright train --help"


class ResourceError(InputError):
    default_command = "tunewright doctor"


class MissingExtra(InputError):
    """An optional dependency is not installed; says which extra brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            do=f"install Tunewright with the extra {extra!r}; in a clone of its source: pip install -e '.[{extra}]'",
            command=f"pip install 'tunewright[{extra}]'",
        )


class TrainingError(InputError):
    default_command = "tunewright data check FILE"
