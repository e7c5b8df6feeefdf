"""``lab.show``: the code of the package, in the notebook, never pasted."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent
PIECE = 25  # lines that a reader takes in at once
_KEPT = ("property", "staticmethod", "classmethod", "dataclass", "torch.no_grad", "functools.cache")


class Source:
    """Source text that a notebook renders as highlighted code."""

    def __init__(self, text: str, where: str):
        self.text, self.where = text, where

    def __repr__(self) -> str:
        return f"source of {self.where}"  # what a terminal or a diff shows; pages show the code

    def _repr_markdown_(self) -> str:
        return f"```python\n# {self.where}\n{self.text}\n```"


def show(*symbols, start: str | None = None, end: str | None = None, docstring: bool = False) -> Source:
    """The source of functions or classes as it is in the package: what they compute.

    symbols     one or more functions, classes or methods
    start, end  a piece of one symbol: from the line that contains ``start`` to the next that contains ``end``
    docstring   show all of it; without it docstrings, argument checks and decorators that compute nothing are left out

    Raises TypeError for something that has no Python source, ValueError for a start or end that is no line of it.
    """
    texts, places = [], []
    for symbol in symbols:
        symbol = inspect.unwrap(symbol) if callable(symbol) else symbol
        try:
            lines, first = inspect.getsourcelines(symbol)
            file = Path(inspect.getsourcefile(symbol))
        except (OSError, TypeError) as error:
            raise TypeError(f"symbols: {symbol!r} has no Python source to show") from error
        text = textwrap.dedent("".join(lines)).rstrip().replace("  # fmt: skip", "")
        texts.append(text if docstring else essence(text))
        shown = file.relative_to(_ROOT) if file.is_relative_to(_ROOT) else file.name
        places.append(f"{shown}, line {first}")
    text = "\n\n\n".join(texts)
    if start is not None or end is not None:
        text = _piece(text, start, end)
    return Source(text, "; ".join(places))


def _piece(text: str, start: str | None, end: str | None) -> str:
    lines = text.splitlines()
    first = 0 if start is None else next((i for i, line in enumerate(lines) if start in line), None)
    if first is None:
        raise ValueError(f"start must stand in a line of the source, got {start!r}")
    last = len(lines) - 1 if end is None else next((i for i in range(first, len(lines)) if end in lines[i]), None)
    if last is None:
        raise ValueError(f"end must stand in a line of the source at or after the start, got {end!r}")
    return textwrap.dedent("\n".join(lines[first : last + 1]))


def essence(text: str) -> str:
    """Code without what computes nothing: docstrings, argument checks, decorators that check or compile.

    A check is an ``if`` that only raises, an ``assert``, or a call of a function named ``check_…`` whose value nobody
    takes.
    """
    lines, drop = text.splitlines(), set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if ast.get_docstring(node) and len(node.body) > 1:
                _drop(drop, node.body[0])
            for decorator in node.decorator_list:
                if not ast.unparse(decorator).startswith(_KEPT):
                    _drop(drop, decorator)
        if isinstance(body, list):
            checks = [child for child in body if _checks(child)]
            for child in checks if len(checks) < len(body) else ():
                _drop(drop, child)
    kept = [line for i, line in enumerate(lines) if i not in drop]
    kept = [line for i, line in enumerate(kept) if line.strip() or not _opens(kept, i)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")


def _drop(drop: set[int], node: ast.AST) -> None:
    drop.update(range(node.lineno - 1, node.end_lineno))


def _opens(lines: list[str], i: int) -> bool:
    """Whether the empty line i comes right after a line that opens a block: a docstring or a check stood between."""
    return i > 0 and lines[i - 1].rstrip().endswith(":")


def _checks(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return not node.orelse and all(isinstance(child, ast.Raise) for child in node.body)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func).split(".")[-1].lstrip("_").startswith("check_")
    return isinstance(node, ast.Assert)
