"""Before and after once more, on the run's own rows or on others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tunewright import rundir
from tunewright.data.load import find
from tunewright.infer.open import open_run
from tunewright.recipe.load import Loaded, changed
from tunewright.recipe.load import load as load_recipe
from tunewright.recipe.schema import Data
from tunewright.rundir import METRICS, RECIPE, RunDir
from tunewright.text import _
from tunewright.train.events import Listener
from tunewright.train.manifest import manifest, require_same
from tunewright.train.measuring import compared, measured_as, with_epochs
from tunewright.train.ready import get_ready


def evaluate(run: RunDir, file: str | os.PathLike[str] | None, listener: Listener) -> dict[str, Any]:
    """The content of an ``evaluation.json``: the run's base against its tuned model, on ``file`` if given."""
    loaded = load_recipe(run.file(RECIPE))
    if file is not None:
        find(Data(train=[str(file)]))  # says which file may have been meant
        path = Path(file)
        recipe = changed(loaded.recipe, {"data.validation": [str(path.resolve())], "data.held_out": "auto"})
        loaded = Loaded(recipe, loaded.sources, loaded.path)
    ready = get_ready(loaded, listener)
    if file is None:  # else its held-out rows might be others, under the same name
        require_same(run, manifest(ready.recipe, ready.base, ready.prepared))
    base = open_run(run, tuned=False)
    before = measured_as(base.engine, ready, _("Measuring the base"), listener)
    del base
    tuned = open_run(run)
    after = measured_as(tuned.engine, ready, _("Measuring the tuned model"), listener, before)
    found = compared(before, after, ready, listener)
    return found if file is not None else with_epochs(found, rundir.read_lines(run.file(METRICS)), after, ready)
