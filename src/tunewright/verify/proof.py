"""What a proof ends with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Proof:
    """numbers: the measured in a few words; of a proof that does not apply, the reason.  values: the same for programs.
    what, where, do: of a failed one, as in an error.  notes: what a person should know though nothing failed."""

    name: str
    outcome: Outcome
    numbers: str
    values: dict[str, Any] = field(default_factory=dict)
    what: str | None = None
    where: str | None = None
    do: str | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"notes": list(self.notes)}


def passed(name: str, numbers: str, values: dict[str, Any], notes: tuple[str, ...] = ()) -> Proof:
    return Proof(name, "pass", numbers, values, notes=notes)


def failed(
    name: str, what: str, where: str | None, do: str | None, numbers: str = "", values: dict[str, Any] | None = None
) -> Proof:
    return Proof(name, "fail", numbers, values or {}, what, where, do)


def not_applicable(name: str, why: str) -> Proof:
    return Proof(name, "not applicable", why)
