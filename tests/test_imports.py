"""The import rules of docs/architecture.md hold for the source, and the checker notices each kind of violation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.rooms import ORDER, room, violations

SOURCE = Path(__file__).parents[1] / "src"


def test_source_keeps_the_rules() -> None:
    assert violations(SOURCE) == []


def test_every_room_is_in_the_order() -> None:
    folders = {p.parent.name for p in (SOURCE / "tunewright").glob("*/*.py")}
    assert folders <= set(ORDER)


PLANTED = {
    "left imports right": ("data/read.py", "from tunewright.train import loss", "data imports train"),
    "relative import to the right": ("data/read.py", "from ..train import loss", "data imports train"),
    "import of the module itself": ("errors.py", "import tunewright.rundir", "errors imports rundir"),
    "from the package": ("recipe/load.py", "from tunewright import data", "recipe imports data"),
    "torch in a light room": ("data/read.py", "import torch.nn", "data imports torch.nn"),
    "transformers in a light room, in a function": (
        "report/page.py",
        "def f():\n    from transformers import AutoModel",
        "report imports transformers.AutoModel",
    ),
    "peft in recipe": ("recipe/schema.py", "import peft", "recipe imports peft"),
    "torch in jobs": ("jobs/store.py", "from torch import nn", "jobs imports torch.nn"),
    "torch at the top of a verb": ("cli/train.py", "import torch", "cli imports torch"),
    "train imports report": ("train/run.py", "from tunewright.report import page", "train imports report"),
    "train imports serve": ("train/run.py", "from tunewright.serve import app", "train imports serve"),
    "train imports jobs": ("train/run.py", "from tunewright.jobs import store", "train imports jobs"),
    "data imports model": ("data/read.py", "from tunewright.model.source import find", "data imports model"),
    "evaluate names an engine": (
        "evaluate/generate.py",
        "from tunewright.infer.transformers import Engine",
        "names the engine transformers",
    ),
    "serve names an engine": ("serve/app.py", "from tunewright.infer import vllm", "names the engine vllm"),
    "somebody imports cli": ("api.py", "from tunewright.cli.main import main", "api imports cli"),
    "environment": ("data/read.py", "import os\nos.environ['A']", "reads the environment"),
    "environment by getenv": ("train/run.py", "import os\nx = os.getenv('A')", "reads the environment"),
    "environment by name": ("train/run.py", "from os import environ", "reads the environment"),
    "environment in cli": ("cli/chat.py", "import os\nos.environ.get('A')", "reads the environment"),
    "own import in a function": (
        "train/run.py",
        "def f():\n    from tunewright.data import read",
        "imports tunewright.data.read inside a function",
    ),
    "own import in a function, by importlib": (
        "train/run.py",
        "import importlib\ndef f():\n    importlib.import_module('tunewright.data')",
        "imports tunewright.data inside a function",
    ),
    "folder utils": ("data/utils/io.py", "", "data/utils: a folder of this name"),
    "folder core": ("core/x.py", "", "core: a folder of this name"),
    "a room that nobody placed": ("cellar/x.py", "", "the room 'cellar' is not in the order"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_violation_is_caught(name: str, tmp_path: Path) -> None:
    file, code, expected = PLANTED[name]
    path = tmp_path / "tunewright" / file
    path.parent.mkdir(parents=True)
    path.write_text(code + "\n", encoding="utf-8")
    found = violations(tmp_path)
    assert any(expected in line for line in found), found


ALLOWED = {
    "right imports left": ("train/run.py", "from tunewright.data import read\nimport torch"),
    "heavy import inside a verb": ("cli/chat.py", "def f():\n    import torch\n    from tunewright.api import train"),
    "settings read the environment": ("settings.py", "import os\nos.environ"),
    "only the type checker sees it": (
        "data/read.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from transformers import PreTrainedTokenizer",
    ),
    "engine protocol in evaluate": ("evaluate/generate.py", "from tunewright.infer.engine import Engine"),
    "the word environ in a text": ("data/read.py", "x = 'os.environ'"),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed_import_is_not_caught(name: str, tmp_path: Path) -> None:
    file, code = ALLOWED[name]
    path = tmp_path / "tunewright" / file
    path.parent.mkdir(parents=True)
    path.write_text(code + "\n", encoding="utf-8")
    assert violations(tmp_path) == []


def test_room_of_file_and_module() -> None:
    assert room("data/read.py") == room("tunewright.data.read") == "data"
    assert room("errors.py") == room("tunewright.errors") == "errors"


@pytest.mark.parametrize(
    "statement", ["import tunewright", "import tunewright.cli.main", "import tunewright.recipe.load"]
)
def test_light_imports_bring_no_torch(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(*(m for m in ('torch', 'transformers', 'peft') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
