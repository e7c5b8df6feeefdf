"""Source pages: the package's code with an anchor for every symbol, and the way from a card's symbol to its anchor."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

from course_data import Chapter, Course
from course_html import Link


def symbols(source: str) -> dict[str, int]:
    """Top-level public names of a module and the line each starts on (decorators included)."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in getattr(node, "targets", None) or [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = node.lineno
    return found


def source_html(path: Path) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    source = path.read_text(encoding="utf-8")
    lines = highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).split("\n")
    for name, line in symbols(source).items():
        if line <= len(lines):
            lines[line - 1] = f'<span class="source-symbol" id="{name}">{lines[line - 1]}</span>'
    return (
        '<div class="highlight course-source" tabindex="0" role="region" aria-label="Source"><pre>'
        + "\n".join(lines)
        + "</pre></div>"
    )


def source_files(root: Path) -> list[Path]:
    return sorted(p for p in (root / "labcode").glob("**/*.py") if p.stat().st_size)


def source_page(path: Path, root: Path) -> str:
    return "code/" + path.relative_to(root / "labcode").with_suffix("").as_posix()


def imported(module: Path, root: Path) -> dict[str, tuple[Path, str | None]]:
    """Names that a module of the package takes from another one: file and name there (None for a module itself)."""
    found = {}
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = module.parents[node.level - 1]
        elif (node.module or "").split(".")[0] == "labcode":
            base = root
        else:
            continue
        base = base.joinpath(*(node.module or "").split("."))
        for alias in node.names:
            name = alias.asname or alias.name
            if (base / f"{alias.name}.py").exists():
                found[name] = (base / f"{alias.name}.py", None)
            elif base.with_suffix(".py").exists():
                found[name] = (base.with_suffix(".py"), alias.name)
            elif (base / "__init__.py").exists():
                found[name] = (base / "__init__.py", alias.name)
    return found


def code_link(course: Course, link: Link) -> Callable[[Chapter, str], str | None]:
    """Address of a symbol on a source page: ``loss``, ``Class.method``, ``cpc.loss``, ``labcode/augment.py:views``."""

    def find(chapter: Chapter, symbol: str) -> str | None:
        module, names = chapter.module, symbol.split(".")
        if ":" in symbol:
            where, name = symbol.split(":", 1)
            module, names = course.root / where, name.split(".")
        for _ in range(4):  # a name may be handed on from module to module
            if module is None or not module.exists() or not names:
                return None
            if names[0] in symbols(module.read_text(encoding="utf-8")):
                return link(source_page(module, course.root), names[0])
            handed = imported(module, course.root).get(names[0])
            beside = module.with_name(f"{names[0]}.py")
            if handed:
                module, names = handed[0], names[1:] if handed[1] is None else [handed[1], *names[1:]]
            elif len(names) > 1 and beside.exists():
                module, names = beside, names[1:]
            else:
                return None
        return None

    return find
