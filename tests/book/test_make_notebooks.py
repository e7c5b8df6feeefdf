"""`make notebooks`: changed code is executed, changed prose is not, and a failure leaves the notebook alone."""

import importlib.util
import sys
from pathlib import Path

import nbformat
import pytest

from labcode.course import provenance as running

ROOT = Path(__file__).resolve().parents[2]
TWIN = """# %% [markdown]
# # A title

# %%
import time
print("measured at", time.perf_counter_ns())

# %% mystnb={"figure": {"caption": "old caption"}}
2 + 2
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one chapter and the script that makes its notebook."""
    (tmp_path / "notebooks" / "p").mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text("")
    twin = tmp_path / "notebooks" / "p" / "c.py"
    twin.write_text(TWIN)
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "book" / "make_notebooks.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    package = tmp_path / "labcode"
    (package / "p" / "c").mkdir(parents=True)
    (package / "p" / "c" / "__init__.py").write_text("from .helper import f\n")
    (package / "p" / "c" / "helper.py").write_text("f = 1\n")
    (package / "p" / "c" / "papers.yml").write_text("[]\n")
    monkeypatch.chdir(tmp_path)
    for name, value in dict(ROOT=tmp_path, NOTEBOOKS=tmp_path / "notebooks").items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(running, "PACKAGE", package)
    for name in script.ENVIRONMENT:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", ["make_notebooks.py"])
    return script, twin, package


def cells(twin):
    return nbformat.read(twin.with_suffix(".ipynb"), as_version=4).cells


def test_only_what_changes_a_measurement_is_executed_again(course, monkeypatch, capsys):
    script, twin, package = course
    assert script.main() == 0
    first = cells(twin)[1].outputs[0].text
    assert cells(twin)[2].outputs[0].data["text/plain"] == "4"
    assert twin.with_suffix(".ipynb").stat().st_mtime_ns <= twin.stat().st_mtime_ns, "jupytext would not open the pair"

    assert script.main() == 0 and "up to date" in capsys.readouterr().out

    twin.write_text(TWIN.replace("A title", "A better title").replace("old caption", "new caption"))
    assert script.main() == 0 and "only prose changed" in capsys.readouterr().out
    assert cells(twin)[0].source == "# A better title"
    assert cells(twin)[2].metadata.mystnb.figure.caption == "new caption"
    assert cells(twin)[1].outputs[0].text == first and cells(twin)[2].execution_count == 2

    (package / "p" / "c" / "helper.py").write_text("f = 2\n")
    assert script.main() == 0 and "only prose" not in capsys.readouterr().out
    second = cells(twin)[1].outputs[0].text
    assert second != first

    twin.write_text(TWIN.replace("2 + 2", "1 / 0"))
    assert script.main() == 1 and "ZeroDivisionError" in capsys.readouterr().err
    assert cells(twin)[1].outputs[0].text == second, "a failed run leaves the notebook as it was"

    monkeypatch.setattr(sys, "argv", ["make_notebooks.py", "p/unknown"])
    assert script.main() == 2 and "there are p/c" in capsys.readouterr().err
