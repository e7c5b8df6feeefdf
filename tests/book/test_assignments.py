"""Assignments: right answers get every point, the stub none, wrong answers fewer, and nothing leaks or is lost."""

import contextlib
import copy
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
import zipfile
from pathlib import Path

sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema's check of addresses builds a grammar for 3 s a process

import nbformat  # noqa: E402
import pytest  # noqa: E402
import yaml  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("assignments", ROOT / "book" / "assignments.py")
assignments = importlib.util.module_from_spec(spec)
sys.modules["assignments"] = assignments
spec.loader.exec_module(assignments)
grading = None
if importlib.util.find_spec("nbgrader"):
    spec = importlib.util.spec_from_file_location("grading", ROOT / "book" / "grading.py")
    grading = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grading)

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
    if len(yaml.safe_load((ROOT / "labcode" / p.parent.name / p.stem / "papers.yml").read_text())) == COUNTS[p.stem]
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
            for line in lines(source) - lines(visible) - {"g = torch.Generator().manual_seed(0)"}:  # tells nothing
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


def write(book, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)


@needs_nbgrader
def test_the_whole_cycle_of_nbgrader(made, tmp_path):
    """Students hand in by e-mail, are collected, graded, answered, and their grades exported, as the guide has it."""
    course = tmp_path / "course"
    shutil.copytree(made, course)
    first, second = COURSE["contrastive"][1]
    released = course / "release" / "contrastive" / "contrastive.ipynb"
    right, (old, new) = {t.name: t.solution for t in (first, second)}, MUTANTS[first.name]["exponentials that overflow"]
    wrong = {first.name: first.solution.replace(old, new)}

    def answered(cells):
        book = nbformat.read(released, as_version=4)
        for cell in book.cells:
            cell.source = cells.get(cell.id, cell.source)
        return book

    inbox, tests = course / "downloaded" / "contrastive" / "archive", f"{first.name}-tests-"
    stray = answered(wrong)  # no way to more points: the tests are put back
    for cell in stray.cells:
        if cell.metadata.nbgrader.grade:
            cell.source = "assert True"
        cell.metadata.nbgrader.schema_version = 9
    write(stray, inbox / "2026-11-29_bob_contrastive (1).ipynb")
    odd = answered(right)  # one cell of tests was copied, others deleted; it comes in a sub-folder of an archive
    at = next(i for i, cell in enumerate(odd.cells) if cell.id == f"{tests}1")
    odd.cells.insert(at, nbformat.from_dict(odd.cells[at] | {"id": "another"}))
    odd.cells = [cell for cell in odd.cells if not cell.id.startswith(f"{second.name}-tests")]
    odd.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    with zipfile.ZipFile(inbox / "ada_contrastive.zip", "w") as packed:
        packed.writestr("work/My notebook.ipynb", nbformat.writes(odd))
        packed.writestr("__MACOSX/work/._My notebook.ipynb", b"\0\5\x16\7")
    (inbox / "dan_contrastive.ipynb").write_text("no notebook")
    (inbox / "fay.ipynb").write_text("whose?")
    (inbox / "gus_contrastive.zip").write_text("no archive")
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(DOCKER)
    fake.chmod(0o755)
    (fake.parent / "rfc3987_syntax.py").write_text("raise ImportError")  # as above
    path = os.pathsep.join([str(fake.parent), str(Path(sys.executable).parent), os.environ["PATH"]])

    def shell(command, status=0):
        run = ["bash", "-c", command]
        found = os.environ | {"PATH": path, "TMPDIR": str(tmp_path), "PYTHONPATH": str(fake.parent)}
        done = subprocess.run(run, cwd=course, env=found, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    guide = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(m[2]) for m in re.finditer(r"(?ms)^( *)```bash\n(.*?)^\1```$", guide)]
    collect, look, export, boxes = (
        next(b for b in blocks if sign in b) for sign in ("py collect", "py report", "awk -F, 'NR", "docker run")
    )
    lost = shell(collect).splitlines()
    assert len(lost) == 2 and "fay.ipynb: not collected, its name does not end in STUDENT_contrastive.ipynb" in lost[0]
    assert "gus_contrastive.zip: not collected, the archive cannot be opened (File is not a zip file)" in lost[1]
    shell("nbgrader autograde contrastive", status=1)  # dan's
    names = {t.name: [f"{t.name}-tests-{i}" for i in range(1, len(t.tests) + 1)] for t in (first, second)}
    told = [
        f"ada: graded; {tests}1 was there 2 times, the last counts; "
        + "; ".join(f"{name} was missing and is put back" for name in names[second.name]),
        "bob: graded; " + "; ".join(f"{n} was changed and is put back" for found in names.values() for n in found),
        "dan: not graded, submitted/dan/contrastive/contrastive.ipynb is no notebook (Expecting value: line 1 column 1 "
        "(char 0))",
    ]
    said = shell(look).replace(str(course) + "/", "").splitlines()
    assert said == told
    shell("nbgrader generate_feedback contrastive")
    shell(export)
    rows = _rows(course / "grades.csv")
    assert len(_rows(course / "all.csv")) == 3 * len(COURSE), "students times assignments"
    grades = {row["student_id"]: row for row in rows}
    assert len(rows) == 2 and {row["assignment"] for row in rows} == {"contrastive"}
    points = {student: float(row["score"]) for student, row in grades.items()}
    whole = first.points + second.points
    assert points["ada"] == whole == float(grades["ada"]["max_score"])
    assert 0 < points["bob"] == grade(first, wrong[first.name]) < first.points
    pages = [course / "feedback" / student / "contrastive" / "contrastive.html" for student in ("ada", "bob")]
    assert all(page.stat().st_size > 1000 for page in pages)

    for folder in ("autograded", "feedback", "submitted/bob"):
        shutil.rmtree(course / folder)
    assert re.fullmatch("dan: not graded, look at .*\n", shell(boxes))
    (row,) = _rows(course / "contrastive.csv")
    assert row["student_id"] == "ada" and row["assignment"] == "contrastive" and float(row["score"]) == whole
    assert [page.exists() for page in pages] == [True, False]
    assert shell(look).splitlines()[0] == told[0]


