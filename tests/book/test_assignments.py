"""Assignments: right answers get every point, the stub none, wrong answers fewer, and nothing leaks or is lost."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("assignments", ROOT / "book" / "assignments.py")
assignments = importlib.util.module_from_spec(spec)
sys.modules["assignments"] = assignments
spec.loader.exec_module(assignments)

ANSWERS = runpy.run_path(str(Path(__file__).with_name("mutants.py")))
MUTANTS, VARIANTS = ANSWERS["MUTANTS"], ANSWERS["VARIANTS"]
TIMEOUT = int(re.search(r"c\.Execute\.timeout = (\d+)", assignments.CONFIG)[1])  # seconds a cell
COURSE = assignments.assignments()
TASKS = {task.name: task for _, tasks in COURSE.values() for task in tasks}
COUNTS = {c["slug"]: c["papers"] for part in yaml.safe_load((ROOT / "book" / "plan.yml").read_text())["parts"]
          for c in part["chapters"]}  # fmt: skip
# a chapter is finished when every planned paper has its card
CHAPTERS = sorted(
    p.stem for p in (ROOT / "notebooks").glob("*/*.py")
    if len(yaml.safe_load((ROOT / "labcode" / p.parent.name / f"{p.stem}.yml").read_text())) == COUNTS[p.stem]
)  # fmt: skip
NBGRADER = importlib.util.find_spec("nbgrader") is not None
needs_nbgrader = pytest.mark.skipif(not NBGRADER, reason="nbgrader is not installed: pip install nbgrader==0.9.6")
each_task = pytest.mark.parametrize("name", TASKS)
STUB = 'raise NotImplementedError("your answer")'


@contextlib.contextmanager
def limit(seconds):
    """TimeoutError in what takes longer, where the system has alarms."""

    def ring(*_):
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def grade(task, answer, seconds=TIMEOUT):
    """Points of an answer's cell, as nbgrader counts them: a cell of tests that raises or takes too long gives none."""
    space, points = {}, 0
    with contextlib.redirect_stdout(io.StringIO()):
        exec(assignments.SETUP, space)
        with contextlib.suppress(Exception):
            exec(answer, space)
        for source, worth in task.tests:
            with contextlib.suppress(Exception):
                with limit(seconds):
                    exec(source, space)
                points += worth
    return points


def region(marks):
    """A pattern of a marked region: its indentation, its lines."""
    return re.compile(rf"(?ms)^( *){marks[0]}\n(.*?)^ *{marks[1]}$")


def lines(source):
    return {line.strip() for line in source.split("\n")} - {""}


def stub(source):
    """The starter, made without nbgrader's help."""
    return region(assignments.SOLUTION).sub(rf"\1{STUB}", source)


def test_every_finished_chapter_has_two_tasks_and_names_are_unique():
    assert set(COURSE) == set(CHAPTERS)
    names = [task.name for _, tasks in COURSE.values() for task in tasks]
    assert all(len(tasks) >= 2 for _, tasks in COURSE.values()) and len(set(names)) == len(names)
    assert set(MUTANTS) == set(VARIANTS) == set(names)


@each_task
def test_the_reference_gets_all_points_and_the_stub_none(name):
    task = TASKS[name]
    assert task.points > 0 and all(points > 0 for _, points in task.tests)
    assert grade(task, task.solution) == task.points
    assert grade(task, stub(task.solution)) == 0


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n, found in MUTANTS.items() for w in found])
def test_a_wrong_answer_loses_points(name, wrong):
    task = TASKS[name]
    answer = changed(task, wrong, MUTANTS[name][wrong])
    assert grade(task, answer, seconds=5) < task.points  # at the real time-out too: what is quadratic takes minutes


@pytest.mark.parametrize(("name", "other"), [(n, v) for n, found in VARIANTS.items() for v in found])
def test_a_right_answer_of_another_kind_gets_all_points(name, other):
    task = TASKS[name]
    assert grade(task, changed(task, other, VARIANTS[name][other])) == task.points


def changed(task, what, change):
    """The solution's cell with one change (old, new), still Python."""
    old, new = change
    assert task.solution.count(old) == 1, "the change fits no place, or several"
    answer = task.solution.replace(old, new)
    compile(answer, what, "exec")
    return answer


@each_task
def test_a_task_needs_only_what_it_imports_and_has_visible_and_hidden_tests(name):
    task = TASKS[name]
    assert len(MUTANTS[name]) >= 2
    assert "](" not in task.text and "{" + "exercise" not in task.text, "links and directives mean nothing outside"
    for source, _ in task.tests:
        hidden = region(assignments.HIDDEN)
        assert "assert" in hidden.sub("", source) and "assert" in hidden.search(source)[2]
    for source in (task.solution, *(source for source, _ in task.tests)):
        assert "labcode" not in source, "whoever grades needs torch alone"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("assignments")
    assignments.write(out, COURSE)
    return out


