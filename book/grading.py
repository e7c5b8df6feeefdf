"""Collect, mend and report what students hand in, so that one odd notebook costs nobody else's grade.

    python grading.py collect contrastive     # from downloaded/contrastive/archive to submitted/
    nbgrader autograde contrastive            # with Mend and Run of this file, see nbgrader_config.py
    python grading.py report contrastive      # what was not collected, not graded, or mended: a line each

`make assignments` puts this file beside nbgrader_config.py. It needs nbgrader alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import unicodedata
import zipfile
from copy import deepcopy
from pathlib import Path

from nbclient.exceptions import DeadKernelError
from nbformat import v4
from nbgrader.api import Gradebook
from nbgrader.preprocessors import Execute, NbGraderPreprocessor

HIDDEN = re.compile(r"(?ms)^ *### BEGIN HIDDEN TESTS\n.*?^ *### END HIDDEN TESTS$\n?")
LONGEST = 20_000  # characters of an output that are kept


class Mend(NbGraderPreprocessor):
    """A student's notebook with the assignment's cells: each once, tests as they were handed out, the answers theirs.

    Jupyter copies a cell's metadata when it copies or splits the cell, other programs lose them, and nbgrader then
    stops for the whole class or counts tests that are gone as failed. Here a cell is known by its metadata, its
    identifier or its contents; of several the last counts, the others stay as plain cells; tests that are gone come
    back behind the cell they followed. What was done stands in the notebook's metadata, for ``report``.
    """

    def preprocess(self, nb, resources):
        where = resources["nbgrader"]
        with Gradebook(where["db_url"]) as book:
            found = book.find_notebook(where["notebook"], where["assignment"])
            points = {cell.name: cell.max_score for cell in found.grade_cells}
            source = {cell.name: _handed_out(cell, points.get(cell.name)) for cell in found.source_cells}
        nb.cells, notes = mended(list(nb.get("cells") or []), source)
        if nb.get("nbformat_minor", 0) < 5:  # before cells had identifiers
            for cell in nb.cells:
                cell.pop("id", None)
        nb.metadata["mended"] = notes
        for note in notes:
            self.log.warning("%s, %s: %s", where["student"], where["assignment"], note)
        return nb, resources


def _handed_out(cell, points):
    """A fresh cell as the assignment has it."""
    roles = dict(schema_version=3, grade_id=cell.name, grade=points is not None, solution=not cell.locked, task=False,
                 locked=bool(cell.locked), checksum=cell.checksum, cell_type=cell.cell_type)  # fmt: skip
    if points is not None:
        roles["points"] = points
    make = v4.new_code_cell if cell.cell_type == "code" else v4.new_markdown_cell
    return make(cell.source, metadata={"nbgrader": roles})


def mended(cells: list, source: dict) -> tuple[list, list[str]]:
    """The cells, each of ``source`` (by name, in order) once, and a note on whatever was not as handed out."""
    known = {_plain(cell.source): name for name, cell in source.items() if cell.metadata.nbgrader.locked}
    names, notes = [], []
    cells = [_sound(cell) for cell in cells if isinstance(cell, dict)]
    for cell in cells:
        roles = cell.metadata.pop("nbgrader", None)
        name = roles.get("grade_id") if isinstance(roles, dict) else None
        if not isinstance(name, str) or name not in source:
            name = next((n for n in (cell.get("id"), known.get(_plain(cell.source))) if n in source), None)
            if name:
                notes.append(f"{name} had lost its metadata")
        names.append(name)
    for name, fresh in source.items():
        if name not in names and (meant := _defined(fresh.source)):  # an answer is known by what it defines
            for i, cell in enumerate(cells):
                if names[i] is None and meant <= _defined(cell.source):
                    names[i] = name
    last = {name: i for i, name in enumerate(names) if name}
    for name, fresh in source.items():
        locked = fresh.metadata.nbgrader.locked
        if name not in last:
            if fresh.cell_type == "code":
                notes.append(f"{name} was missing{' and is put back' if locked else ''}")
            continue
        if (times := names.count(name)) > 1:
            notes.append(f"{name} was there {times} times, the last counts")
        old = cells[last[name]]
        if locked and _plain(old.source) != _plain(fresh.source) and fresh.cell_type == "code":
            notes.append(f"{name} was changed and is put back")
        if locked or old.cell_type != fresh.cell_type:
            cells[last[name]] = new = deepcopy(fresh)
            new.source = fresh.source if locked else old.source
        else:
            old.metadata.nbgrader = fresh.metadata.nbgrader
    placed, before = list(enumerate(cells)), -1  # the place of the cell of the assignment that comes before
    for name, fresh in source.items():
        roles = fresh.metadata.nbgrader
        if name in last:
            before = max(before, last[name])
        elif fresh.cell_type == "code" and roles.locked:
            placed.append((before if before >= 0 or not roles.grade else len(cells), fresh))
    return [cell for _, cell in sorted(placed, key=lambda both: both[0])], notes


def _sound(cell):
    """The cell with a kind, a source and metadata, whatever a program made of them, and letters that can be written."""
    if not isinstance(cell.get("metadata"), dict):
        cell.metadata = v4.new_notebook().metadata
    if cell.get("cell_type") not in ("code", "markdown", "raw"):
        cell.cell_type = "code" if "outputs" in cell else "raw"
    if not isinstance(cell.get("id"), str):
        cell.pop("id", None)
    source = cell.get("source")
    source = "".join(map(str, source)) if isinstance(source, list) else source if isinstance(source, str) else ""
    cell.source = source.encode("utf-8", "replace").decode()
    return cell


def _plain(source) -> str:
    """What of a cell students were shown, without what editors change at lines' ends."""
    text = HIDDEN.sub("", "".join(source or ""))
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _defined(source) -> set[str]:
    return set(re.findall(r"(?m)^(?:def|class) +(\w+)", "".join(source or "")))


