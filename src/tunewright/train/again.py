"""Before and after once more, on the run's own rows or on others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tunewright.errors import DataError
from tunewright.evaluate.compare import compare
from tunewright.recipe.load import Loaded, changed
from tunewright.recipe.load import load as load_recipe
from tunewright.rundir import RECIPE, RunDir
from tunewright.text import _
from tunewright.train.events import Listener
from tunewright.train.run import get_ready, measured_as, open_engine, require_same


def evaluate(run: RunDir, file: str | os.PathLike[str] | None, listener: Listener) -> dict[str, Any]:
    """The content of an ``evaluation.json``: the run's base against its tuned model, on ``file`` if given."""
    loaded = load_recipe(run.file(RECIPE))
    if file is not None:
        path = Path(file)
        if not path.exists():
            what = _("there is no file {path}", path=path)
            raise DataError(what, where=str(path), command="tunewright evaluate --help")
        recipe = changed(loaded.recipe, {"data.validation": [str(path.resolve())], "data.held_out": "auto"})
        loaded = Loaded(recipe, loaded.sources, loaded.path)
    ready = get_ready(loaded, listener)
    if file is None:  # else its held-out rows might be others, under the same name
        require_same(run, ready)
    base, _recipe = open_engine(run, tuned=False)
    before = measured_as(base, ready, _("Measuring the base"), listener)
    del base
    tuned, _recipe = open_engine(run)
    after = measured_as(tuned, ready, _("Measuring the tuned model"), listener)
    return compare(before, after, ready.recipe.seed)
