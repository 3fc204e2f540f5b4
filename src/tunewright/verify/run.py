"""All proofs in their order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright import rundir
from tunewright.errors import InputError, ResourceError, RunError
from tunewright.rundir import RunDir
from tunewright.text import _
from tunewright.train.events import Listener
from tunewright.train.manifest import now
from tunewright.verify import effect, identity, merge, resume, stops, template
from tunewright.verify.proof import Proof, failed, not_applicable
from tunewright.verify.subject import Subject

PROOFS: dict[str, Callable[[Subject], Proof]] = {
    module.NAME: module.prove for module in (template, stops, merge, effect, resume, identity)
}


@dataclass(frozen=True)
class Verified:
    """The proofs of one run. ``failed``: the names of those that did not hold."""

    run: RunDir
    proofs: tuple[Proof, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(proof.name for proof in self.proofs if proof.outcome == "fail")

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run), "verified": now(), "failed": list(self.failed),
            "proofs": [proof.as_dict() for proof in self.proofs],
        }  # fmt: skip

    def require(self) -> None:
        """Raises RunError if a proof failed."""
        if self.failed:
            raise RunError(
                _("{n} of {all} proofs failed: {names}", n=len(self.failed), all=len(self.proofs),
                  names=", ".join(self.failed)),
                where=str(self.run), do=_("do not serve this run before each of them is mended"),
                command=f"tunewright verify {self.run} --only {self.failed[0]}",
            )  # fmt: skip


def verify(run: RunDir, only: Sequence[str] = (), listener: Listener | None = None) -> Verified:
    """Prove ``run``, or of it what ``only`` names (keys of ``PROOFS``). A complete round is kept in ``verify.json``.

    A proof that does not hold is a result and no exception. Raises RunError for a run that is not finished or cannot be
    read, and for a name that is no proof.
    """
    for name in only:
        if name not in PROOFS:
            raise RunError(
                _("there is no proof {name!r}", name=name), where="--only",
                do=_("choose of: {names}", names=", ".join(PROOFS)), command="tunewright verify --help",
            )  # fmt: skip
    subject = Subject.open(run, listener or Listener())
    names = [name for name in PROOFS if not only or name in only]
    found = Verified(run, tuple(_proved(name, subject, identity.NAME in names) for name in names))
    if not only:
        with contextlib.suppress(ResourceError):  # a run on a disk that is only read can be proved as well
            rundir.write_json(run.file(rundir.VERIFY), found.as_dict())
    return found


def _proved(name: str, subject: Subject, identity_too: bool) -> Proof:
    """identity_too: base and data that have changed are said there, and everything else could not be asked."""
    if name != identity.NAME and (why := subject.missing) is not None:
        if identity_too:
            return not_applicable(name, _("{why} (see identity)", why=why))
        return failed(name, why, str(subject.run), _("bring back what the run was made of"))
    try:
        return PROOFS[name](subject)
    except InputError as error:
        return failed(name, error.what, error.where, error.do)