class Run(Execute):
    """nbgrader's execution that survives its kernel: the cell that ends it fails, those after it get a new one."""

    def preprocess(self, nb, resources, km=None):
        cells, setup, start = nb.cells, [], 0
        while start < len(cells):
            nb.cells = [*setup, *cells[start:]]
            try:
                nb, resources = super().preprocess(nb, resources, km)
                start = len(cells)
            except DeadKernelError:
                at = start + self.at - len(setup)
                told = v4.new_output("error", ename="DeadKernelError", evalue="the kernel ended here")
                cells[at].outputs.append(told)
                note = f"the kernel ended in cell {at + 1}, which counts as failed"
                nb.metadata["mended"] = [*nb.metadata.get("mended", []), note]
                roles = (cell for cell in cells[:at] if cell.cell_type == "code" and "nbgrader" in cell.metadata)
                setup = [c for c in roles if c.metadata.nbgrader.locked and not c.metadata.nbgrader.grade]
                start = at + 1
        nb.cells = cells
        for cell in cells:
            for output in cell.get("outputs", []):
                _shorten(output)
        return nb, resources

    def preprocess_cell(self, cell, resources, index):
        self.at = index
        return super().preprocess_cell(cell, resources, index)


def _shorten(output) -> None:
    if len(output.get("text", "")) > LONGEST:
        output.text = f"{output.text[:LONGEST]}\n… shortened"
    for kind, data in list(output.get("data", {}).items()):
        if len(str(data)) > 50 * LONGEST:
            output.data[kind] = "… left out: too large" if kind == "text/plain" else ""


