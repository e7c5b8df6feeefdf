"""A chapter away from its repository: alone on Colab, on Binder, and in JupyterLab."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest

from labcode.course import provenance as running

ROOT = Path(__file__).resolve().parents[2]
TWINS = sorted((ROOT / "notebooks").glob("*/*.py"))
KEPT = ("torch", "torchvision", "numpy")
# What Colab had at the end of 2025, under Python 3.12
COLAB = {
    "torch": "2.9.0+cu126", "torchvision": "0.24.0+cu126", "numpy": "2.0.2", "scipy": "1.16.3", "scikit-learn": "1.6.1",
    "scikit-image": "0.25.2", "matplotlib": "3.10.0", "accelerate": "1.12.0", "PyYAML": "6.0.3", "tqdm": "4.67.1",
}  # fmt: skip


@pytest.fixture(scope="module")
def colab():
    """book/try_colab.py as a module."""
    sys.path.insert(0, str(ROOT / "book"))
    try:
        spec = importlib.util.spec_from_file_location("try_colab", ROOT / "book" / "try_colab.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "book"))
    return module


@pytest.fixture(scope="module")
def index():
    """Skips where pip reaches no package index: labcode is built with hatchling and needs jaxtyping."""
    line = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "hatchling"]
    if subprocess.run(line, capture_output=True, env={**os.environ, "PIP_RETRIES": "0"}).returncode:
        pytest.skip("pip reaches no package index")


# --- the setup cell


def setup_cell(address=""):
    text = TWINS[0].read_text()
    code = re.search(r'(?ms)^# %% tags=\["remove-cell", "setup"\]\n(.*?)(?=^# %%)', text)[1]
    return re.sub(r'(?m)^REPOSITORY = ".*?"', f'REPOSITORY = "{address}"', code)


def installs(monkeypatch, folder, address="", missing=("labcode",)):
    """What the setup cell hands to pip in a folder, where some packages are missing."""
    calls, find = [], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    monkeypatch.setattr(subprocess, "run", lambda line, check: calls.append(line))
    monkeypatch.chdir(folder)
    exec(setup_cell(address), {})
    assert all(line[:5] == [sys.executable, "-m", "pip", "install", "--quiet"] for line in calls)
    return [line[5:] for line in calls]


def test_setup_does_nothing_where_labcode_is(monkeypatch, tmp_path):
    assert installs(monkeypatch, tmp_path, "https://github.com/a/b", missing=()) == []


def test_setup_takes_a_clone_above_before_the_address(monkeypatch):
    kept = [f"{name}=={version(name)}" for name in KEPT]
    for folder in (ROOT, ROOT / "notebooks" / "self_supervision"):
        assert installs(monkeypatch, folder, "https://github.com/a/b") == [[str(ROOT), *kept]]


def test_setup_takes_the_address_where_there_is_no_clone(monkeypatch, tmp_path):
    found = installs(monkeypatch, tmp_path, "https://github.com/a/b", missing=("labcode", "torchvision"))
    kept = [f"{name}=={version(name)}" for name in ("torch", "numpy")]
    assert found == [["labcode @ git+https://github.com/a/b", *kept]], "what is not there cannot be kept"


def test_setup_says_in_a_sentence_that_there_is_nothing_to_install_from(monkeypatch, tmp_path):
    with pytest.raises(ModuleNotFoundError, match="open this notebook in a clone of the course$"):
        installs(monkeypatch, tmp_path)


@pytest.mark.parametrize("torch, kept", [("2.9.0+cu126", True), ("2.3.1+cu121", False)])
def test_pip_keeps_colabs_versions_or_refuses(colab, index, tmp_path, torch, kept):
    """Colab's own versions as pip sees them; a torch that is too old is an error, never replaced."""
    stubs = tmp_path / "stubs"
    versions = COLAB | {"torch": torch}
    for name, number in versions.items():
        info = stubs / f"{name.replace('-', '_')}-{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    python = colab.environment(tmp_path, ["pip"])
    wanted = [f"{name}=={versions[name]}" for name in KEPT]
    line = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--report", tmp_path / "report.json", ROOT, *wanted]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(stubs)})
    if not kept:
        assert done.returncode and "torch" in done.stderr and "labcode" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    new = {p["metadata"]["name"] for p in json.loads((tmp_path / "report.json").read_text())["install"]}
    assert "labcode" in new and "jaxtyping" in new and not new & set(COLAB), new