# runs what the guide runs in a container in the box's folder, and has no other limits
DOCKER = """#!/bin/bash
while [ "$1" != grader ]; do [ "$1" = -v ] && box=${2%:/course}; shift; done
cd "$box" && shift && exec "$@" 1>&2
"""


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# What students do to a notebook, without a kernel


def handed(name, source, points=None, locked=True):
    """A cell as it is handed out."""
    kind = grading.v4.new_code_cell
    roles = dict(schema_version=3, grade_id=name, grade=points is not None, solution=not locked, locked=locked)
    return kind(source, metadata={"nbgrader": roles | ({"points": points} if points else {})}, id=name)


HIDE = "\n### BEGIN HIDDEN TESTS\nassert f(2) == 4\n### END HIDDEN TESTS"
SOURCES = [("setup", "import math", None, True), ("f", "def f(x):\n    raise NotImplementedError", None, False),
           ("f-tests-1", "assert f(1) == 1" + HIDE, 2, True), ("f-tests-2", "assert f(0) == 0", 1, True),
           ("g", "def g(x):\n    raise NotImplementedError", None, False),
           ("g-tests-1", "assert g(1)", 3, True)]  # fmt: skip
ANSWER = {"f": "def f(x):\n    return x * x", "g": "def g(x):\n    return 1"}
ODD = ([], {}, {"grade_id": 7}, "x", None, {"grade_id": "unknown", "grade": True})
# what is done to the list of cells, and what is noted about it; the answers count in full every time
SPOILT = {
    "nothing": (lambda c: c, []),
    "copied tests": (lambda c: [*c[:2], c[2], *c[1:]], ["f was there 2 times", "f-tests-1 was there 2 times"]),
    "tests copied to the top": (lambda c: [c[2], *c], ["f-tests-1 was there 2 times"]),
    "all copied": (lambda c: c + c, [f"{name} was there 2 times" for name, *_ in SOURCES]),
    "split tests": (lambda c: [*c[:2], but(c[2], "assert f(1)"), but(c[2], "== 1"), *c[3:]],
                    ["f-tests-1 was there 2 times", "f-tests-1 was changed and is put back"]),
    "split answer": (lambda c: [c[0], but(c[1], "square = 2"), but(c[1], "def f(x):\n    return x ** square"), *c[2:]],
                     ["f was there 2 times"]),
    "deleted tests": (lambda c: [c[0], c[1], c[4]], [f"{n} was missing and is put back" for n in
                                                     ("f-tests-1", "f-tests-2", "g-tests-1")]),
    "answers alone": (lambda c: [c[1], c[4]], [f"{n} was missing and is put back" for n in
                                               ("setup", "f-tests-1", "f-tests-2", "g-tests-1")]),
    "answers alone, without metadata": (
        lambda c: [bare(c[1]), bare(c[4])], [f"{n} was missing and is put back" for n in
                                             ("setup", "f-tests-1", "f-tests-2", "g-tests-1")]),
    "no metadata": (lambda c: [bare(cell, cell.id) for cell in c], [f"{n} had lost" for n, *_ in SOURCES]),
    "neither metadata nor identifiers": (
        lambda c: [bare(cell) for cell in c],
        [f"{n} had lost" for n in ("setup", "f-tests-1", "f-tests-2", "g-tests-1")]),
    "metadata of another kind": (lambda c: [odd(cell, roles) for cell, roles in zip(c, ODD, strict=True)], None),
    "old and new schemata": (lambda c: [odd(cell, {"grade_id": cell.id, "schema_version": v}) for cell, v in
                                        zip(c, (0, 1, 2, 4, 99, "x"), strict=True)], []),
    "tests as text": (lambda c: [*c[:2], text(c[2]), *c[3:]], []),
    "answers as text": (lambda c: [c[0], text(c[1]), *c[2:]], []),
    "points and locks changed": (lambda c: [odd(cell, dict(cell.metadata.nbgrader, points=99, locked=False, grade=True))
                                            for cell in c], []),
    "no kind of cell": (lambda c: [without(cell, "cell_type") for cell in c], []),
    "no kind of metadata": (lambda c: [nbformat.from_dict({**cell, "metadata": m}) for cell, m in
                                       zip(c, ([1], "x", None, 7, True, [[]]), strict=True)],
                            [f"{n} had lost" for n, *_ in SOURCES]),
    "names of no kind": (lambda c: [odd(cell, {"grade_id": n}) for cell, n in
                                    zip(c, ([], ["f"], {}, 7, None, {"a": 1}), strict=True)],
                         [f"{n} had lost" for n, *_ in SOURCES]),
    "sources and identifiers of no kind": (
        lambda c: [but(c[0], 7), *c[1:], *(nbformat.from_dict(dict(cell_type="code", metadata={}, source=s, id=[s]))
                                           for s in (None, 7, {}, [1, 2]))], ["setup was changed and is put back"]),
    "nothing among the cells": (lambda c: [None, *c, "x", 7], []),
    "half a letter": (lambda c: [c[0], but(c[1], ANSWER["f"] + "  # \ud83d"), *c[2:]], []),
    "cells of their own": (lambda c: [x for cell in c for x in (grading.v4.new_code_cell("1"), cell)], []),
}  # fmt: skip


