"""Breakages: what a claim notices, what only the comparison notices, and what nothing notices."""

import json

import pytest
import yaml

from labcode.course import broken, provenance
from labcode.course.ledger import Record, write

TWIN = """# %%
import labcode as lab
from labcode.p import c as C
run = lab.start("p/c")
run.data = "toy"

# %% [markdown]
# (a)=
# ## A

# %%
run.claim("a", "a wins", ours=[C.ours()], baseline=[0.1], margin=0.2)
run.exact("a", "a has a constant", C.constant(), at_least=1.0)

# %%
run.close()
"""
METHODS = "def ours():\n    gain = 0.8\n    unused = 1\n    return 0.1 + gain\n\n\ndef constant():\n    return 5.0\n"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one chapter, with the real package around its method."""
    import shutil

    package = tmp_path / "labcode"
    leave = shutil.ignore_patterns("__pycache__", "self_supervision", "foundations")
    shutil.copytree(provenance.PACKAGE, package, ignore=leave)
    for file, text in {
        "_toc.yml": "",
        "notebooks/p/c.py": TWIN,
        "labcode/p/__init__.py": "",
        "labcode/p/c/__init__.py": METHODS,
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_only_a_fallen_claim_counts_as_noticed(course, capsys):
    told = dict(seeds=[0], seconds=1.0, device="CPU", data="toy", versions={"a": "1"}, commit="c", code="c", date="d")
    claim = dict(paper="a", statement="a wins", kind="claim", ours=[0.9], baseline=[0.1], margin=0.2)
    exact = dict(paper="a", statement="a has a constant", kind="exact", value=5.0, at_least=1.0)
    told["verdict"] = "supported"
    records = [Record(**claim, **told, higher_is_better=True), Record(**exact, **told)]
    write(course / "book" / "results" / "quick" / "p" / "c.json", "p/c", "quick", [0], 1.0, records)
    lines = [("gain = 0.8", "gain = 0.1"), ("unused = 1", "unused = 2"), ("return 5.0", "1 / 0")]
    where = "labcode/p/c/__init__.py"
    entries = [{"paper": "a", "file": where, "replace": old, "with": new} for old, new in lines]
    (course / "tests" / "p" / "c").mkdir(parents=True)
    (course / "tests" / "p" / "c" / "broken.yml").write_text(yaml.safe_dump(entries))
    rows = broken.try_all("p/c")
    assert [(row["fallen"], row["rerun_fails"], row["crashed"]) for row in rows] == [
        (["a wins"], True, False),  # the claim falls, and the value is another
        ([], False, False),  # nothing notices
        ([], True, True),
    ]
    assert json.loads((course / "book" / "results" / "broken.json").read_text())["p/c"]["rows"] == rows
    assert "1 of 3 breakages" in capsys.readouterr().out and (course / "labcode/p/c/__init__.py").read_text() == METHODS


def test_a_run_that_was_killed_is_no_breakage_that_nothing_notices(course):
    killed = broken.Breakage("a", "labcode/p/c/__init__.py", "return 5.0", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ChildProcessError, match="p/c, a: stopped by signal 9"):
        broken.attempt("p/c", killed, "a")


def test_a_section_that_fails_unbroken_is_told(course):
    """What is broken already notices nothing: the score would say that claims cannot fall."""
    where = "labcode/p/c/__init__.py"
    (course / where).write_text(METHODS.replace("return 5.0", "return 1 / 0"))
    (course / "tests" / "p" / "c").mkdir(parents=True)
    entry = {"paper": "a", "file": where, "replace": "gain = 0.8", "with": "gain = 0.1"}
    (course / "tests" / "p" / "c" / "broken.yml").write_text(yaml.safe_dump([entry]))
    with pytest.raises(RuntimeError, match=r"p/c: a alone fails unbroken: (?s:.*)division by zero"):
        broken.try_all("p/c")


def test_a_breakage_must_fit(course):
    with pytest.raises(ValueError, match="0 times, once is wanted"):
        broken.Breakage("a", "labcode/p/c/__init__.py", "no such line", "").apply(course)
    (course / "tests" / "p" / "c").mkdir(parents=True)
    (course / "tests" / "p" / "c" / "broken.yml").write_text("- paper: a\n  file: f\n")
    with pytest.raises(ValueError, match="replace and with"):
        broken.breakages("p/c")
