"""The whole check ends, whatever a test does to it, and says what was amiss; its last line counts."""

import json
import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import journal  # noqa: E402
import run_all  # noqa: E402

FINE = "\n\ndef test_fine():\n    assert True\n"
# what a test does, and whether the tests after it still run
ENDINGS = {
    "fails": ("assert False", True),
    "sleeps": ("import time; time.sleep(1000)", True),
    "sleeps and does not listen": (
        "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(1000)",
        False,
    ),
    "aborts its process": ("import os; os.abort()", False),
    "leaves by the back door": ("import os; os._exit(0)", False),
}


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Runs files of tests as a stage of one worker with short limits, and gives what its tests came to."""
    monkeypatch.setattr(run_all, "WORKERS", 1)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # starting is what takes long here
    usual = run_all.options
    given = ["-p", "xdist", "-p", "pytest_timeout", f"--rootdir={tmp_path}"]
    monkeypatch.setattr(run_all, "options", lambda: [*given, *usual(limit=2, hard=4)])

    def run(*arguments):
        made = run_all.Stage("tests", [str(a) for a in arguments], {}, [])
        made.run(time.monotonic() + 600)
        return {nodeid.split("::")[-1]: outcome for nodeid, outcome in made.outcome.items()}

    return run


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_test_that_ends_badly_fails_by_name(stage, tmp_path, ending):
    does, goes_on = ENDINGS[ending]
    file = tmp_path / "test_bad.py"
    file.write_text(f"def test_bad():\n    {does}\n{FINE}")
    assert stage(file) == {"test_bad": "failed"} | ({"test_fine": "passed"} if goes_on else {})


def test_a_stage_is_stopped_when_its_time_is_over_and_says_where_it_was(stage, tmp_path, capsys, monkeypatch):
    file, there, clock = tmp_path / "test_long.py", tmp_path / "there", time.monotonic
    file.write_text(
        f"import pathlib, time, pytest\n\n\n@pytest.mark.timeout(0)\ndef test_long():\n"
        f"    pathlib.Path({str(there)!r}).touch()\n    time.sleep(1000)\n"
    )
    monkeypatch.setattr(run_all, "options", lambda: ["-p", "xdist", "-p", "pytest_timeout", "-p", "journal", "-n1"])
    monkeypatch.setattr(run_all.time, "monotonic", lambda: clock() + 1e4 * there.exists())
    assert stage(file) == {"test_long": "failed"}
    assert "its time is over; it was at" in capsys.readouterr().out


def test_a_stage_that_cannot_count_has_failed(stage, tmp_path):
    file = tmp_path / "test_broken.py"
    file.write_text("import no_such_module\n")
    assert set(stage(file).values()) == {"failed"}
    file.write_text("")
    assert stage(file) == {"tests": "failed"}


def test_a_kernel_that_is_killed_fails_its_cell(stage, tmp_path):
    cells = [nbformat.v4.new_code_cell(text) for text in ("1 + 1", "import os; os.kill(os.getpid(), 9)", "2 + 2")]
    for number, cell in enumerate(cells, 1):
        cell.execution_count = number
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "dies.ipynb")
    nbval = ["-p", "nbval.plugin", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=10", "--timeout=100"]
    found = stage(*nbval, tmp_path / "dies.ipynb")
    assert found["Cell 0"] == "passed" and found["Cell 1"] == "failed", found


@pytest.mark.parametrize(
    "only, kept",
    [
        ([], "abcdefg"),
        (["self_supervision/contrastive"], "ace"),
        (["self_supervision"], "abceg"),
        (["shared"], "dfg"),
    ],
)
def test_one_chapter_can_be_asked_for(only, kept):
    tests = {
        "a": "notebooks/self_supervision/contrastive.ipynb::Cell 3",
        "b": "tests/self_supervision/contrastive_theory/test_temperature.py::test_a",
        "c": "tests/self_supervision/contrastive/test_moco.py::test_queue",
        "d": "tests/core/test_loss.py::test_a",
        "e": "tests/book/test_browser.py::test_page[self_supervision/contrastive]",
        "f": "tests/book/test_browser.py::test_page[book/index]",
        "g": "tests/self_supervision/test_shared_by_the_part.py::test_a",
    }
    assert "".join(k for k, nodeid in tests.items() if journal.wanted(nodeid, only)) == kept


def test_the_table_adds_up_and_projects(capsys):
    done = run_all.Stage("tests", [], {}, [])
    done.seconds = {
        "notebooks/self_supervision/contrastive.ipynb::Cell 1": 40.0,
        "tests/self_supervision/contrastive/test_moco.py::test_a": 8.0,
        "tests/book/test_browser.py::test_page[self_supervision/contrastive]": 12.0,
        "tests/core/test_loss.py::test_a": 60.0,
    }
    done.wall = 60.0  # two workers, always busy
    assert run_all.table([done]).splitlines()[-1] == "1.0 min for 1 chapters; 62 such chapters: 32 min"


def test_the_last_line_counts_lint_too(monkeypatch, capsys):
    monkeypatch.setattr(run_all.subprocess, "run", lambda *a, **k: type("Done", (), {"returncode": 1}))
    monkeypatch.setattr(run_all.Stage, "run", lambda self, until: self.outcome.update({f"{self.name}::a": "passed"}))
    assert run_all.main(["shared"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 1 failed"
    assert run_all.main(["no_such"]) == 2


def test_the_journal_survives_half_a_line(tmp_path):
    book = journal.Journal(tmp_path / "journal")
    book.pytest_runtest_logstart("a", None)
    assert json.loads((tmp_path / "journal").read_text()) == {"begins": "a"}
