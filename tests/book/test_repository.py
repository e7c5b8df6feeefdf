"""`make repository`: the address in one place, right buttons where it is set, none where it is not."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from labcode.course import provenance as running

ROOT = Path(__file__).resolve().parents[2]
URL = "https://github.com/someone/a-course"
TWINS = sorted((ROOT / "notebooks").glob("*/*.py"))


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


repository = script("repository")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A copy of what the address is written into."""
    for path in (ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "Makefile", ROOT / "book" / "repository.py"):
        (tmp_path / path.relative_to(ROOT).parent).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    monkeypatch.setattr(repository, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert repository.write(repository.current()) == [], "the address that is set is set again: no byte may change"
    repository.write("")
    return tmp_path


def files(course):
    return {p: p.read_text(encoding="utf-8") for p in sorted(course.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("url", ["", URL, "https://github.com/A1/x.y_z-0"])
def test_an_address_is_taken_as_it_is(url):
    assert repository.valid(url) == url


@pytest.mark.parametrize(
    "url",
    ["http://github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b/tree/main",
     "a/b", "git@github.com:a/b", "https://github.com/-a/b", "https://github.com/a/b c", 'https://github.com/a/b"',
     URL + "\n", " " + URL, "https://github.com/a/..", "https://user:word@github.com/a/b"],
)  # fmt: skip
def test_what_colab_could_not_open_is_refused(url):
    with pytest.raises(ValueError, match="^URL must be https://github.com/OWNER/NAME") as caught:
        repository.valid(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("tail", ["/", ".git", ".git/"])
def test_a_slash_or_git_behind_the_name_is_refused_with_the_right_address(tail):
    with pytest.raises(ValueError, match=re.escape(f"did you mean {URL}?")):
        repository.valid(URL + tail)


def test_set_and_unset_change_their_lines_and_nothing_else(course):
    before = files(course)
    changed = repository.write(URL)
    after = files(course)
    assert set(changed) == {p for p in before if before[p] != after[p]}
    assert {p.relative_to(course).as_posix() for p in changed} == {"_config.yml"} | {
        q.relative_to(ROOT).as_posix() for p in TWINS for q in (p, p.with_suffix(".ipynb")) if q.exists()
    }
    for path in changed:
        old, new = before[path].splitlines(), after[path].splitlines()
        assert len(old) == len(new)
        lines = [b for a, b in zip(old, new, strict=True) if a != b]
        if path.name == "_config.yml":
            assert [re.match(r"\s*(\w+): ", x)[1] for x in lines] == [
                "url", "colab_url", "binderhub_url", "use_issues_button", "use_repository_button"
            ]  # fmt: skip
        else:
            assert len(lines) == 1 and lines[0].count(URL) == 1 and "REPOSITORY" in lines[0]
    told = yaml.safe_load(after[course / "_config.yml"])
    assert told["repository"] == {"url": URL, "path_to_book": "", "branch": "main"}
    assert told["launch_buttons"] == {
        "notebook_interface": "jupyterlab",
        "colab_url": "https://colab.research.google.com",
        "binderhub_url": "https://mybinder.org",
    }
    for stored in course.glob("notebooks/*/*.ipynb"):  # or jupytext would not open the pair
        assert stored.stat().st_mtime_ns <= stored.with_suffix(".py").stat().st_mtime_ns
    assert repository.current() == URL and repository.write(URL) == []
    repository.write("")
    assert files(course) == before and repository.current() == ""


def test_stored_results_stay_valid_when_the_address_changes_and_only_then(course, monkeypatch):
    make_notebooks = script("make_notebooks")
    monkeypatch.setattr(make_notebooks, "NOTEBOOKS", course / "notebooks")
    names = [p.relative_to(ROOT / "notebooks").with_suffix("").as_posix() for p in TWINS]

    def marks():
        return [(make_notebooks.fingerprint(name), running.fingerprint(name)) for name in names]

    before = marks()
    repository.write(URL)
    assert marks() == before
    twin = course / "notebooks" / f"{names[0]}.py"
    text = twin.read_text()
    twin.write_text(text.replace("# on Colab: ", "# at Colab: "))  # the rest of the setup cell: prose, measures nothing
    changed = marks()[0]
    assert changed[0] != before[0][0] and changed[1] == before[0][1]
    head, setup, rest = re.split(r'(?ms)^(# %% tags=\["remove-cell", "setup"\].*?)(?=^# %%)', text)
    twin.write_text(head + setup + rest.replace("import torch", "import torch\nchanged = 1", 1))
    assert marks()[0][1] != before[0][1], "a changed cell that measures makes results stale"
    assert marks()[1:] == before[1:]


def test_nothing_is_written_when_one_file_has_no_place_for_the_address(course):
    twin = course / TWINS[-1].relative_to(ROOT)  # the last to be read
    twin.write_text(twin.read_text().replace("REPOSITORY = ", "ADDRESS = "))
    before = files(course)
    with pytest.raises(ValueError, match=f"{twin.name}: one line REPOSITORY"):
        repository.write(URL)
    config = course / "_config.yml"
    config.write_text(config.read_text().replace("  colab_url", "  # colab_url"))
    with pytest.raises(ValueError, match="_config.yml: one line “colab_url: …” is wanted, got 0"):
        repository.write(URL)
    config.write_text(before[config])
    assert files(course) == before


def test_every_chapter_holds_the_same_setup_cell_with_the_address_that_is_set():
    cells = {}
    for twin in TWINS:
        setup = [c for c in re.split(r"(?m)^# %%", twin.read_text()) if re.match(r' tags=\[[^\]]*"setup"', c)]
        assert len(setup) == 1, f"{twin.name}: one cell tagged setup"
        cells.setdefault(setup[0].strip(), []).append(twin.name)
    assert len(cells) == 1, f"setup cells differ: {list(cells.values())}"
    assert repository.LINE.findall(next(iter(cells))) == [repository.current()], "run `make repository URL=…` again"


def test_make_sets_shows_and_unsets(course):
    def make(*words):
        line = ["make", "--no-print-directory", "repository", f"PY={sys.executable}", *words]
        return subprocess.run(line, cwd=course, capture_output=True, text=True)

    assert "No repository is set" in make().stdout
    assert f"The repository is {URL}" in make(f"URL={URL}").stdout and repository.current() == URL
    wrong = make("URL=https://github.com/a/b.git")
    assert wrong.returncode and "did you mean https://github.com/a/b?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert f"The repository is {URL}" in make().stdout, "asked without URL it only tells"
    assert "No repository is set" in make("URL=").stdout and repository.current() == ""


def launch(page):
    """Addresses behind a page's launch buttons, and whatever points to GitHub, Colab or Binder besides."""
    elsewhere = re.compile("https?://[^/]*(github|colab|mybinder)")
    links = {a["href"] for a in page.find_all("a", href=elsewhere)}
    group = page.select_one(".dropdown-launch-buttons")
    return {a["href"] for a in group.select("a[href]")} if group else set(), links


@pytest.mark.parametrize("url", ["", URL])
def test_a_book_has_right_buttons_with_an_address_and_none_without(course, url):
    repository.write(url)
    told = yaml.safe_load((course / "_config.yml").read_text())
    told["sphinx"] = {"config": {"suppress_warnings": ["myst.*", "ref.*", "image.*"]}}
    told |= {"logo": "", "html": {k: v for k, v in told["html"].items() if k.startswith("use_")}}
    small = course / "small"
    (small / "notebooks" / "p").mkdir(parents=True)
    (small / "_config.yml").write_text(yaml.safe_dump(told))
    (small / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: notebooks/p/c\n")
    (small / "index.md").write_text("# A page\n")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    title = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# A chapter\n"]}
    book = {"cells": [title], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (small / "notebooks" / "p" / "c.ipynb").write_text(json.dumps(book))
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    done = subprocess.run([tool, "build", "-W", "--keep-going", "small"], cwd=course, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    html = small / "_build" / "html"
    chapter, page = (
        launch(BeautifulSoup((html / name).read_text(), "html.parser")) for name in ("notebooks/p/c.html", "index.html")
    )
    if not url:
        assert chapter == page == (set(), set())
        return
    assert chapter[0] == {
        "https://colab.research.google.com/github/someone/a-course/blob/main/notebooks/p/c.ipynb",
        "https://mybinder.org/v2/gh/someone/a-course/main?urlpath=lab/tree/notebooks/p/c.ipynb",
    }
    assert page[0] == set(), "a page without code cannot be launched"
    for _, links in (chapter, page):
        assert URL in links and any(link.startswith(f"{URL}/issues/new") for link in links)


def test_the_whole_book_has_the_buttons_of_the_address_that_is_set(html):
    url = repository.current()
    for path in sorted(html.rglob("*.html")):
        if "_static" in path.relative_to(html).parts:
            continue
        found, links = launch(BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser"))
        if not url:
            assert (found, links) == (set(), set()), path
        elif (ROOT / path.relative_to(html)).with_suffix(".ipynb").exists():
            assert len(found) == 2 and all(path.stem + ".ipynb" in link for link in found), path
