"""Try notebooks as Colab would run them: python book/try_colab.py [--steps N] [--setup] [redundancy …]

Each notebook lies alone in an empty folder and runs in a fresh environment that holds only what Colab brings and the
course uses (``PREINSTALLED`` and what these need), in the versions of the environment that runs this script. labcode
comes over HTTP from a Git repository that is served here, a copy of the working tree, through the notebook's own setup
cell. After that cell torch, torchvision and numpy must be the ones from before, at the end the notebook must have run
through.

    --steps N   a dry run, N steps a training; without it the notebook measures in full
    --setup     the setup cell and the import of labcode, no more
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import repository

ROOT = Path(__file__).resolve().parent.parent
PREINSTALLED = (
    "torch torchvision numpy scipy scikit-learn scikit-image matplotlib accelerate PyYAML tqdm networkx pip ipykernel "
    "nbclient nbformat"
).split()
KEPT = ("torch", "torchvision", "numpy")


def closure(names: list[str]) -> list[str]:
    """The distributions and all that they need, here and now, by normalised name."""
    from packaging.requirements import Requirement

    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            if name in names:
                raise
            continue  # for another platform, or left out
        found.add(name)
        parsed = (Requirement(line) for line in needs)
        waiting += [r.name for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return sorted(found)


def environment(folder: Path, names: list[str]) -> Path:
    """A fresh environment in ``folder`` with exactly these distributions; returns its Python.

    They are linked, not copied, into a folder outside the environment's own: pip counts them as installed and cannot
    remove them from the environment they come from.
    """
    linked = folder / "preinstalled"
    linked.mkdir()
    for name in names:
        dist = distribution(name)
        for top in {Path(f).parts[0] for f in dist.files or () if not Path(f).is_absolute()} - {"..", "__pycache__"}:
            source, link = Path(dist.locate_file(top)), linked / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    (Path(site.stdout.strip()) / "preinstalled.pth").write_text(f"{linked}\n")
    return python


def serve(folder: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    """The working tree, but what Git ignores, as a Git repository over HTTP; returns the server and the address."""
    bare, index = folder / "course.git", {**os.environ, "GIT_INDEX_FILE": str(folder / "index")}
    who = {f"GIT_{role}_{field}": "course" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}

    def git(*words, **more):
        done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True, **more)
        return done.stdout.strip()

    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    files = [f for f in listed if (ROOT / f).is_file()]
    at = ["--git-dir", str(bare), "--work-tree", str(ROOT)]
    git(*at, "update-index", "--add", "-z", "--stdin", env=index, input="\0".join(files))
    commit = git(*at, "commit-tree", "-m", "The course", git(*at, "write-tree", env=index), env={**index, **who})
    git(*at, "update-ref", "refs/heads/main", commit)
    git(*at, "repack", "-adq")
    git(*at, "update-server-info")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/course.git"


PROBE = """
import importlib.util, json
from importlib.metadata import version
print(json.dumps([{n: version(n) for n in %r}, importlib.util.find_spec("labcode") is not None]))
"""

RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
if sys.argv[2:]:
    last = next(i for i, c in enumerate(book.cells) if "setup" in c.metadata.get("tags", []))
    book.cells = book.cells[: last + 1] + [nbformat.v4.new_code_cell(
        "import os; import labcode, torch, torchvision, numpy; print(labcode.__file__); print(os.listdir())")]
NotebookClient(book, timeout=1800, kernel_name="python3").execute()
said = [o.text for c in book.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream"]
print(said[-1].strip())
"""


def probe(python: Path) -> tuple[dict[str, str], bool]:
    """Versions of torch, torchvision and numpy in an environment, and whether labcode is there."""
    done = subprocess.run([python, "-c", PROBE % (KEPT,)], check=True, capture_output=True, text=True, cwd="/")
    return tuple(json.loads(done.stdout))


def attempt(stored: Path, folder: Path, url: str, steps: int | None = None, setup: bool = False) -> str:
    """Run one notebook alone in a fresh environment made in ``folder``; returns the last line that it printed.

    Raises RuntimeError where it does not run through, where labcode was importable before, and where torch, torchvision
    or numpy are others afterwards.
    """
    python, alone = environment(folder, closure(PREINSTALLED)), folder / "content"
    alone.mkdir()
    before, there = probe(python)
    if there:
        raise RuntimeError("labcode is importable before the setup cell: the environment is not what Colab has")
    book = repository.notebook(stored.read_text(encoding="utf-8"), url, stored.name)
    (alone / stored.name).write_text(book, encoding="utf-8")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABCODE_", "PYTHON", "VIRTUAL_ENV", "JUPYTER"))}
    clean |= {"LABCODE_PROGRESS": "0", "LABCODE_SCALE": "quick", "IPYTHONDIR": str(folder), "MPLBACKEND": "Agg"}
    clean |= {"PATH": f"{python.parent}{os.pathsep}{clean['PATH']}", "JUPYTER_PATH": str(kernel(python, folder))}
    if steps:
        clean["LABCODE_MAX_STEPS"] = str(steps)
    line = [python, "-c", RUN, stored.name, *(["setup"] if setup else [])]
    done = subprocess.run(line, cwd=alone, env=clean, capture_output=True, text=True)
    if done.returncode:
        told = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)  # without the colours of a traceback
        raise RuntimeError(f"{stored.name} did not run through:\n{told[-3000:]}")
    after, there = probe(python)
    if after != before:
        raise RuntimeError(f"{stored.name} replaced what was installed: {before} before, {after} after")
    if not there:
        raise RuntimeError(f"{stored.name} did not install labcode")
    return done.stdout.strip()


def kernel(python: Path, folder: Path) -> Path:
    """A folder for JUPYTER_PATH that has the environment's own kernel."""
    spec = folder / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    told = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(told))
    return folder / "jupyter"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, metavar="N")
    options.add_argument("--setup", action="store_true")
    options.add_argument("chapters", nargs="*")
    given = options.parse_args()
    stored = sorted((ROOT / "notebooks").glob("*/*.ipynb"))
    unknown = [name for name in given.chapters if name not in {s.stem for s in stored}]
    if unknown:
        options.error(f"no such chapter: {', '.join(unknown)}; there are {', '.join(s.stem for s in stored)}")
    versions = ", ".join(f"{name} {distribution(name).version}" for name in PREINSTALLED)
    print(f"Python {sys.version.split()[0]} with {versions}, and what these need", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        server, url = serve(Path(place))
        for one in (s for s in stored if not given.chapters or s.stem in given.chapters):
            began = time.monotonic()
            folder = Path(place) / one.stem
            folder.mkdir()
            try:
                said = attempt(one, folder, url, given.steps, given.setup)
            except RuntimeError as error:
                failed, said = failed + 1, f"FAILED: {error}"
            print(f"{one.stem:20} {time.monotonic() - began:5.0f} s  {said}", flush=True)
        server.shutdown()
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
