"""Data flows one way: library, then a chapter, then the course's commands; no module imports itself by a detour."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "labcode"
PARTS = {file.parent.parent.name for file in PACKAGE.glob("*/*/papers.yml")}
COMMANDS = {"run", "leaderboard", "throughput", "pretrain"}  # python -m labcode.NAME


def name_of(file: Path) -> str:
    """A file's module, with dots: labcode.nets.vit, labcode.nets."""
    parts = ("labcode", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in PACKAGE.rglob("*.py")}


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in it, functions included."""
    file, found = MODULES[module], set()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names]
        found |= {name for name in names if name in MODULES and name != "labcode"}
    return found - {module}


def layer(module: str) -> str:
    top = module.split(".")[1] if "." in module else ""
    return "part" if top in PARTS else "course" if top == "course" else "command" if top in COMMANDS else "library"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if layer(m) == "library" and m != "labcode"))
def test_the_library_imports_neither_course_nor_chapter(module):
    assert {layer(m) for m in imports(module)} <= {"library"}, imports(module)


def test_nothing_of_the_library_imports_what_comes_after_it():
    """data → augment → nets → train → evaluate; what has no place in the line may be used by all of them."""
    order = ["data", "augment", "nets", "train", "evaluate"]
    for module in (m for m in MODULES if layer(m) == "library" and m != "labcode" and m.split(".")[1] in order):
        place = order.index(module.split(".")[1])
        tops = {m.split(".")[1] for m in imports(module)}
        late = [top for top in tops if top in order and order.index(top) > place]
        assert not late, f"{module} imports {late}"


def test_no_circle():
    graph = {module: imports(module) for module in MODULES if module != "labcode"}
    # a package's own files import each other, not the package that gathers their names
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) >= len(graph)


def test_a_chapter_is_a_package_of_small_files():
    assert PARTS
    for file in (f for part in PARTS for f in (PACKAGE / part).rglob("*.py")):
        lines = len(file.read_text().splitlines())
        assert lines <= 400, f"{file.relative_to(PACKAGE)} has {lines} lines, 400 at most"
    assert not [f for part in PARTS for f in (PACKAGE / part).glob("*.yml")]
