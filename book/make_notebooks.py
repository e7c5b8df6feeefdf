"""Execute changed chapters: read the ``.py`` twin, run its cells with five seeds, put the notebook in place when whole.

    python book/make_notebooks.py [--all] [self_supervision/redundancy …]

A chapter has changed when its twin, its modules or its cards differ from those the stored notebook was made from. Where
only prose, captions or cards did, the outputs stay and nothing is executed (--all executes all the same). Nothing is
written before the last cell has run: a run that is killed or fails leaves the old notebook as it was.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LABCODE_SEEDS": "5",
    "LABCODE_WRITE": "1",
    "LABCODE_PROGRESS": "0",
    "PYTHONHASHSEED": "0",
}
CELL_TIMEOUT = 1800  # seconds


def chapters() -> list[str]:
    """Names such as self_supervision/redundancy, in alphabetical order."""
    return sorted(p.relative_to(NOTEBOOKS).with_suffix("").as_posix() for p in NOTEBOOKS.glob("*/*.py"))


def fingerprint(chapter: str) -> str:
    """Of all that a chapter's page is made from, but for the project's address in its setup cell."""
    digest = hashlib.sha256(measured(chapter).encode())
    for path in (NOTEBOOKS / f"{chapter}.py", ROOT / "labcode" / chapter / "papers.yml"):
        text = path.read_bytes() if path.exists() else b""
        digest.update(re.sub(rb'(?m)^REPOSITORY = "[^"\n]*"', b"", text))
    return digest.hexdigest()[:16]


def measured(chapter: str) -> str:
    """Of what decides a chapter's outputs: the code that measures, and the chapter's own modules as they are shown."""
    from labcode.course import provenance

    own = provenance.PACKAGE / chapter
    shown = b"".join(module.read_bytes() for module in sorted(own.glob("*.py")))
    return hashlib.sha256(provenance.fingerprint(chapter).encode() + shown).hexdigest()[:12]


def stored(chapter: str) -> dict:
    """What the stored notebook was made from: ``made_from`` everything, ``measured_from`` what decides its outputs."""
    import nbformat

    notebook = NOTEBOOKS / f"{chapter}.ipynb"
    return nbformat.read(notebook, as_version=4).metadata if notebook.exists() else {}


def smaller(png: str) -> str:
    """A figure with a palette of 64 colours, transparency kept: less than a third of the bytes, and no eye sees it."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    small = io.BytesIO()
    picture.quantize(64, method=Image.Quantize.FASTOCTREE).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def make(chapter: str, execute: bool = True) -> None:
    """Execute one chapter, or put its new prose around the outputs it has, and replace its notebook.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    import jupytext
    import nbformat
    from jupytext.combine import combine_inputs_with_outputs
    from nbclient import NotebookClient

    notebook, before = NOTEBOOKS / f"{chapter}.ipynb", (fingerprint(chapter), measured(chapter))
    book = jupytext.read(notebook.with_suffix(".py"))
    if notebook.exists():  # cells that stay keep their ids, so that a diff shows what changed and no more
        book = combine_inputs_with_outputs(book, nbformat.read(notebook, as_version=4), fmt={"extension": ".py"})
    book.metadata.setdefault("kernelspec", {"name": "python3", "display_name": "Python 3", "language": "python"})
    book.metadata.setdefault("jupytext", {})["formats"] = "ipynb,py:percent"
    if execute:
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                cell.metadata.pop("execution", None)
        options = dict(timeout=CELL_TIMEOUT, record_timing=False, kernel_name="python3")
        NotebookClient(book, resources={"metadata": {"path": str(notebook.parent)}}, **options).execute()
        for output in (o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    elif any(c.cell_type == "code" and c.source.strip() and c.execution_count is None for c in book.cells):
        raise RuntimeError(f"{chapter}: a code cell of the twin has no stored output: execute it with ALL=1")
    book.metadata.pop("language_info", None)
    book.metadata["made_from"], book.metadata["measured_from"] = before
    part = notebook.with_name(f".{notebook.name}.tmp")
    try:
        nbformat.write(book, part)
        twin = notebook.with_suffix(".py").stat()
        os.utime(part, ns=(twin.st_atime_ns, twin.st_mtime_ns))  # JupyterLab opens no notebook newer than its twin
        os.replace(part, notebook)  # all of it or nothing
    finally:
        part.unlink(missing_ok=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--all", action="store_true", help="also chapters that have not changed")
    options.add_argument("chapters", nargs="*")
    options = options.parse_args()
    os.environ.update({k: os.environ.get(k, v) for k, v in ENVIRONMENT.items()})
    os.environ.pop("MPLBACKEND", None)  # with any other backend than the notebook's, figures would be missing
    known = chapters()
    unknown = [c for c in options.chapters if c not in known]
    if unknown:
        print(f"no such chapter: {', '.join(unknown)}; there are {', '.join(known) or 'none'}", file=sys.stderr)
        return 2
    wanted = options.chapters or known
    todo = [c for c in wanted if options.all or stored(c).get("made_from") != fingerprint(c)]
    if not todo:
        print(f"{len(wanted)} notebooks are up to date (ALL=1 executes them all the same)")
    failed = []
    for chapter in todo:
        started = time.monotonic()
        execute = options.all or stored(chapter).get("measured_from") != measured(chapter)
        print(f"{chapter} …" if execute else f"{chapter}: only prose changed, the outputs stay", flush=True)
        try:
            make(chapter, execute)
        except Exception as error:
            failed.append(chapter)
            print(f"{error}\n{chapter} failed; the notebook is as it was", file=sys.stderr)
        else:
            if execute:
                print(f"{chapter} executed in {time.monotonic() - started:.0f} s")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