def but(cell, source):
    return nbformat.from_dict({**cell, "source": source})


def without(cell, key):
    return nbformat.from_dict({k: v for k, v in cell.items() if k != key})


def text(cell):
    return grading.v4.new_markdown_cell(cell.source, metadata=cell.metadata)


def bare(cell, name="other"):
    return grading.v4.new_code_cell(cell.source, id=name)


def odd(cell, roles):
    return nbformat.from_dict({**cell, "metadata": {"nbgrader": roles}})


def worth(cells):
    """The points of cells that run one after the other, as nbgrader counts them."""
    space, points = {}, 0
    for cell in cells:
        roles = cell.metadata.get("nbgrader", {})
        passed = False
        if cell.cell_type == "code":
            with contextlib.suppress(Exception, SyntaxError):
                exec(cell.source, space)
                passed = True
        points += roles.get("points", 0) if passed and roles.get("grade") else 0
    return points


@needs_nbgrader
@pytest.mark.parametrize("what", SPOILT)
def test_whatever_becomes_of_the_cells_a_right_answer_gets_all_points(what):
    source = {name: handed(name, text, points, locked) for name, text, points, locked in SOURCES}
    cells = [but(cell, ANSWER.get(name, grading.HIDDEN.sub("", cell.source))) for name, cell in source.items()]
    change, noted = SPOILT[what]
    made, notes = grading.mended([copy.deepcopy(cell) for cell in change(cells)], source)
    assert worth(made) == 6
    graded = [cell.metadata.nbgrader for cell in made if "nbgrader" in cell.metadata]
    assert len({roles["grade_id"] for roles in graded}) == len(graded)
    assert [roles for roles in graded] == [source[roles["grade_id"]].metadata.nbgrader for roles in graded]
    assert all(cell.source.encode() is not None and cell.cell_type for cell in made), "what can be written"
    assert noted is None or len(notes) == len(noted) and all(n.startswith(m) for n, m in zip(notes, noted, strict=True))


