"""Verdicts on a chapter's page: what a notebook drew of its own run is drawn again from the ledger, at every scale."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from pathlib import Path
from types import SimpleNamespace

from course_data import Chapter, Course, Paper
from docutils import nodes

from labcode.course.drawn import block, carry_over, svg
from labcode.course.judging import interval, judge
from labcode.course.ledger import Record

CLAIM = re.compile(r"<!-- claim ([\w-]+): (.*?) -->.*?</div>", re.S)
CARRY = re.compile(r"<!-- carry-over [\w/]+ -->.*?</table>", re.S)
NO_ANSWER = ("left out", "out of reach")


def records(chapter: Chapter) -> dict[str, list[Record]]:
    """The chapter's records by scale, the longest first: it speaks first."""
    found = {scale: [Record(**claim) for claim in chapter.claims(scale)] for scale in reversed(tuple(chapter.results))}
    return {scale: listed for scale, listed in found.items() if listed}


def claims(course: Course, doctree: nodes.document, here: str) -> None:
    """Put the ledger's verdicts of all scales in the place of a notebook's own."""
    chapter = next((c for c in course.chapters() if c.page == here), None)
    if chapter is None:
        return
    listed = records(chapter)

    def again(found: re.Match) -> str:
        paper, statement = found[1], unescape(found[2])
        same = {s: r for s, of in listed.items() for r in of if (r.paper, r.statement) == (paper, statement)}
        return block(same) if same else found[0]

    def whole(_: re.Match) -> str:
        told = [(p.key, p.name, p.reported) for p in chapter.papers]
        box = '<div class="table-scroll" role="region" aria-label="What carries over" tabindex="0">'
        return f"{box}{carry_over(told, dict(reversed(listed.items())))}</div>"

    for raw in list(doctree.findall(nodes.raw)):
        text = raw.astext()
        if "<!-- claim " in text or "<!-- carry-over " in text:
            made = CARRY.sub(whole, CLAIM.sub(again, text))
            raw.replace_self(nodes.raw("", made, format="html"))


def shown(chapter: Chapter, papers: list[Paper]) -> tuple[int, int]:
    """How many items of what papers of a chapter show have a measured answer, and how many are within reach."""
    answers = [answer for paper in papers for _, answer in paper.shows if not answer.startswith("out of reach")]
    measured = chapter.measured()
    return sum(answer in measured for answer in answers), len(answers)


def shows_html(chapter: Chapter, paper: Paper) -> str:
    """What the paper shows, item by item, and what answers it here: a statement's verdict, a curve, or why nothing."""
    if not paper.shows:
        return ""
    settled, measured = {c.get("statement"): c for c in chapter.settled(paper.key)}, chapter.measured()
    rows = []
    for what, answer in paper.shows:
        claim = settled.get(answer)
        word = f' <b class="verdict verdict-{claim["verdict"]}">{claim["verdict"]}</b>' if claim else ""
        if answer not in measured and not answer.startswith(NO_ANSWER):
            word = " (asked by longer runs, not measured yet)"
        kind = "" if answer in measured else ' class="quiet"'
        rows.append(f"<li>{escape(what)}: <span{kind}>{escape(answer)}</span>{word}</li>")
    done, reach = shown(chapter, [paper])
    told = f"What the paper shows: {done} of {reach} within reach answered here"
    return f'<details class="shows"><summary>{told}</summary><ul>{"".join(rows)}</ul></details>'


def broken_html(root: Path, chapters: list[Chapter]) -> str:
    """How many one-line breakages of a part's chapters make a supported claim fall."""
    file = root / "book" / "results" / "broken.json"
    score = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows = [row for c in chapters for row in score.get(c.name, {}).get("rows", ())]
    if not rows:
        return ""
    noticed, failed = sum(bool(r["fallen"]) for r in rows), sum(r["rerun_fails"] for r in rows)
    tried = f"<p>Broken on purpose: of {len(rows)} one-line breakages of the methods"
    return f"{tried}, {noticed} make a supported claim fall and {failed} make the comparison of a re-run fail.</p>"


# five invented seeds each: differences, margin
EXAMPLES = {
    "supported": ([0.07, 0.09, 0.08, 0.06, 0.09], 0.05),
    "smaller": ([0.02, 0.03, 0.015, 0.03, 0.02], 0.05),
    "reversed": ([-0.04, -0.05, -0.03, -0.045, -0.05], 0.05),
    "inconclusive": ([0.09, -0.01, 0.08, 0.02, 0.07], 0.05),
}


def legend_html() -> str:
    """How a verdict is drawn: an invented example of each."""
    rows = []
    for verdict, (differences, margin) in EXAMPLES.items():
        assert judge(differences, margin) == verdict
        drawn = SimpleNamespace(differences=differences, margin=margin, interval=interval(differences), verdict=verdict)
        low, high = drawn.interval
        numbers = f"difference between {low:+.3f} and {high:+.3f}, at least {margin:+g} wanted"
        word = f'<b class="verdict verdict-{verdict}">{verdict}</b>'
        rows.append(f'<p class="claim-line">{word} {svg(drawn)} <small class="claim-numbers">{numbers}</small></p>')
    return f'<div class="claim legend">{"".join(rows)}</div>'
