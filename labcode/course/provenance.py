"""Where a number comes from: the course's folder, the device, the versions, and the code that a chapter runs."""

import ast
import hashlib
import io
import platform
import re
import subprocess
import tokenize
from functools import lru_cache
from pathlib import Path

from .. import __version__
from .twin import cells, without_setup

PACKAGE = Path(__file__).parent.parent
# What draws, writes down and judges changes no value: an edit of it leaves results and checkpoints valid.
UNMEASURED = ("plots", "run", "leaderboard", "throughput", "pretrain", "course")
MEASURED = ("course/stage.py",)


def root() -> Path:
    """The course's folder: the nearest one above the working directory, or above the package, that has notebooks/."""
    for folder in (Path.cwd(), *Path.cwd().parents, PACKAGE.parent):
        if (folder / "_toc.yml").exists() and (folder / "notebooks").is_dir():
            return folder
    return Path.cwd()


def device_name(device) -> str:
    """The GPU's name, or the CPU's model."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        model = platform.processor() or platform.machine()
    return f"CPU ({model.strip()})"


def versions() -> dict[str, str]:
    """Of what decides a value."""
    import torch

    return {"labcode": __version__, "python": platform.python_version(), "torch": torch.__version__}


def commit() -> str:
    """The commit of the course that is running, with "-dirty" for changes outside the results and notebooks."""

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=PACKAGE, capture_output=True, text=True, timeout=20, check=True
        ).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # installed, it may lie inside another project's repository
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/labcode", ":/notebooks/**/*.py")
        return git("rev-parse", "--short=12", "HEAD").strip() + ("-dirty" if changed.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return f"labcode {__version__}"


def sources(chapter: str) -> list[Path]:
    """The modules that a chapter measures with: its own, those that its twin imports, and all behind them.

    Modules are followed through every import, also those inside functions. What only draws, writes down or judges is
    left out. A chapter's own modules come first.
    """
    own = _modules(PACKAGE / chapter)
    twin = root() / "notebooks" / f"{chapter}.py"
    waiting = [*own, *(_imported(_read(twin), ("labcode",)) if twin.exists() else ())]
    found = dict.fromkeys(own)
    while waiting:
        module = waiting.pop()
        found[module] = None
        package = ("labcode", *module.relative_to(PACKAGE).parts[:-1])
        waiting += [m for m in _imported(_read(module), package) if m not in found]
    return own + sorted(m for m in found if m not in own)


def fingerprint(chapter: str, scale: str = "quick") -> str:
    """A hash of what measures at a scale: the code, without comments and docstrings, of ``sources`` and of the twin's
    cells, and of each ``pick(quick=…, long=…, full=…)`` the value of that scale: a night's results stay valid when a
    minute's sizes change.

    The cell tagged ``setup`` only installs labcode: results stay valid when it changes, as with the project's address.
    """
    text = "".join(bare(_read(module), scale) for module in sources(chapter))
    twin = root() / "notebooks" / f"{chapter}.py"
    if twin.exists():
        listed = cells(without_setup(twin.read_text(encoding="utf-8")))
        text += bare("".join(code for kind, _, code in listed if kind == "code"), scale)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def checkpoints(chapter: str, scale: str) -> Path:
    """The folder of a chapter's trainings at long or full scale, one for each state of the code that measures: a
    training never goes on, and is never taken for finished, with the weights of other code. Old folders can go.
    """
    return root() / ".checkpoints" / chapter / fingerprint(chapter, scale)


@lru_cache(maxsize=1024)
def bare(text: str, scale: str) -> str:
    """Python code without comments, docstrings, empty lines and what ``pick`` holds for other scales: what is left
    decides what is computed.
    """
    text = _picked(text, scale)
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                said = node.body[0]
                lines[said.lineno - 1 : said.end_lineno] = [""] * (said.end_lineno - said.lineno + 1)
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip())


def _picked(text: str, scale: str) -> str:
    """The code in which every ``pick`` of keywords holds the value of one scale alone."""
    raw, edits = text.encode(), []
    starts = [0, *(at + 1 for at, byte in enumerate(raw) if byte == 10)]

    def place(line, column):
        return starts[line - 1] + column

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pick":
            given = {k.arg: k.value for k in node.keywords}
            if node.args or None in given or not {"quick", "full"} <= given.keys():
                continue
            value = given.get(scale, given["quick"])
            span = place(node.func.end_lineno, node.func.end_col_offset), place(node.end_lineno, node.end_col_offset)
            kept = place(value.lineno, value.col_offset), place(value.end_lineno, value.end_col_offset)
            edits += [(span[0], kept[0], b"("), (kept[1], span[1], b")")]
    made, at = b"", 0
    for first, last, bracket in sorted(edits):
        if first >= at:  # or it stands in what is left out
            made, at = made + raw[at:first] + bracket, last
    return (made + raw[at:]).decode()


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _modules(place: Path) -> list[Path]:
    """The files of a module or package that is named without its ending."""
    if place.is_dir():
        return sorted(place.rglob("*.py"))
    return [place.with_suffix(".py")] if place.with_suffix(".py").exists() else []


def _imported(text: str, package: tuple[str, ...]) -> list[Path]:
    """The package's modules that a text imports, or reaches as ``lab.name``; ``package`` is where the text stands."""
    found = []
    for names in _targets(text, package):
        places = (PACKAGE.joinpath(*names[1:end]) for end in range(2, len(names) + 1))
        files = (file for place in places for file in (place / "__init__.py", place.with_suffix(".py")))
        found += [file for file in files if file.exists() and _measures(file)]
    return found


def _measures(module: Path) -> bool:
    relative = module.relative_to(PACKAGE)
    return relative.as_posix() in MEASURED or relative.with_suffix("").parts[0] not in UNMEASURED


@lru_cache(maxsize=512)
def _targets(text: str, package: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Dotted names below ``labcode`` that a text imports, as tuples."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            found.update((*base, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lab":
            found.add(("labcode", node.attr))
    return tuple(sorted(names for names in found if names[0] == "labcode" and len(names) > 1))