@needs_nbgrader
def test_an_empty_notebook_is_graded_at_nothing():
    source = {name: handed(name, text, points, locked) for name, text, points, locked in SOURCES}
    made, notes = grading.mended([], source)
    assert worth(made) == 0 and len(notes) == 6 and [cell.id for cell in made][0] == "setup"
    assert notes[1] == "f was missing"


@needs_nbgrader
def test_loops_dead_kernels_and_floods_cost_their_own_cell(monkeypatch):
    """The kernel is interrupted after the time-out, and a new one goes on where one ended, with the setup cell."""
    lines = ["import os", "while True: pass", "assert 1 + 1 == 2", "print('x' * 10**6)", "os._exit(1)", "os", "exit()",
             "y = 1", "assert y"]  # fmt: skip
    cells = [handed(f"c{i}", line, points=1 if i else None) for i, line in enumerate(lines)]
    book = grading.v4.new_notebook(cells=cells)
    book, _ = grading.Run(timeout=3).preprocess(book, {})
    failed = [i for i, cell in enumerate(book.cells) if any(o.output_type == "error" for o in cell.outputs)]
    assert {1, 4} <= set(failed) <= {1, 4, 6, 7}, "exit() ends its kernel after its cell, or before the next"
    assert len(book.cells) == len(lines) and len(book.cells[3].outputs[0].text) < 30_000
    assert book.cells[5].outputs[0].data["text/plain"].startswith("<module 'os'"), "the setup cell ran again"
    assert book.metadata["mended"][0] == "the kernel ended in cell 5, which counts as failed"


@needs_nbgrader
def test_files_are_found_under_the_names_that_come(tmp_path):
    inbox = tmp_path / "downloaded" / "midterm" / "archive"
    inbox.mkdir(parents=True)
    names = {"ada_midterm.ipynb": "ada", "x_y-bob_midterm (1).ipynb": "bob", "cy_Midterm-Copy1.IPYNB": "cy",
             "sub/dan_midterm(2).ipynb": "dan", "ps1 eve_midterm - Kopie.ipynb": "eve",
             "77_midterm.v2.ipynb": "77", "müller_midterm.ipynb": "müller", "1_Zoe\u0308_midterm.ipynb": "Zoë",
             "иван_midterm.ipynb": "иван"}  # fmt: skip
    for name in [*names, ".ada_midterm.ipynb", "._bob_midterm.ipynb"]:
        (inbox / name).parent.mkdir(exist_ok=True)
        (inbox / name).write_text(name)
    os.utime(inbox / "ada_midterm.ipynb", (1, 1))
    (inbox / "ada_midterm (1).ipynb").write_text("newer")
    for odd in ("midterm.ipynb", "fay-midterm.ipynb", "gus_final.ipynb", "hal_midterm.pdf"):
        (inbox / odd).touch()
    with zipfile.ZipFile(inbox / "all.zip", "w") as packed:
        packed.writestr("class/ian_midterm.ipynb", "ian")
        packed.writestr("../../kim_midterm.ipynb", "kim")
        packed.writestr("notes.ipynb", "")
    lone = tmp_path / "submitted" / "leo" / "midterm" / "work" / "other.ipynb"
    lone.parent.mkdir(parents=True)
    lone.write_text("leo")
    for name in ("a", "b"):
        (tmp_path / "submitted" / "mia" / "midterm").mkdir(parents=True, exist_ok=True)
        (tmp_path / "submitted" / "mia" / "midterm" / f"{name}.ipynb").touch()
    (inbox / "ned_midterm.ipynb").touch()
    (inbox / "oda_midterm.ipynb").touch()
    (tmp_path / "submitted" / "ned").touch()
    (tmp_path / "submitted" / "oda" / "midterm" / "midterm.ipynb").mkdir(parents=True)
    notes = grading.collect("midterm", tmp_path)
    assert not list((tmp_path / "submitted").rglob("*.tmp"))
    shutil.rmtree(tmp_path / "submitted" / "oda")
    found = {p.parts[-3]: p.read_text() for p in (tmp_path / "submitted").glob("*/midterm/midterm.ipynb")}
    wanted = {student: name for name, student in names.items()}
    assert found == wanted | {"ada": "newer", "ian": "ian", "kim": "kim", "leo": "leo"}
    assert [note.split(": ")[0].split("/")[-1] for note in notes] == [
        "ada", "fay-midterm.ipynb", "gus_final.ipynb", "hal_midterm.pdf", "midterm.ipynb", "ned", "oda", "leo",
        "mia"]  # fmt: skip
    assert "ned: not collected, submitted/ned/midterm/midterm.ipynb cannot be written (Not a directory)" in notes
    assert not list(tmp_path.parent.glob("kim*"))