@needs_nbgrader
@pytest.mark.parametrize("name", CHAPTERS)
def test_the_student_version_leaks_nothing(made, name):
    text = (made / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    book, (_, tasks) = nbformat.reads(text, as_version=4), COURSE[name]
    by_name = {cell.metadata.nbgrader.grade_id: cell for cell in book.cells}
    assert len(by_name) == len(book.cells) == len({c.id for c in book.cells})
    assert set(book.metadata) == {"kernelspec"}
    for cell in book.cells:
        assert set(cell.metadata) <= {"nbgrader", "deletable", "editable"}
        assert not cell.get("outputs") and cell.get("execution_count") is None
    decoded = "\n".join(_strings(json.loads(text)))
    for task in tasks:
        assert by_name[task.name].source == stub(task.solution)
        for line in lines(task.solution) - lines(stub(task.solution)):
            assert len(line) < 3 or line not in decoded, f"{task.name}: {line}"
        for i, (source, points) in enumerate(task.tests, 1):
            visible = region(assignments.HIDDEN).sub("", source)
            cell = by_name[f"{task.name}-tests-{i}"]
            assert cell.source.strip() == visible.strip() and cell.metadata.nbgrader.points == points
            for line in lines(source) - lines(visible):
                assert len(line) < 3 or line not in decoded, f"{task.name}: {line}"
    assert "BEGIN" not in decoded and "solution-start" not in decoded


def _strings(value):
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for one in value:
            yield from _strings(one)
    else:
        yield str(value)


@needs_nbgrader
def test_the_whole_cycle_of_nbgrader(tmp_path):
    """Students hand in by e-mail, are collected, graded, answered, and their grades exported, as the guide has it."""
    assignments.write(tmp_path, {n: COURSE[n] for n in ("contrastive", "pretext")})
    first, second = COURSE["contrastive"][1]
    released = tmp_path / "release" / "contrastive" / "contrastive.ipynb"
    old, new = MUTANTS[first.name]["exponentials that overflow"]
    answers = {
        "ada": {first.name: first.solution, second.name: second.solution},
        "bob": {first.name: first.solution.replace(old, new)},
        "eve": {},
    }
    inbox = tmp_path / "downloaded" / "contrastive" / "archive"
    inbox.mkdir(parents=True)
    for student, cells in answers.items():
        book = nbformat.read(released, as_version=4)
        for cell in book.cells:
            cell.source = cells.get(cell.id, cell.source)
            if cell.metadata.nbgrader.grade and student == "eve":
                cell.source = "assert True"  # no way to points: the tests are put back
        nbformat.write(book, inbox / f"{student}_contrastive.ipynb")
    (inbox / "dan_contrastive.ipynb").write_text("no notebook")
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(DOCKER)
    fake.chmod(0o755)
    path = os.pathsep.join([str(fake.parent), str(Path(sys.executable).parent), os.environ["PATH"]])

    def shell(command, status=0):
        run = ["bash", "-c", command]
        done = subprocess.run(
            run, cwd=tmp_path, env={**os.environ, "PATH": path, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    guide = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(m[2]) for m in re.finditer(r"(?ms)^( *)```bash\n(.*?)^\1```$", guide)]
    export, ungraded, boxes = (
        next(b for b in blocks if sign in b) for sign in ("awk -F, 'NR", 'not graded"; done', "docker run")
    )
    shell("nbgrader zip_collect contrastive")
    shell("nbgrader autograde contrastive", status=1)  # dan's
    shell("nbgrader generate_feedback contrastive")
    shell(export)
    assert shell(ungraded) == "submitted/dan/contrastive: not graded\n"
    assert len(_rows(tmp_path / "all.csv")) == 8, "students times assignments"
    rows = _rows(tmp_path / "grades.csv")
    grades = {row["student_id"]: row for row in rows}
    assert len(rows) == 3 and {row["assignment"] for row in rows} == {"contrastive"}
    points = {student: float(row["score"]) for student, row in grades.items()}
    whole = first.points + second.points
    assert points["ada"] == whole == float(grades["ada"]["max_score"])
    assert 0 < points["bob"] == grade(first, answers["bob"][first.name]) < first.points
    assert points["eve"] == 0
    pages = [tmp_path / "feedback" / student / "contrastive" / "contrastive.html" for student in answers]
    assert all(page.stat().st_size > 1000 for page in pages)

    for folder in ("autograded", "feedback", "submitted/bob", "submitted/eve"):
        shutil.rmtree(tmp_path / folder)
    assert re.fullmatch("dan: not graded, look at .*\n", shell(boxes))
    (row,) = _rows(tmp_path / "contrastive.csv")
    assert row["student_id"] == "ada" and row["assignment"] == "contrastive" and float(row["score"]) == whole
    assert [page.exists() for page in pages] == [True, False, False]
    assert shell(ungraded) == "submitted/dan/contrastive: not graded\n"


# runs what the guide runs in a container in the box's folder, and has no other limits
DOCKER = """#!/bin/bash
while [ "$1" != grader ]; do [ "$1" = -v ] && box=${2%:/course}; shift; done
cd "$box" && shift && exec "$@" 1>&2
"""


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@needs_nbgrader
@pytest.mark.filterwarnings("ignore:Object of type")
def test_a_refused_assignment_stays_as_it_was_and_the_others_are_made(tmp_path, monkeypatch, capsys):
    """Submissions forbid another task: status 1, one line, and neither source nor release is lost."""
    from nbgrader.api import Gradebook

    out, private = tmp_path / "out", tmp_path / "private"
    wanted = {n: COURSE[n] for n in ("pretext", "redundancy")}
    assignments.write(out, wanted)
    with Gradebook(f"sqlite:///{out}/gradebook.db") as book:
        book.add_student("ada")
        for name in wanted:
            book.add_submission(name, "ada")
    (out / "source" / "pretext" / "data.csv").write_text("1")
    before = {p: p.read_bytes() for p in out.glob("*/pretext/*")}
    assert len(before) == 3
    made = out / "release" / "redundancy" / "redundancy.ipynb"
    made.unlink()
    private.mkdir()
    (private / "pretext.py").write_text(PRIVATE.format(title="Other", name="twice"))
    command = ["assignments.py", "--private", str(private), "--out", str(out), *wanted]
    monkeypatch.setattr(sys, "argv", command)
    capsys.readouterr()
    assert assignments.main() == 1
    said, error = capsys.readouterr()
    assert error.count("\n") == 1 and error.startswith("pretext stays as it was") and "add or remove cells" in error
    assert said.startswith("redundancy: ") and said.count("\n") == 1 and made.exists()
    assert {p: p.read_bytes() for p in out.glob("*/pretext/*")} == before
    assert not list(out.glob("aside-*"))


@needs_nbgrader
def test_a_new_assignment_that_is_refused_leaves_nothing(tmp_path, monkeypatch):
    from nbgrader.apps import NbGraderAPI

    log = "Traceback\n  File x\nValueError: no such cell\n[ERROR] see above"
    monkeypatch.setattr(NbGraderAPI, "generate_assignment", lambda *_, **__: {"success": False, "log": log})
    with pytest.raises(RuntimeError, match=r"^pretext stays as it was.*: ValueError: no such cell$"):
        assignments.write(tmp_path, {"pretext": COURSE["pretext"]})
    assert not list(tmp_path.glob("*/pretext"))


PRIVATE = """# %% [markdown]
# # {title}

# %% [markdown]
# ````{{exercise-start}} Twice
# :label: ex-{name}
# ````
# Double it.
# ````{{exercise-end}}
# ````

# %% tags=["task:{name}"]
def twice(x):
    ### BEGIN SOLUTION
    return x + x
    ### END SOLUTION

# %% tags=["task-tests:{name}:7"]
assert twice(1) == 2
"""


def test_private_tasks_are_added_replace_and_stand_alone(tmp_path):
    (tmp_path / "contrastive.py").write_text(PRIVATE.format(title="Other", name="twice"))
    (tmp_path / "redundancy.py").write_text(PRIVATE.format(title="Other", name="rankme"))
    (tmp_path / "midterm.py").write_text(PRIVATE.format(title="Midterm", name="twice"))
    found = assignments.assignments(tmp_path)
    assert [t.name for t in found["contrastive"][1]] == ["nt-xent", "moco-update", "twice"]
    title, tasks = found["redundancy"]
    assert title == COURSE["redundancy"][0]
    assert [(t.name, t.title, t.points) for t in tasks][1] == ("rankme", "Twice", 7)
    assert found["midterm"][0] == "Midterm" and found["midterm"][1][0].text == "Double it."
    assert grade(found["midterm"][1][0], found["midterm"][1][0].solution) == 7
    with pytest.raises(ValueError, match="--private must be a folder"):
        assignments.assignments(tmp_path / "missing")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task:twice", "task:other", "no exercise with :label: ex-other"),
        ("task:twice", "task:Twice", "the tag must be"),
        (":7", ":0", "the tag must be"),
        ("tests:twice", "tests:thrice", "has no cell task:thrice"),
        ("### END SOLUTION", "", "needs '### BEGIN SOLUTION'"),
        ('# %% tags=["task-tests:twice:7"]', "# %%", "no cell task-tests:NAME:POINTS for twice"),
    ],
)
def test_half_a_task_is_refused(tmp_path, old, new, message):
    text = PRIVATE.format(title="T", name="twice")
    assert text.count(old) == 1
    (tmp_path / "t.py").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        assignments.read(tmp_path / "t.py")


def test_the_guide_s_example_is_a_task(tmp_path):
    guide = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")
    (tmp_path / "midterm.py").write_text(re.search(r"(?s)````python\n(.*?)````", guide)[1], encoding="utf-8")
    (task,) = assignments.assignments(tmp_path)["midterm"][1]
    assert grade(task, task.solution) == task.points == 3 and grade(task, stub(task.solution)) == 0


def test_an_unknown_assignment_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["assignments.py", "--out", str(tmp_path), "unknown"])
    assert assignments.main() == 1
    assert "no assignment unknown; there are evaluation, contrastive" in capsys.readouterr().err
