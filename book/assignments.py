"""Chapters as assignments that grade themselves: an nbgrader course made from the graded tasks of the notebooks.

    python book/assignments.py [--private FOLDER] [--out assignments] [contrastive …]

A graded task is an exercise of a chapter's twin: the markdown cell that holds ``:label: ex-NAME``, the code cell with
the tag ``task:NAME`` (starter, and the answer between ``### BEGIN SOLUTION`` and ``### END SOLUTION``), and one code
cell or more with the tag ``task-tests:NAME:POINTS`` (asserts; those between ``### BEGIN HIDDEN TESTS`` and ``### END
HIDDEN TESTS`` only the grader sees). They may use nothing of the chapter, only what they import.

For every chapter that has tasks this writes source/CHAPTER/CHAPTER.ipynb, lets nbgrader make from it
release/CHAPTER/CHAPTER.ipynb, which is what students get, and notes both in gradebook.db. ``--private`` names a
folder of further twins: the tasks of FOLDER/CHAPTER.py are added to that chapter's and take the place of tasks with
the same names; a file that has no chapter's name is an assignment of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
NAME = "[a-z0-9]+(?:-[a-z0-9]+)*"
SETUP = """import torch

torch.set_num_threads(1)
print("torch", torch.__version__)"""
INTRO = """# {title}

{tasks} tasks, {points} points. Replace each `raise NotImplementedError` by your code; import whatever else you need
in the same cell. The cells with `assert` show some of what is tested. They cannot be edited, and further tests run
when your work is graded. Before you hand in, choose *Restart kernel and run all cells*: nothing may depend on a cell
that is gone."""
CONFIG = """# Written once by `make assignments`; what you change here stays.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # grading.py
c = get_config()
c.CourseDirectory.course_id = "learning_without_labels"
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("your answer")'}
c.Autograde.sanitize_preprocessors = [
    "grading.Mend",  # one student's odd notebook costs nobody else's grade
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Autograde.autograde_preprocessors = [
    "grading.Run",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Execute.timeout = 30  # seconds a cell; a loop without end costs its own cell, not the night
c.Execute.interrupt_on_timeout = True
"""


@dataclass
class Task:
    """One graded task, as its cells have it."""

    name: str
    title: str
    text: str
    solution: str
    tests: list[tuple[str, int]] = field(default_factory=list)  # (source, points)

    @property
    def points(self) -> int:
        return sum(points for _, points in self.tests)


def read(twin: Path) -> tuple[str, list[Task]]:
    """The chapter's title and its graded tasks, in the order of its page.

    Raises ValueError for cells that do not make a whole task: it names the twin, the task and what is missing.
    """
    import jupytext

    cells = jupytext.read(twin).cells
    prose = [c.source for c in cells if c.cell_type == "markdown"]
    title = next((m[1] for s in prose if (m := re.match(r"# (.+)", s))), twin.stem)
    exercises = {m[1]: s for s in prose if (m := re.search(r"(?m)^:label: ex-(\S+)$", s))}
    found: dict[str, Task] = {}
    for cell in cells:
        for tag in cell.metadata.get("tags", []):
            if not tag.startswith("task"):
                continue
            if not (m := re.fullmatch(rf"task:({NAME})|task-tests:({NAME}):([1-9]\d*)", tag)):
                raise ValueError(f"{twin}: the tag must be task:NAME or task-tests:NAME:POINTS, got {tag!r}")
            name, tested, points = m.groups()
            if tested:
                if tested not in found:
                    raise ValueError(f"{twin}: {tag} has no cell task:{tested} above it")
                found[tested].tests.append((cell.source, int(points)))
                continue
            if name in found or name not in exercises:
                wrong = "a second cell" if name in found else f"no exercise with :label: ex-{name}"
                raise ValueError(f"{twin}: task {name} has {wrong}")
            if not all(cell.source.count(mark) for mark in SOLUTION):
                raise ValueError(f"{twin}: task {name} needs {SOLUTION[0]!r} and {SOLUTION[1]!r} in its cell")
            found[name] = Task(name, *_plain(exercises[name]), cell.source)
    untested = [t.name for t in found.values() if not t.tests]
    if untested:
        raise ValueError(f"{twin}: no cell task-tests:NAME:POINTS for {', '.join(untested)}")
    return title, list(found.values())


def _plain(exercise: str) -> tuple[str, str]:
    """Title and text of an exercise without the directive about it, which JupyterLab would show as it is."""
    title = re.search(r"\{exercise-start\} *(.+)", exercise)[1]
    body = exercise[exercise.index("{exercise-start}") : exercise.index("{exercise-end}")]
    lines = body.split("\n")[1:]
    return title, "\n".join(s for s in lines if not re.match(r":\w+:|`{3,}", s)).strip()


def notebook(title: str, tasks: list[Task]):
    """nbgrader's source version: title, setup cell, and for each task its text, answer and tests."""
    from nbformat import v4

    def cell(make, source, name, **keys):
        roles = {"grade": False, "solution": False, "locked": True, "task": False, **keys}
        made = make(source, metadata={"nbgrader": {"schema_version": 3, "grade_id": name, **roles}})
        made["id"] = name  # the same at every run
        return made

    intro = INTRO.format(title=title, tasks=len(tasks), points=sum(t.points for t in tasks))
    cells = [cell(v4.new_markdown_cell, intro, "intro"), cell(v4.new_code_cell, SETUP, "setup")]
    for task in tasks:
        text = f"## {task.title} ({task.points} points)\n\n{task.text}"
        cells.append(cell(v4.new_markdown_cell, text, f"{task.name}-text"))
        cells.append(cell(v4.new_code_cell, task.solution, task.name, solution=True, locked=False))
        for i, (source, points) in enumerate(task.tests, 1):
            cells.append(cell(v4.new_code_cell, source, f"{task.name}-tests-{i}", grade=True, points=points))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def assignments(private: Path | None = None) -> dict[str, tuple[str, list[Task]]]:
    """Every assignment by name: title and tasks, those of the private folder included.

    Raises ValueError for a private folder that is not there, and as ``read``.
    """
    if private and not private.is_dir():
        raise ValueError(f"--private must be a folder of .py twins, got {private}")
    made = {p.stem: read(p) for p in sorted((ROOT / "notebooks").glob("*/*.py"))}
    for twin in sorted(private.glob("*.py")) if private else ():
        title, more = read(twin)
        title, tasks = made.get(twin.stem, (title, []))
        made[twin.stem] = title, list({t.name: t for t in [*tasks, *more]}.values())
    return {name: both for name, both in made.items() if both[1]}


def write(out: Path, wanted: dict[str, tuple[str, list[Task]]]) -> None:
    """source/, release/, grading.py, nbgrader_config.py and gradebook.db in ``out``; submissions and grades stay.

    Where nbgrader refuses to make a student version, that assignment stays as it was and the others are made. Raises
    RuntimeError after the last, with a line for each refusal.
    """
    import nbformat
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import PyFileConfigLoader

    here = Path(sys.executable).parent  # nbgrader looks for its `alembic` on the path
    os.environ["PATH"] = f"{here}{os.pathsep}{os.environ.get('PATH', '')}"
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "nbgrader_config.py").exists():
        (out / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("grading.py"), out / "grading.py")
    if "grading.Mend" not in (out / "nbgrader_config.py").read_text(encoding="utf-8"):
        print(f"{out}/nbgrader_config.py does not use grading.py: move it away, and a new one is written that does")
    config = PyFileConfigLoader("nbgrader_config.py", path=str(out)).load_config()
    config.CourseDirectory.root = str(out.resolve())
    nbgrader = NbGraderAPI(config=config)
    refused = []
    for name, (title, tasks) in wanted.items():
        path = out / "source" / name / f"{name}.ipynb"
        with _put_back(out / "source" / name, out / "release" / name) as keep:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".tmp")
            nbformat.write(notebook(title, tasks), part)
            os.replace(part, path)
            result = nbgrader.generate_assignment(name, force=True, create=True)
            if result["success"]:
                keep()
                print(f"{name}: {len(tasks)} tasks, {sum(t.points for t in tasks)} points → {out}/release/{name}")
            else:
                reason = _reason(f"{result.get('log', '')}\n{result.get('error', '')}")
                refused.append(f"{name} stays as it was, nbgrader made no student version: {reason}")
    if refused:
        raise RuntimeError("\n".join(refused))


