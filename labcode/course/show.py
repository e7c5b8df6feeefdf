"""``lab.show``: the code of the package, in the notebook, never pasted."""

import ast
import inspect
import textwrap
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


class Source:
    """Source text that a notebook renders as highlighted code."""

    def __init__(self, text: str, where: str):
        self.text, self.where = text, where

    def __repr__(self) -> str:
        return f"source of {self.where}"  # what a terminal or a diff shows; pages show the code

    def _repr_markdown_(self) -> str:
        return f"```python\n# {self.where}\n{self.text}\n```"


def show(*symbols, docstring: bool = False) -> Source:
    """The source of functions or classes as it is in the package.

    symbols    one or more functions, classes or methods
    docstring  keep the docstrings; without them only the code is shown

    Raises TypeError for something that has no Python source.
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
        texts.append(text if docstring else _without_docstrings(text))
        shown = file.relative_to(_ROOT) if file.is_relative_to(_ROOT) else file.name
        places.append(f"{shown}, line {first}")
    return Source("\n\n\n".join(texts), "; ".join(places))


def _without_docstrings(text: str) -> str:
    lines, drop = text.splitlines(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) and len(node.body) > 1:
            start, end = node.body[0].lineno, node.body[0].end_lineno
            blank = end < len(lines) and not lines[end].strip()  # one empty line after the docstring goes with it
            drop.update(range(start - 1, end + blank))
    return "\n".join(line for i, line in enumerate(lines) if i not in drop)
