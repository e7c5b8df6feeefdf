"""The book is built once for all tests that look at it, whichever worker they run on; its pages are known before."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "book" / "_ext")]
from course_data import load  # noqa: E402
from course_evidence import evidence_pages  # noqa: E402
from course_source import api_pages  # noqa: E402

SOURCE = "code/augment"  # stands for all listings of source


def listed(entries):
    for entry in entries:
        yield entry["file"]
        yield from listed(entry.get("sections", ()))


def pages_to_read():
    """Pages that people read: those of the contents, those made of ledger and code, the search, one listing."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    written = [name for part in contents["parts"] for name in listed(part["chapters"])]
    course = load(ROOT)
    made = [name for name, *_ in (*evidence_pages(course), *api_pages(course))]
    return [contents["root"], *written, *made, "search", SOURCE]


def pytest_generate_tests(metafunc):
    """A test of a page is named by it: a chapter's ends in ``[part/chapter]``. Tests of a page follow one another."""
    if "page_name" in metafunc.fixturenames:
        names = pages_to_read()
        metafunc.parametrize("page_name", names, ids=[n.removeprefix("notebooks/") for n in names], scope="module")


@pytest.fixture(scope="session")
def reading():
    return pages_to_read()


@pytest.fixture(scope="session")
def html(tmp_path_factory, worker_id):
    given = os.environ.get("BOOK_HTML")  # a book that was built already, to try these tests on
    if given:
        return Path(given)
    base = tmp_path_factory.getbasetemp()
    out = (base if worker_id == "master" else base.parent) / "built-book"
    out.mkdir(exist_ok=True)
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    with open(out / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = out / "warnings.txt"
        if not told.exists():
            line = [tool, "build", "-W", "-n", "--keep-going", "--path-output", str(out), "."]
            done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
            lines = [x for x in done.stderr.splitlines() if "WARNING" in x or "ERROR" in x]
            told.write_text("\n".join(lines) + done.stderr[-1500:] if done.returncode else "")
        assert not told.read_text(), "the book has warnings:\n" + told.read_text()
    return out / "_build" / "html"