@contextlib.contextmanager
def _put_back(*folders: Path):
    """The folders as they were before, or gone if there were none, unless the function that this yields is called."""
    keep = []
    with tempfile.TemporaryDirectory(prefix="aside-", dir=folders[0].parents[1]) as aside:
        copies = [(folder, Path(aside, str(i))) for i, folder in enumerate(folders)]
        for folder, copy in copies:
            if folder.exists():
                shutil.copytree(folder, copy)
        try:
            yield lambda: keep.append(True)
        finally:
            for folder, copy in copies if not keep else ():
                shutil.rmtree(folder, ignore_errors=True)
                if copy.exists():
                    shutil.move(copy, folder)


def _reason(log: str) -> str:
    """The line of nbgrader's log that says why: the first error that a traceback ends with, else its last line."""
    said = [line.strip() for line in log.split("\n") if line.strip()]
    causes = [line for line in said if re.match(r"(\w+\.)*\w*(Error|Exception|Interrupt|Entry)\b", line)]
    return [*causes, *reversed(said), "no reason given"][0]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--private", type=Path, help="a folder of twins with tasks that stay out of the book")
    options.add_argument("--out", type=Path, default=ROOT / "assignments")
    options.add_argument("names", nargs="*")
    options = options.parse_args()
    try:
        known = assignments(options.private)
        names = [n.split("/")[-1] for n in options.names]  # self_supervision/contrastive is contrastive
        if unknown := [n for n in names if n not in known]:
            raise ValueError(f"no assignment {', '.join(unknown)}; there are {', '.join(known) or 'none'}")
        write(options.out, {n: known[n] for n in names or known})
    except (ValueError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
