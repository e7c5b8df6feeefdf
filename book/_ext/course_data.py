"""What the course knows about itself: the plan, the paper cards and the ledger, read from the files that hold them.

Sources: ``book/plan.yml`` (the plan), ``labcode/<part>/<chapter>/papers.yml`` (paper cards), ``book/results/`` (the
ledger). Each of them may be missing or empty. What was read is kept until its file changes: a build asks often.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from labcode.course.ledger import VERDICTS

SCALES = ("quick", "long", "full")  # the longest speaks first
PAGES = "notebooks"


@dataclass
class Paper:
    key: str
    title: str
    kind: str = ""
    idea: str = ""
    reported: str = ""
    differs: str = ""
    code: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # keys of the papers to know first
    exercises: tuple[str, ...] = ()  # labels of exercises
    name: str = ""  # for short
    shows: tuple[tuple[str, str], ...] = ()  # (what the paper shows, what answers it here)


@dataclass
class Chapter:
    part: str
    slug: str
    title: str
    line: str
    planned: int
    papers: list[Paper] = field(default_factory=list)
    results: dict[str, dict] = field(default_factory=dict)
    module: Path | None = None
    written: bool = False

    @property
    def name(self) -> str:
        return f"{self.part}/{self.slug}"

    @property
    def page(self) -> str:
        return f"{PAGES}/{self.name}"

    def claims(self, scale: str | None = None, paper: str | None = None) -> list[dict]:
        return [
            c
            for s in SCALES
            if scale in (None, s)
            for c in self.results.get(s, {}).get("claims", [])
            if paper in (None, c.get("paper"))
        ]

    def settled(self, paper: str | None = None) -> list[dict]:
        """Each statement once, as the longest scale that measured it has it."""
        found: dict[tuple, dict] = {}
        for s in SCALES:
            for claim in self.claims(s, paper):
                found[claim.get("paper"), claim.get("statement")] = claim
        return list(found.values())

    def measured(self) -> set[str]:
        """The statements and curves that some scale has measured, as a card's ``shows`` names them."""
        curves = {curve["name"] for told in self.results.values() for curve in told.get("curves", [])}
        return {c.get("statement") for c in self.claims()} | curves | {f"curve: {name}" for name in curves}


@dataclass
class Part:
    slug: str
    title: str
    line: str
    chapters: list[Chapter] = field(default_factory=list)
    written: bool = False

    @property
    def page(self) -> str:
        return f"book/parts/{self.slug}"


@dataclass
class Course:
    root: Path
    parts: list[Part]
    maps: dict[str, dict]
    samples: tuple[str, ...] = ()  # statements that the landing page shows

    def chapters(self) -> Iterator[Chapter]:
        for part in self.parts:
            yield from part.chapters

    def claims(self, scale: str | None = None) -> Iterator[tuple[Chapter, str, int, dict]]:
        """(chapter, scale, number of the claim in its chapter and scale, claim)"""
        for chapter in self.chapters():
            for s in SCALES:
                if scale in (None, s):
                    for i, claim in enumerate(chapter.claims(s)):
                        yield chapter, s, i, claim

    def paper(self, key: str) -> tuple[Chapter, Paper] | None:
        return next(((c, p) for c in self.chapters() for p in c.papers if p.key == key), None)

    def needs(self) -> dict[str, dict[str, list[str]]]:
        """{chapter: {other chapter whose papers it builds on: their keys, in its order}}, in the plan's order."""
        found: dict[str, dict[str, list[str]]] = {}
        for chapter in self.chapters():
            wanted = {k for p in chapter.papers for k in p.needs}
            for other in self.chapters():
                if other is not chapter and (keys := [p.key for p in other.papers if p.key in wanted]):
                    found.setdefault(chapter.name, {})[other.name] = keys
        return found

    def counts(self) -> dict[str, int]:
        chapters = list(self.chapters())
        claims = [c for _, _, _, c in self.claims()]
        found = dict(
            parts=len(self.parts),
            chapters=len(chapters),
            papers=sum(c.planned for c in chapters),
            written=sum(c.written for c in chapters),
            cards=sum(len(c.papers) for c in chapters),
            measured=len({(c.name, claim.get("paper")) for c, _, _, claim in self.claims()}),
            claims=len(claims),
        )
        return found | {v: sum(c.get("verdict") == v for c in claims) for v in VERDICTS}


def stamp(path: Path) -> int:
    """When a file was last written, 0 where there is none: what was read from it is good until this changes."""
    return path.stat().st_mtime_ns if path.exists() else 0


@cache
def _parsed(path: Path, written: int) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the loader in C takes a tenth of the time


def _read(path: Path) -> Any:
    return _parsed(path, stamp(path)) if path.exists() else None


def card_file(root: Path, chapter: str) -> Path:
    return root / "labcode" / chapter / "papers.yml"


def load(root: Path) -> Course:
    """Plan, cards and ledger under the project's root; whatever is missing is simply not there."""
    plan = _read(root / "book" / "plan.yml") or {}
    parts = []
    for p in plan.get("parts") or []:
        part = Part(p["slug"], p["title"], p.get("line", ""))
        part.written = (root / f"{part.page}.md").exists()
        for c in p.get("chapters") or []:
            chapter = Chapter(part.slug, c["slug"], c["title"], c.get("line", ""), c.get("papers", 0))
            cards = _read(card_file(root, chapter.name)) or []
            cards = cards.get("papers", []) if isinstance(cards, dict) else cards
            chapter.papers = [
                Paper(
                    x["key"],
                    x["title"],
                    x.get("kind") or "",
                    x.get("idea") or "",
                    x.get("reported") or "",
                    x.get("differs") or "",
                    *(tuple(x.get(name) or ()) for name in ("code", "needs", "exercises")),
                    x.get("name") or x["title"].split(": ")[0],
                    tuple((str(a), str(b)) for item in x.get("shows") or () for a, b in item.items()),
                )
                for x in cards
            ]
            for scale in SCALES:
                found = _read(root / "book" / "results" / scale / f"{chapter.name}.json")
                if found:
                    chapter.results[scale] = found
            modules = (root / "labcode" / chapter.name / "__init__.py", root / "labcode" / f"{chapter.name}.py")
            chapter.module = next((m for m in modules if m.exists()), None)
            chapter.written = (root / f"{chapter.page}.ipynb").exists()
            part.chapters.append(chapter)
        parts.append(part)
    return Course(root, parts, plan.get("maps") or {}, tuple(plan.get("samples") or ()))
