"""Broken on purpose: one-line breakages of a chapter's methods, and which claims notice.

    make broken ONLY=self_supervision/redundancy

``tests/<part>/<chapter>/broken.yml`` lists them: the paper, the file, a line's text that stands there once, and what
takes its place (the loss without its point, answers shuffled, a schedule constant). Each is tried in a copy of the
course: the paper's section runs with one seed, and its records are held against the committed ones. A breakage is
*noticed* where a supported claim falls; where not even the comparison of a re-run would fail, the claims cannot fail.
The score goes to ``book/results/broken.json`` and stands on the evidence page.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .ledger import alone, compare, put, read
from .provenance import fingerprint, root


@dataclass(frozen=True)
class Breakage:
    """One line of one file, and what takes its place."""

    paper: str
    file: str  # from the course's folder
    replace: str
    by: str

    def apply(self, folder: Path) -> None:
        """Raises ValueError where the text does not stand exactly once in the file."""
        file = folder / self.file
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text.count(self.replace) != 1:
            raise ValueError(f"{self.file} has {self.replace!r} {text.count(self.replace)} times, once is wanted")
        file.write_text(text.replace(self.replace, self.by), encoding="utf-8")


def breakages(chapter: str) -> list[Breakage]:
    """A chapter's list. Raises ValueError for an entry that lacks a field, and FileNotFoundError without a list."""
    import yaml

    file = root() / "tests" / chapter / "broken.yml"
    found = []
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")) or []:
        if entry.keys() != {"paper", "file", "replace", "with"}:
            raise ValueError(f"{file}: an entry has paper, file, replace and with, got {sorted(entry)}")
        found.append(Breakage(entry["paper"], entry["file"], entry["replace"], entry["with"]))
    return found


def attempt(chapter: str, breakage: Breakage | None, paper: str) -> dict:
    """Run a paper's section with one seed, broken or not, in a copy of the course: what fell and what would fail.

    ``fallen`` are the committed supported statements that are no longer so; ``amiss`` whether a re-run's comparison, or
    the run itself, would have failed. Raises ChildProcessError for a run that a signal ended.
    """
    results = Path("book", "results", "quick", f"{chapter}.json")
    committed = [c for c in read(root() / results)["claims"] if c.paper == paper]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in ("labcode", "notebooks"):
            ignore = shutil.ignore_patterns("__pycache__", "*.ipynb")
            shutil.copytree(root() / part, folder / part, ignore=ignore)
        (folder / "_toc.yml").touch()
        if breakage:
            breakage.apply(folder)
        told = dict(LABCODE_PROGRESS="0", PYTHONPATH=str(folder), OMP_NUM_THREADS="1")
        options = ["--paper", paper, "--scale", "quick", "--seeds", "1", "--write"]
        command = [sys.executable, "-m", "labcode.run", chapter, *options]
        ran = subprocess.run(command, cwd=folder, env=os.environ | told, capture_output=True, text=True)
        if ran.returncode < 0:  # killed from outside, or out of memory: that says nothing about the claims
            raise ChildProcessError(f"{chapter}, {paper}: stopped by signal {-ran.returncode}, no score kept")
        made = read(folder / results)["claims"]
    again = {r.statement: r for r in made}
    supported = [c for c in committed if c.verdict == "supported"]
    fallen = [c.statement for c in supported if c.statement in again and again[c.statement].verdict != "supported"]
    crashed = ran.returncode != 0
    amiss = crashed or any(c.statement not in again or compare(again[c.statement], c) for c in committed)
    return dict(fallen=fallen, amiss=amiss, crashed=crashed, said=ran.stderr[-300:] if crashed else "")


def try_all(chapter: str) -> list[dict]:
    """Try every breakage of a chapter, tell what noticed it, and keep the score.

    Statements that do not hold with one seed even unbroken do not count as having noticed. Raises RuntimeError for a
    paper whose section fails unbroken: that nothing falls then says nothing.
    """
    listed, frail = breakages(chapter), {}
    rows = []
    for breakage in listed:
        if breakage.paper not in frail:
            whole = attempt(chapter, None, breakage.paper)
            if whole["crashed"]:
                raise RuntimeError(f"{chapter}: {breakage.paper} alone fails unbroken: {whole['said']}")
            frail[breakage.paper] = set(whole["fallen"])
        found = attempt(chapter, breakage, breakage.paper)
        fallen = [s for s in found["fallen"] if s not in frail[breakage.paper]]
        row = dict(paper=breakage.paper, breakage=f"{breakage.replace.strip()} → {breakage.by.strip()}")
        rows.append(row | dict(fallen=fallen, rerun_fails=found["amiss"], crashed=found["crashed"]))
        word = "noticed" if fallen else "crashed" if found["crashed"] else "NOT NOTICED"
        print(f"{breakage.paper:28} {word:12} {len(fallen)} fell, a re-run fails: {found['amiss']}; {row['breakage']}")
        if found["crashed"]:
            print(found["said"])
    file = root() / "book" / "results" / "broken.json"
    with alone(file):
        score = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        put(file, dict(sorted((score | {chapter: dict(code=fingerprint(chapter), rows=rows)}).items())))
    noticed = sum(bool(row["fallen"]) for row in rows)
    print(f"{chapter}: {noticed} of {len(rows)} breakages make a supported claim fall")
    return rows


def main(arguments: list[str]) -> int:
    if not arguments:
        print("name chapters: make broken ONLY=self_supervision/redundancy", file=sys.stderr)
        return 2
    rows = [row for chapter in arguments for row in try_all(chapter)]
    return int(not all(row["fallen"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
