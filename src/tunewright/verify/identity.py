"""Identity: base, data, recipe, weights and checkpoints are still what the run's manifest says."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tunewright import __version__, rundir
from tunewright.data.prepare import data_sha256
from tunewright.recipe.dump import text
from tunewright.rundir import MANIFEST
from tunewright.text import _
from tunewright.train import checkpoints
from tunewright.train.manifest import differing, flat, versions
from tunewright.verify.proof import Proof, failed, passed
from tunewright.verify.subject import Subject, is_weights

NAME = "identity"


def prove(subject: Subject) -> Proof:
    then = subject.manifest
    weights = subject.changed_files(is_weights)
    damaged = checkpoints.damaged(subject.run.checkpoints)
    problems = [problem for problem in (subject.base_problem, subject.data_problem, *_recipe(subject)) if problem]
    problems += [_("{file} was edited: {key} does not go with the rest", file=MANIFEST, key=key)
                 for key in ([] if problems else _edited(subject))]  # fmt: skip
    problems += [_("{file} is not what the run wrote", file=file) for file in weights or ()]
    problems += [_("checkpoint {damage}", damage=damage) for damage in damaged]
    kept = len(list(subject.run.checkpoints.glob("step-*")))
    missing = _missing(subject)
    if kept and missing is not None:
        problems.append(_("checkpoint step-{step}, the run's last, is missing", step=missing))
    values: dict[str, Any] = {
        "base": subject.base_problem is None, "data": subject.data_problem is None, "recipe": not _recipe(subject),
        "weights": None if weights is None else not weights, "checkpoints": kept, "damaged_checkpoints": len(damaged),
        "missing_checkpoint": missing,
    }  # fmt: skip
    numbers = _("base {base}, data {data}, recipe {recipe}; files: {files}, checkpoints: {n}",
                base=then["base"]["sha256"][:8], data=then["data_sha256"][:8], recipe=then["recipe_sha256"][:8],
                files=len(then.get("trained", ())), n=kept)  # fmt: skip
    if not problems:
        return passed(NAME, numbers, values, tuple(_notes(subject, weights is None, missing)))
    do = _("bring it back as it was when the run was trained, or train anew")
    return failed(NAME, "; ".join(problems), str(subject.run), do, "", values)


def _recipe(subject: Subject) -> list[str]:
    """What differs in the recipe. Keys that only the older or only the newer version knows are no difference."""
    then, recipe = subject.manifest, subject.recipe
    if hashlib.sha256(text(recipe, {}).encode()).hexdigest() == then["recipe_sha256"]:
        return []
    now = flat(recipe)
    both = [{name: side[name] for name in then["recipe"] if name in now} for side in (then["recipe"], now)]
    return [_("the recipe: {change}", change=change) for change in differing(both[0], both[1], values=True)]


def _edited(subject: Subject) -> list[str]:
    """What of the manifest says another thing than what stands in two places, or than base and recipe, which did not
    change. A manifest of another version may hold other things."""
    then, recipe = subject.manifest, subject.recipe
    if then["tunewright"] != __version__:
        return []
    now: dict[str, Any] = {
        "data_sha256": data_sha256(then["data"]), "base.files": subject.base.files, "seed": recipe.seed,
        "recipe": _filled(json.loads(json.dumps(flat(recipe))), then["recipe"]),
    }  # fmt: skip
    if "ready" in vars(subject):
        now["template_sha256"] = subject.ready.prepared.codec.sha256
    said = then | {"base.files": then["base"].get("files")}
    return [name for name, value in now.items() if said.get(name) != value]


def _filled(recipe: dict[str, Any], chosen: Any) -> dict[str, Any]:
    """A recipe leaves open what its task does not use, of which the manifest keeps what was chosen all the same."""
    known = chosen if isinstance(chosen, dict) else {}
    return {key: known.get(key, value) if value == "auto" else value for key, value in recipe.items()}


def _missing(subject: Subject) -> int | None:
    """The step of the last checkpoint if it is not there. A training saves its last step, whatever ``save.every`` is;
    which earlier ones are kept depends on where it was interrupted, so of these nothing can be said."""
    steps = [line.get("step") for line in rundir.read_lines(subject.run.file(rundir.METRICS))]
    last = max((step for step in steps if isinstance(step, int)), default=None)
    return last if last is not None and not (subject.run.checkpoints / f"step-{last}").is_dir() else None


def _notes(subject: Subject, no_hashes: bool, missing: int | None) -> list[str]:
    then = {"tunewright": subject.manifest["tunewright"], **subject.manifest["versions"]}
    now = {"tunewright": __version__, **versions()}
    notes = [_("{name} was {then}, is {now}", name=name, then=old, now=now.get(name))
             for name, old in then.items() if now.get(name) != old]  # fmt: skip
    if no_hashes:
        notes.append(_("the run is of a version that kept no hashes of its weights, so these are not compared"))
    if missing is not None:  # all of them: whoever needs the room may remove what a finished run does not read
        notes.append(_("the run has no checkpoints any more; it wrote one of step {step} at its end", step=missing))
    return notes
