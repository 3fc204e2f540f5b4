"""Nothing exists that the docs do not mention, and generated pages say what their source says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tests.rooms import ANYWHERE

from tunewright import rundir
from tunewright.cli.main import VERBS
from tunewright.recipe.keys import keys

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "tunewright"
FINDINGS = PACKAGE / "data" / "findings.yaml"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATED = ["index.md", "recipe.md", "command-line.md", "run-folder.md", "findings.md", "trust.md"]


@pytest.mark.parametrize("name", GENERATED)
def test_generated_page_is_up_to_date(build: ModuleType, name: str) -> None:
    assert build.PAGES[name]() == page(name), "type: make docs"


def test_a_changed_page_is_noticed(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(build.PAGES, "recipe.md", lambda: "something else")
    assert "recipe.md" in build.stale()


@pytest.mark.parametrize("key", keys())
def test_every_recipe_key_has_its_section(key: str) -> None:
    assert re.search(rf"^##+ `{re.escape(key)}`$", page("recipe.md"), re.M)


@pytest.mark.parametrize("verb", [name for verbs in VERBS.values() for name in verbs])
def test_every_verb_has_its_section(verb: str) -> None:
    assert f"\n## `tunewright {verb}`\n" in page("command-line.md")


@pytest.mark.parametrize("name", rundir.FILES)
def test_every_file_of_the_run_folder_is_described(name: str) -> None:
    assert re.search(rf"\| `{re.escape(name)}/?` \|", page("run-folder.md"))


def test_every_finding_code_of_the_source_has_its_section() -> None:
    declared = set(yaml.safe_load(FINDINGS.read_text(encoding="utf-8")))
    used = {
        code for file in PACKAGE.rglob("*.py") for code in re.findall(r'"(D\d{3})"', file.read_text(encoding="utf-8"))
    }
    assert used <= declared
    for code in declared:
        assert re.search(rf"^## {code} ", page("findings.md"), re.M), code


def test_every_room_is_in_the_architecture() -> None:
    text = page("architecture.md")
    rooms = {p.parent.name for p in PACKAGE.glob("*/*.py")} | {p.stem for p in PACKAGE.glob("*.py")} - ANYWHERE
    missing = [room for room in rooms if not re.search(rf"^\| `{room}` \|", text, re.M)]
    assert missing == []


# Rooms whose page has another name than the room.
PAGE_OF = {"model": "bases.md", "evaluate": "evaluation.md", "cli": "command-line.md", "train": "training.md"}


@pytest.mark.parametrize("room", sorted({path.parent.name for path in PACKAGE.glob("*/*.py")}))
def test_every_room_has_its_page(room: str) -> None:
    assert (DOCS / PAGE_OF.get(room, f"{room}.md")).exists() or (DOCS / f"{room}.md").exists()


def test_every_page_is_reached_from_the_index() -> None:
    for path in DOCS.glob("*.md"):
        assert path.name == "index.md" or f"({path.name})" in page("index.md"), path.name


@pytest.mark.parametrize("path", [*DOCS.glob("*.md"), *ROOT.glob("*.md")], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