@needs_nbgrader
@pytest.mark.parametrize("data,told", [
    (b"", "is no notebook"), (b"<html>", "is no notebook"), (b"\xff\xfe", "is no notebook"),
    (b"[]", "it says no format"), (b"{}", "it says no format"), (b'{"nbformat": 4}', "look at"),
    (None, "there is no x.ipynb"), (b"[" * 200_000, "is no notebook"), ("folder", "there is no x.ipynb"),
])  # fmt: skip
def test_the_report_says_why_a_file_was_not_graded(tmp_path, data, told):
    folder = tmp_path / "submitted" / "ada" / "x"
    folder.mkdir(parents=True)
    if data == "folder":
        (folder / "x.ipynb").mkdir()
    elif data is not None:
        (folder / "x.ipynb").write_bytes(data)
    (line,) = grading.report("x", tmp_path)
    assert line.startswith("ada: not graded, ") and told in line


@needs_nbgrader
@pytest.mark.parametrize("data", [b"", b'{"cells": [', b"[]", b'{"cells": []}', b'{"metadata": null}', b"[" * 200_000])
def test_half_a_graded_notebook_is_told_and_the_others_are_reported(tmp_path, data):
    for student in ("ada", "bob", "cy"):
        for box in ("submitted", "autograded"):
            (tmp_path / box / student / "x").mkdir(parents=True)
            (tmp_path / box / student / "x" / "x.ipynb").write_text('{"metadata": {"mended": ["f was missing", 7]}}')
    (tmp_path / "autograded" / "ada" / "x" / "x.ipynb").write_bytes(data)
    (tmp_path / "autograded" / "cy" / "x" / "x.ipynb").write_text('{"metadata": {"mended": "x"}}')
    first, second = grading.report("x", tmp_path)
    assert first.startswith("ada: not graded, ") and "is damaged: delete it and run" in first
    assert second == "bob: graded; f was missing; 7"


@needs_nbgrader
def test_a_configuration_of_an_earlier_version_is_told(tmp_path, capsys):
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\n")
    assignments.write(tmp_path, {})
    assert "does not use grading.py" in capsys.readouterr().out and (tmp_path / "grading.py").exists()


@needs_nbgrader
@pytest.mark.filterwarnings("ignore:Object of type")
def test_a_refused_assignment_stays_as_it_was_and_the_others_are_made(made, tmp_path, monkeypatch, capsys):
    """Submissions forbid another task: status 1, one line, and neither source nor release is lost."""
    from nbgrader.api import Gradebook

    out, private = tmp_path / "out", tmp_path / "private"
    wanted = ("pretext", "redundancy")
    shutil.copytree(made, out)
    with Gradebook(f"sqlite:///{out}/gradebook.db") as book:
        book.add_student("ada")
        for name in wanted:
            book.add_submission(name, "ada")
    (out / "source" / "pretext" / "data.csv").write_text("1")
    before = {p: p.read_bytes() for p in out.glob("*/pretext/*")}
    assert len(before) == 3
    released = out / "release" / "redundancy" / "redundancy.ipynb"
    released.unlink()
    private.mkdir()
    (private / "pretext.py").write_text(PRIVATE.format(title="Other", name="twice"))
    command = ["assignments.py", "--private", str(private), "--out", str(out), *wanted]
    monkeypatch.setattr(sys, "argv", command)
    capsys.readouterr()
    assert assignments.main() == 1
    said, error = capsys.readouterr()
    assert error.count("\n") == 1 and error.startswith("pretext stays as it was") and "add or remove cells" in error
    assert said.startswith("redundancy: ") and said.count("\n") == 1 and released.exists()
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
    told = capsys.readouterr().err
    assert "no assignment unknown; there are " in told and "noisy_labels, semi_supervised, contrastive" in told


@needs_nbgrader
def test_a_place_where_no_folder_can_be_is_told_in_a_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["assignments.py", "--out", str(tmp_path / "file"), "contrastive"])
    assert assignments.main() == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "File exists" in told and str(tmp_path / "file") in told