def collect(name: str, root: Path) -> list[str]:
    """Copy what lies in downloaded/NAME/archive to submitted/STUDENT/NAME/NAME.ipynb; returns what was not, and why.

    Files are called STUDENT_NAME.ipynb, where browsers may have added " (1)" or "-Copy1"; a .zip of that name holds one
    notebook, or several with such names. Of two files of a student the newer counts.
    """
    pattern = re.compile(rf"(?:.*[\W_])?([^\W_]+)_{re.escape(name)}(?:[ (.-].*)?\.(ipynb|zip)", re.I)
    found, notes = {}, []
    archive = root / "downloaded" / name / "archive"
    for path in sorted(p for p in archive.rglob("*") if p.is_file() and not p.name.startswith(".")):
        shown = path.relative_to(root)
        match = pattern.fullmatch(unicodedata.normalize("NFC", path.name))  # some systems part é into e and its accent
        members = [(match, path.stat().st_mtime, path.read_bytes())] if match and match[2].lower() == "ipynb" else []
        if path.suffix.lower() == ".zip":
            try:
                with zipfile.ZipFile(path) as packed:
                    books = [i for i in packed.infolist() if i.filename.lower().endswith(".ipynb")
                             and not re.search(r"(^|/)(\.[^./]|__MACOSX/)", i.filename)]  # fmt: skip
                    for info in books:
                        own = unicodedata.normalize("NFC", info.filename.split("/")[-1])
                        inner = pattern.fullmatch(own) or (match if len(books) == 1 else None)
                        members.append((inner, path.stat().st_mtime, packed.read(info)))
            except Exception as error:  # damaged, encrypted, of another kind
                notes.append(f"{shown}: not collected, the archive cannot be opened ({error})")
                continue
        if not any(m for m, *_ in members):
            notes.append(f"{shown}: not collected, its name does not end in STUDENT_{name}.ipynb")
        for student, time, data in ((m[1], time, data) for m, time, data in members if m):
            if student in found:
                notes.append(f"{student}: handed in more than once, the newest counts")
            if student not in found or time >= found[student][0]:
                found[student] = time, data
    for student, (_, data) in found.items():
        target = root / "submitted" / student / name / f"{name}.ipynb"
        try:
            _put(target, data)
        except OSError as error:
            notes.append(f"{student}: not collected, {target.relative_to(root)} cannot be written ({error.strerror})")
    for folder in sorted((root / "submitted").glob(f"*/{name}")):  # also what came another way
        notes += _lift(folder, name)
    return notes


def _put(target: Path, data: bytes) -> None:
    """Write it whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.tmp")
    try:
        aside.write_bytes(data)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _lift(folder: Path, name: str) -> list[str]:
    """Put the only notebook of a submission where nbgrader looks for it."""
    if (folder / f"{name}.ipynb").exists():
        return []
    books = [p for p in folder.rglob("*.ipynb") if not any(q.startswith(".") for q in p.relative_to(folder).parts)]
    if len(books) != 1:
        return [f"{folder.parent.name}: {len(books)} notebooks and none is called {name}.ipynb"]
    try:
        _put(folder / f"{name}.ipynb", books[0].read_bytes())
    except OSError as error:
        return [f"{folder.parent.name}: {books[0].name} cannot be taken for {name}.ipynb ({error.strerror})"]
    return [f"{folder.parent.name}: {books[0].relative_to(folder)} is taken for {name}.ipynb"]


def report(name: str, root: Path) -> list[str]:
    """A line for each submission that was not graded, with the reason, and for each that was mended."""
    notes = []
    for folder in sorted((root / "submitted").glob(f"*/{name}")):
        student = folder.parent.name
        graded = root / "autograded" / student / name / f"{name}.ipynb"
        if graded.is_file():
            try:
                mends = json.loads(graded.read_text(encoding="utf-8"))["metadata"].get("mended")
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
                notes.append(f"{student}: not graded, {graded} is damaged: delete it and run nbgrader autograde again")
                continue
            notes += [f"{student}: graded; {'; '.join(map(str, mends))}"] if mends and isinstance(mends, list) else []
        else:
            notes.append(f"{student}: not graded, {_reason(folder / f'{name}.ipynb')}")
    return notes


def _reason(path: Path) -> str:
    if not path.is_file():
        return f"there is no {path.name} in {path.parent}"
    try:
        book = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        return f"{path} is no notebook ({error})"
    if not isinstance(book, dict) or "nbformat" not in book:
        return f"{path} is no notebook (it says no format)"
    return f"look at {path} and at what nbgrader autograde said"


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=["collect", "report"])
    options.add_argument("name", help="of the assignment")
    given = options.parse_args(arguments)
    for line in (collect if given.what == "collect" else report)(given.name, Path.cwd()):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
