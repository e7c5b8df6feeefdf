"""Source pages: the package's code with an anchor for every symbol, and the way from a card's symbol to its anchor."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from html import escape
from pathlib import Path

from course_data import Chapter, Course, Part, stamp
from course_html import Link

REFERENCE = "book/reference"


@cache
def _tree(path: Path, written: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _symbols(path: Path, written: int) -> dict[str, int]:
    return symbols(path.read_text(encoding="utf-8"))


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
    return _imported(module, root, stamp(module))


@cache
def _imported(module: Path, root: Path, written: int) -> dict[str, tuple[Path, str | None]]:
    found = {}
    for node in _tree(module, written).body:
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
            if names[0] in _symbols(module, stamp(module)):
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


def _prose(text: str) -> str:
    """A docstring's sentence as HTML: ``names`` become code."""
    return re.sub("``(.+?)``", r"<code>\1</code>", escape(text))


def _short(arguments: ast.arguments) -> str:
    """Names and defaults, without the types."""
    bare = ast.parse(f"def f({ast.unparse(arguments)}): ...").body[0].args
    for a in (*bare.posonlyargs, *bare.args, *bare.kwonlyargs, *filter(None, (bare.vararg, bare.kwarg))):
        a.annotation = None
    return ast.unparse(bare)


def _entry(node: ast.AST, address: str, prefix: str = "") -> str:
    """A function, class or method: its call, what it does, and the rest folded away."""
    of_class = isinstance(node, ast.ClassDef)
    inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"] if of_class else [node]
    arguments, whole = "", f"class {node.name}"
    if inits:
        arguments = _short(inits[0].args).removeprefix("self").removeprefix(", ")
        whole = ast.unparse(ast.FunctionDef(node.name, inits[0].args, [ast.Pass()], [], inits[0].returns, lineno=0))
        whole = whole.splitlines()[0].removesuffix(":").removeprefix("def ")
    first, _, rest = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n\n")
    more = f"{whole}\n\n{rest}" if rest else whole
    return (
        f'<dt><a href="{address}#{node.name}"><code>{escape(prefix + node.name)}</code></a>'
        f"<code>({escape(arguments)})</code></dt><dd>{_prose(first)}"
        f'<details><summary>arguments and more</summary><pre tabindex="0">{escape(more)}</pre></details></dd>'
    )


def _modules(root: Path, files: list[Path], link: Link) -> str:
    """The public symbols of some files, module by module, with a list of the modules on top."""
    out, names = [], []
    for path in (p for p in files if p.name != "__init__.py"):
        tree = _tree(path, stamp(path))
        listed = [
            n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")
        ]
        if not listed:
            continue
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        head = inspect.cleandoc(ast.get_docstring(tree) or "").partition("\n\n")[0]
        entries = "".join(_entry(n, link(source_page(path, root))) for n in listed)
        out.append(f'<h2 id="{name}"><code>{name}</code></h2><p>{_prose(head)}</p><dl class="api">{entries}</dl>')
        names.append(f'<li><a href="#{name}"><code>{name.removeprefix("labcode.")}</code></a></li>')
    return f'<ul class="api-modules">{"".join(names)}</ul>{"".join(out)}'


def _of_part(course: Course, part: Part) -> list[Path]:
    return [p for p in source_files(course.root) if p.relative_to(course.root / "labcode").parts[0] == part.slug]


def api_html(course: Course, link: Link) -> str:
    """The library's public symbols, module by module, and the way to those of each part's chapters."""
    parts = [part for part in course.parts if _of_part(course, part)]
    chapters = {p for part in parts for p in _of_part(course, part)}
    library = [p for p in source_files(course.root) if p not in chapters]
    library.sort(key=lambda p: ("course" in p.parts, p))  # what only the book needs comes last
    listed = "".join(
        f'<li><a href="{link(f"{REFERENCE}/{part.slug}")}">{escape(part.title)}</a>: '
        f"{escape(', '.join(c.title for c in part.chapters if c.module))}</li>"
        for part in parts
    )
    ways = f"<p>The methods of the chapters have a page a part:</p><ul>{listed}</ul>" if listed else ""
    return f"{ways}<p>The library beneath them:</p>{_modules(course.root, library, link)}"


def api_pages(course: Course) -> Iterator[tuple[str, str, Callable[[Link], str]]]:
    """Address, title and contents of the reference of every part that has code."""
    for part in course.parts:
        if files := _of_part(course, part):
            yield (
                f"{REFERENCE}/{part.slug}",
                f"Reference: {part.title}",
                lambda link, files=files: _modules(course.root, files, link),
            )