# --- a notebook alone


def test_one_notebook_runs_alone_in_colabs_environment(colab, index, tmp_path):
    """Served repository, empty folder, fresh environment; a dry run of one chapter."""
    stored = ROOT / "notebooks" / "self_supervision" / "redundancy.ipynb"
    server, url = colab.serve(tmp_path)
    try:
        said = colab.attempt(stored, tmp_path, url, steps=1)
    finally:
        server.shutdown()
    assert re.fullmatch(r"dry run: \d+ records made, none compared, nothing written", said)
    assert [p.name for p in (tmp_path / "content").iterdir()] == [stored.name]
    line = [tmp_path / "env" / "bin" / "python", "-c", "from labcode.course.cards import papers; print(len(papers()))"]
    cards = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    files = ROOT.glob("labcode/*/*/papers.yml")
    assert int(cards) == sum(len(re.findall(r"(?m)^- key:", f.read_text())) for f in files)


def test_the_environment_holds_what_colab_has_and_not_what_it_lacks(colab, tmp_path):
    python = colab.environment(tmp_path, colab.closure(colab.PREINSTALLED))
    ask = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    lacks = ["labcode", "jaxtyping", "hypothesis", "jupytext", "sphinx", "nbgrader", "beartype"]
    has = ["torch", "torchvision", "numpy", "scipy", "sklearn", "skimage", "matplotlib", "accelerate", "yaml", "tqdm"]
    done = subprocess.run([python, "-c", ask, *lacks, *has], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == str(has)
    # pip may not take away what is only linked: it belongs to the environment that runs these tests
    line = [python, "-m", "pip", "uninstall", "-y", "tqdm"]
    assert "outside environment" in subprocess.run(line, capture_output=True, text=True).stdout
    assert importlib.util.find_spec("tqdm")


def test_a_run_ends_well_without_the_repositorys_files(tmp_path):
    """labcode installed inside another project's repository, an empty folder, with git and without."""
    site, alone, bare = tmp_path / "site", tmp_path / "alone", tmp_path / "no-programs"
    shutil.copytree(ROOT / "labcode", site / "labcode", ignore=shutil.ignore_patterns("__pycache__"))
    before = {p: p.stat().st_mtime_ns for p in site.rglob("*")}
    alone.mkdir()
    bare.mkdir()
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another project"], check=True)
    code = (
        "import labcode as lab\nfrom labcode.course.cards import papers\nchapter = 'self_supervision/redundancy'\n"
        "run = lab.start(chapter)\n"
        "for card in papers(chapter): record = run.exact(card.key, 'a statement', 0.0, at_most=1.0, data='none')\n"
        "run.close(); print(record.commit)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LABCODE_")}
    clean |= {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "LABCODE_SCALE": "quick"}
    for path in (os.environ["PATH"], str(bare)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=alone, env={**clean, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()[-2:]
        assert said[0].startswith("no committed results to compare with") and said[1].startswith("labcode "), said
    assert list(alone.iterdir()) == []
    assert {p: p.stat().st_mtime_ns for p in site.rglob("*")} == before


# --- Binder


def test_binder_installs_the_course_on_the_pinned_versions(colab, index, tmp_path):
    """What repo2docker would run, run here; that an image builds, only Docker can tell."""
    assert sorted(p.name for p in (ROOT / ".binder").iterdir()) == ["postBuild", "runtime.txt"]
    from packaging.specifiers import SpecifierSet

    project = (ROOT / "pyproject.toml").read_text()
    python = (ROOT / ".binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    assert python in SpecifierSet(re.search(r'requires-python = "(.+)"', project)[1])
    pins = dict(re.findall(r"(?m)^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text()))
    needs = re.findall(r'"([\w-]+)([<>=].*?)"', re.search(r"(?s)\ndependencies = \[(.+?)\n\]", project)[1])
    assert needs and all(pins[name] in SpecifierSet(wanted) for name, wanted in needs)

    build = ROOT / ".binder" / "postBuild"
    assert os.access(build, os.X_OK), "repo2docker runs postBuild only if it may be executed"
    interpreter = colab.environment(tmp_path, colab.closure(colab.PREINSTALLED))
    text = build.read_text()
    light = "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert light in text, "Binder has no GPU, and no room for the 5 GB of its libraries"
    course = tmp_path / "course"
    for name in ("labcode", ".binder"):
        shutil.copytree(ROOT / name, course / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, course)
    # the index of torch's builds adds nothing here, where torch is linked
    (course / ".binder" / "postBuild").write_text(text.replace(light, ""))
    path = f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}"

    def built():
        line, told = [".binder/postBuild"], {**os.environ, "PATH": path}
        return subprocess.run(line, cwd=course, env=told, capture_output=True, text=True)

    pinned = (course / "requirements.txt").read_text()
    (course / "requirements.txt").write_text(pinned.replace(f"jaxtyping=={pins['jaxtyping']}", "jaxtyping==0.0.0"))
    assert built().returncode, "a pin that nothing satisfies was not looked at"
    (course / "requirements.txt").write_text(pinned)
    done = built()
    assert done.returncode == 0, done.stderr
    ask = "import labcode, jaxtyping, torch; print(labcode.__file__, jaxtyping.__version__, torch.__version__)"
    told = subprocess.run([interpreter, "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    where, *versions = told.stdout.split()
    assert where.startswith(str(tmp_path / "env"))
    assert [v.split("+")[0] for v in versions] == [pins["jaxtyping"], pins["torch"]]


# --- JupyterLab


@pytest.fixture
def lab(tmp_path):
    """`make lab` on a copy of the course, without a browser; gives a function that asks its API."""
    pytest.importorskip("jupyterlab")
    for name in ("Makefile", "pyproject.toml", "_toc.yml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for path in (tmp_path / "notebooks").glob("*/*"):  # as after a clone and after `make notebooks`
        os.utime(path, (1e9, 1e9))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "settings"
    settings.mkdir()
    told = {"ServerApp": {"open_browser": False, "allow_root": True, "port": port, "port_retries": 0}}
    (settings / "jupyter_server_config.json").write_text(json.dumps(told))
    folders = {f"JUPYTER_{what}_DIR": str(settings) for what in ("CONFIG", "RUNTIME", "DATA")}
    log = open(tmp_path / "log.txt", "w+")
    server = subprocess.Popen(
        ["make", "lab", f"PY={sys.executable}"],
        cwd=tmp_path, env={**os.environ, **folders, "JUPYTER_TOKEN": "secret"}, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip

    def ask(path, token="secret", method="GET", body=None):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, method=method)
        if token:
            asked.add_header("Authorization", f"token {token}")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.read().decode()

    for _ in range(240):
        try:
            ask("/api/status")
            break
        except OSError:
            assert server.poll() is None, (tmp_path / "log.txt").read_text()[-2000:]
            time.sleep(0.25)
    yield ask
    ask("/api/shutdown", method="POST")
    assert server.wait(30) == 0
    log.close()


def test_make_lab_opens_jupyterlab_on_the_chapters(lab):
    assert "started" in json.loads(lab("/api/status"))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        lab("/api/status", token=None)
    assert "JupyterLab" in lab("/lab")
    for twin in (t for t in TWINS if t.with_suffix(".ipynb").exists()):
        part = json.loads(lab(f"/api/contents/{twin.parent.name}"))["content"]
        assert {twin.name, f"{twin.stem}.ipynb"} <= {item["name"] for item in part}
        # opened with its twin beside it: inputs of the one, outputs of the other
        opened = json.loads(lab(f"/api/contents/{twin.parent.name}/{twin.stem}.ipynb"))["content"]
        found = [c for c in opened["cells"] if c["cell_type"] == "code"]
        wanted = [code.strip() for kind, _, code in running.cells(twin.read_text()) if kind == "code"]
        assert [c["source"].strip() for c in found] == wanted, twin.name
        assert sum(bool(c["outputs"]) for c in found) > len(found) / 3, f"{twin.name}: the outputs are lost"
