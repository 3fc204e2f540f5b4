"""The rules of docs/architecture.md, read off the source. ``violations(tree)`` works on any source tree, so that the
tests can plant each kind of violation in a small one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Left may never import right.
ORDER = [
    "settings",
    "text",
    "signals",
    "errors",
    "example",
    "rundir",
    "recipe",
    "data",
    "model",
    "tasks",
    "infer",
    "evaluate",
    "train",
    "verify",
    "report",
    "export",
    "serve",
    "jobs",
    "platform_web",
    "api",
    "cli",
]
ANYWHERE = {"__init__", "__main__"}  # the package's own front doors
HEAVY = {"torch", "transformers", "peft"}
LIGHT_ROOMS = {
    "settings",
    "text",
    "signals",
    "errors",
    "example",
    "rundir",
    "recipe",
    "data",
    "report",
    "jobs",
    "platform_web",
    "cli",
}
FORBIDDEN = {"train": {"report", "serve", "jobs", "export"}, "data": {"model"}}  # beside what the order forbids
NAMES_NO_ENGINE = {"serve", "evaluate"}
ENGINES = {"transformers", "llama_cpp", "vllm"}
READS_ENVIRONMENT = {"settings.py", "serve/launcher.py", "jobs/launcher.py"}
BAD_FOLDERS = {"utils", "util", "common", "helpers", "core", "manager", "managers"}


@dataclass(frozen=True)
class Import:
    """module: full name.  inside: it stands in a function.  typing: only a type checker sees it."""

    module: str
    line: int
    inside: bool
    typing: bool


def violations(source: Path) -> list[str]:
    """Every breach of a rule below ``source`` (the folder that holds the package ``tunewright``)."""
    package = source / "tunewright"
    found: list[str] = []
    for folder in sorted(p for p in package.rglob("*") if p.is_dir() and p.name in BAD_FOLDERS):
        found.append(f"{folder.relative_to(package)}: a folder of this name says nothing about what is in it")
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=name)
        found += [f"{name}:{line}: {text}" for line, text in _in_file(name, tree)]
    return found


def room(name: str) -> str:
    """The room of a file (``data/read.py``) or of a module (``tunewright.data.read``)."""
    if name.endswith(".py"):
        return name.split("/")[0].removesuffix(".py")
    parts = name.split(".")
    return "__init__" if len(parts) == 1 or parts[1].startswith("__") else parts[1]


def _in_file(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    here = room(name)
    if here not in ORDER and here not in ANYWHERE:
        yield 1, f"the room {here!r} is not in the order of rooms"
    for item in _imports(tree, name):
        own = item.module.split(".")[0] == "tunewright"
        if own:
            yield from ((item.line, text) for text in _own(here, item))
        elif item.module.split(".")[0] in HEAVY and not item.typing and _light(here, item):
            yield item.line, f"{here} imports {item.module}"
    if name not in READS_ENVIRONMENT:
        for node in ast.walk(tree):
            if _reads_environment(node):
                yield getattr(node, "lineno", 1), "reads the environment; only settings.py does"


def _light(here: str, item: Import) -> bool:
    """cli may be heavy inside functions, never at module top; the other light rooms nowhere."""
    return here in LIGHT_ROOMS and not (here == "cli" and item.inside)


def _own(here: str, item: Import) -> Iterator[str]:
    there = room(item.module)
    if there in ANYWHERE or here in ANYWHERE:
        return
    if there == "cli" and here != "cli":
        yield f"{here} imports cli"
    elif there in ORDER and here in ORDER and ORDER.index(there) > ORDER.index(here):
        yield f"{here} imports {there}, which stands right of it"
    elif there not in ORDER:
        yield f"imports {item.module}, which is in no room"
    if there in FORBIDDEN.get(here, set()):
        yield f"{here} imports {there}"
    if item.inside and here != "cli" and not item.typing:
        yield f"imports {item.module} inside a function"
    parts = item.module.split(".")
    if here in NAMES_NO_ENGINE and len(parts) > 2 and parts[1] == "infer" and parts[2] in ENGINES:
        yield f"{here} names the engine {parts[2]}; it is handed one"


def _imports(tree: ast.Module, name: str) -> Iterator[Import]:
    def visit(node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, inside, typing)
            elif isinstance(child, ast.ImportFrom):
                module = _absolute(child, name)
                for alias in child.names:
                    yield Import(f"{module}.{alias.name}", child.lineno, inside, typing)
            elif isinstance(child, ast.Call) and _dynamic(child):
                yield Import(_dynamic(child), child.lineno, inside, typing)
                yield from visit(child, inside, typing)
            else:
                function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                hidden = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from visit(child, inside or function, typing or hidden)

    return visit(tree, False, False)


def _absolute(node: ast.ImportFrom, name: str) -> str:
    if not node.level:
        return node.module or ""
    package = ["tunewright", *name.split("/")[:-1]]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _dynamic(call: ast.Call) -> str:
    """The module of ``importlib.import_module("…")`` or ``__import__("…")``, f-strings up to their first hole."""
    if ast.unparse(call.func) not in ("importlib.import_module", "import_module", "__import__") or not call.args:
        return ""
    first = call.args[0]
    if isinstance(first, ast.JoinedStr) and first.values:
        first = first.values[0]  # type: ignore[assignment]
    return first.value.rstrip(".") if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) in ("os.environ", "os.getenv", "os.environb")
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and bool({"environ", "getenv", "environb"} & {alias.name for alias in node.names})
    )
