"""The book is built once for all tests that look at it, whichever worker they run on."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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
