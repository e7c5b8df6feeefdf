"""What the book says about itself, made at build time from the files that hold it.

Directives: ``course-parts`` (cards of every chapter), ``course-map PART`` (a family as a picture), ``course-sample``
(measured results), ``course-papers`` (the paper index), ``course-evidence`` (every claim), ``course-machines``.
Role: ``{course}`papers``` and other counts. Pages ``code/…`` show the package's source, one anchor a symbol.

Sources: ``book/plan.yml`` (the plan), ``labcode/<part>/<chapter>.yml`` (paper cards), ``book/results/`` (the ledger).
Each of them may be missing or empty: the pages then say so.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective, SphinxRole

VERDICTS = ("supported", "contradicted", "inconclusive")
SIGNS = {"supported": "✓", "contradicted": "✗", "inconclusive": "~"}
SCALES = ("quick", "full")
EVIDENCE, PAGES = "book/evidence", "notebooks"
MARK = "# NBVAL_CHECK_OUTPUT"
Link = Callable[..., str]


# ---------------------------------------------------------------------------------------------- what there is


@dataclass
class Paper:
    key: str
    title: str
    kind: str = ""
    idea: str = ""
    reported: str = ""
    differs: str = ""
    code: tuple[str, ...] = ()


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


@dataclass
class Part:
    slug: str
    title: str
    line: str
    chapters: list[Chapter] = field(default_factory=list)


@dataclass
class Course:
    root: Path
    parts: list[Part]
    maps: dict[str, dict]

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


def _read(path: Path, load: Callable[[str], Any]) -> Any:
    return load(path.read_text(encoding="utf-8")) if path.exists() else None


def load(root: Path) -> Course:
    """Plan, cards and ledger under the project's root; whatever is missing is simply not there."""
    plan = _read(root / "book" / "plan.yml", yaml.safe_load) or {}
    parts = []
    for p in plan.get("parts") or []:
        part = Part(p["slug"], p["title"], p.get("line", ""))
        for c in p.get("chapters") or []:
            chapter = Chapter(part.slug, c["slug"], c["title"], c.get("line", ""), c.get("papers", 0))
            cards = _read(root / "labcode" / f"{chapter.name}.yml", yaml.safe_load) or []
            cards = cards.get("papers", []) if isinstance(cards, dict) else cards
            chapter.papers = [
                Paper(
                    x["key"],
                    x["title"],
                    x.get("kind") or "",
                    x.get("idea") or "",
                    x.get("reported") or "",
                    x.get("differs") or "",
                    tuple(x.get("code") or ()),
                )
                for x in cards
            ]
            for scale in SCALES:
                found = _read(root / "book" / "results" / scale / f"{chapter.name}.json", json.loads)
                if found:
                    chapter.results[scale] = found
            module = root / "labcode" / f"{chapter.name}.py"
            chapter.module = module if module.exists() else None
            chapter.written = (root / f"{chapter.page}.ipynb").exists()
            part.chapters.append(chapter)
        parts.append(part)
    return Course(root, parts, plan.get("maps") or {})


# ---------------------------------------------------------------------------------------------- small pieces


def number(value: Any) -> str:
    """Three significant digits, never more than a reader can use."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else escape(str(value))
    if value != value:
        return "nan"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value)}"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def values(claim: dict, arm: str) -> list[float]:
    found = claim.get(arm)
    found = found if isinstance(found, (list, tuple)) else [] if found is None else [found]
    return [float(v) for v in found if isinstance(v, (int, float))]


def mean(claim: dict, arm: str) -> float | None:
    found = values(claim, arm)
    return fmean(found) if found else None


def is_exact(claim: dict) -> bool:
    return claim.get("kind") == "exact" or claim.get("value") is not None


def seeds(claim: dict, result: dict | None = None) -> int:
    found = claim.get("seeds") or (result or {}).get("seeds") or []
    return found if isinstance(found, int) else len(found)


def duration(seconds: float | None) -> str:
    if not isinstance(seconds, (int, float)):
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def badge(verdict: str, text: str | None = None) -> str:
    v = verdict if verdict in VERDICTS else "none"
    sign = f'<span aria-hidden="true">{SIGNS[v]}</span> ' if v in SIGNS else ""
    return f'<span class="verdict verdict-{v}">{sign}{escape(verdict if text is None else text)}</span>'


def tally(claims: list[dict]) -> str:
    """Verdict counts as badges; the words are there for those who do not see colours."""
    counted = [(v, sum(c.get("verdict") == v for c in claims)) for v in VERDICTS]
    return " ".join(badge(v, f"{n} {v}") for v, n in counted if n)


def anchor(chapter: Chapter, scale: str, i: int) -> str:
    return f"claim-{scale}-{chapter.part}-{chapter.slug}-{i + 1}".replace("_", "-")


Row = tuple[str, list[str]]  # attributes of the row, its cells; the first cell names the row


def table(head: list[str], rows: list[Row], *, cls: str, caption: str, label: str) -> str:
    """A table in a box that scrolls. The roles keep it a table where a phone's style stacks its cells."""

    def line(attributes: str, cells: list[str]) -> str:
        rest = "".join(
            f'<td role="cell" data-label="{escape(h, quote=True)}"><div>{c}</div></td>'
            for h, c in zip(plain[1:], cells[1:], strict=True)
        )
        return f'<tr role="row"{attributes}><th role="rowheader" scope="row">{cells[0]}</th>{rest}</tr>'

    plain = [
        h.split(">", 1)[-1].split("<")[0] if "verdict" not in h else h.rsplit("</span> ", 1)[-1].split("<")[0]
        for h in head
    ]
    cells = "".join(f'<th role="columnheader" scope="col">{h}</th>' for h in head)
    return (
        f'<div class="table-scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f'<table role="table" class="course-table {cls}"><caption>{caption}</caption>'
        f'<thead role="rowgroup"><tr role="row">{cells}</tr></thead><tbody role="rowgroup">'
        f"{''.join(line(*row) for row in rows)}</tbody></table></div>"
    )


def strip(claim: dict) -> str:
    """The interval of the difference as a small picture: the tick is the margin, the hollow one is zero."""
    interval, margin = claim.get("interval"), claim.get("margin")
    ours, base = mean(claim, "ours"), mean(claim, "baseline")
    if ours is None or base is None:
        return ""
    sign = 1 if claim.get("higher_is_better", True) else -1
    middle = sign * (ours - base)
    lo, hi = (
        interval
        if isinstance(interval, (list, tuple)) and len(interval) == 2 and None not in interval
        else (middle, middle)
    )
    margin = margin if isinstance(margin, (int, float)) else 0.0
    left, right = min(0.0, lo, margin, middle), max(0.0, hi, margin, middle)
    span = (right - left) or 1.0

    def x(v: float) -> float:
        return round(6 + 108 * (v - left) / span, 1)

    return (
        f'<svg class="strip strip-{escape(str(claim.get("verdict")))}" viewBox="0 0 120 18" width="120" '
        f'height="18" aria-hidden="true" focusable="false">'
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="2" y2="16"/>'
        f'<line class="margin" x1="{x(margin)}" x2="{x(margin)}" y1="2" y2="16"/>'
        f'<line class="range" x1="{x(lo)}" x2="{x(hi)}" y1="9" y2="9"/>'
        f'<circle class="middle" cx="{x(middle)}" cy="9" r="3.5"/></svg>'
    )


def difference(claim: dict) -> str:
    """‘+0.41 [0.37, 0.45], margin 0.30’, or the value and its bound for an exact claim."""
    if is_exact(claim):
        bound = next(
            (
                f"{word} {number(claim[k])}"
                for k, word in (("at_most", "at most"), ("at_least", "at least"))
                if claim.get(k) is not None
            ),
            "",
        )
        return (
            f'{number(claim.get("value"))} <span class="quiet">({bound})</span>'
            if bound
            else number(claim.get("value"))
        )
    ours, base, interval = mean(claim, "ours"), mean(claim, "baseline"), claim.get("interval")
    if ours is None or base is None:
        return "–"
    sign = 1 if claim.get("higher_is_better", True) else -1
    text = f"{sign * (ours - base):+.3g}".replace("-", "−")
    if isinstance(interval, (list, tuple)) and len(interval) == 2 and None not in interval:
        text += f" [{number(interval[0])}, {number(interval[1])}]"
    return f'{text}<br><span class="quiet">margin {number(claim.get("margin"))}</span>'


# ---------------------------------------------------------------------------------------------- the blocks


def parts_html(course: Course, link: Link) -> str:
    if not course.parts:
        return '<p class="quiet">The plan is empty.</p>'
    out = []
    for part in course.parts:
        written = sum(c.written for c in part.chapters)
        total = sum(c.planned for c in part.chapters)
        state = f"{written} of {len(part.chapters)} chapters" if written else f"{len(part.chapters)} chapters planned"
        cards = []
        for c in part.chapters:
            papers = f"{c.planned} paper{'s' * (c.planned != 1)}"
            if c.written:
                seconds = c.results.get("quick", {}).get("seconds")
                n = seeds({}, c.results.get("quick")) or 1
                time = f" · about {duration(seconds / n)} to run" if seconds else ""
                verdicts = tally(c.claims("quick") or c.claims()) or '<span class="quiet">not measured yet</span>'
                cards.append(
                    f'<li class="chapter is-written"><a href="{link(c.page)}"><span class="chapter-title">'
                    f'{escape(c.title)}</span></a><p>{escape(c.line)}</p><p class="chapter-foot"><span class="quiet">'
                    f"{papers}{time}</span> {verdicts}</p></li>"
                )
            else:
                cards.append(
                    f'<li class="chapter is-planned"><span class="chapter-title">{escape(c.title)}</span>'
                    f' <span class="quiet">· {papers}<span class="sr-only">, not written yet</span></span>'
                    "</li>"
                )
        cards = "".join(cards)
        out.append(
            f'<section class="part{" has-chapters" if written else ""}" aria-labelledby="part-{part.slug}">'
            f'<div class="part-head"><h3 id="part-{part.slug}">{escape(part.title)}</h3>'
            f'<span class="quiet">{state} · {total} papers</span></div>'
            f'<p class="part-line">{escape(part.line)}</p><ul class="chapters">{cards}</ul></section>'
        )
    return f'<div class="course-parts">{"".join(out)}</div>'


def sample_html(course: Course, link: Link) -> str:
    found = [(c, s, i, claim) for c, s, i, claim in course.claims("quick") if c.written and not is_exact(claim)]
    out = []
    for verdict in VERDICTS:  # one of each kind, so that the sample is no selection of successes
        for c, s, i, claim in found:
            if claim.get("verdict") == verdict and mean(claim, "ours") is not None:
                n = seeds(claim, c.results[s])
                paper = next((p.title for p in c.papers if p.key == claim.get("paper")), claim.get("paper", ""))
                out.append(
                    f'<figure class="sample">{badge(verdict)}<blockquote><p>{escape(claim.get("statement", ""))}</p>'
                    f'</blockquote><p class="sample-figures"><b>{number(mean(claim, "ours"))}</b> against '
                    f"<b>{number(mean(claim, 'baseline'))}</b> {strip(claim)}</p><figcaption>"
                    f'<a href="{link(c.page, claim.get("paper"))}">{escape(paper)}</a> · {n} seed{"s" * (n != 1)} · '
                    f'<a href="{link(EVIDENCE, anchor(c, s, i))}">evidence</a></figcaption></figure>'
                )
                break
    if not out:
        return '<p class="quiet">Nothing has been measured yet: run <code>make notebooks</code>.</p>'
    return f'<div class="samples">{"".join(out)}</div>'


def map_html(course: Course, part_slug: str, link: Link) -> str:
    part = next((p for p in course.parts if p.slug == part_slug), None)
    plan = course.maps.get(part_slug) or {}
    if part is None or not plan.get("nodes"):
        return '<p class="quiet">This part has no map yet.</p>'
    chapters = {c.slug: c for c in part.chapters}
    width, w, h, gap = 440, 206, 76, 44
    place = {
        slug: (8 + (width - 16 - w) * n["at"][1], 8 + (h + gap) * n["at"][0])
        for slug, n in plan["nodes"].items()
        if slug in chapters
    }
    height = max(y for _, y in place.values()) + h + 8
    lines, boxes = [], []
    for a, b in plan.get("edges", []):
        (xa, ya), (xb, yb) = place[a], place[b]
        x1, x2, y1, y2 = xa + w / 2, xb + w / 2, ya + h, yb - 3
        lines.append(
            f'<path class="edge" d="M{x1:g} {y1:g} C{x1:g} {y1 + gap * 0.6:g} {x2:g} {y2 - gap * 0.6:g} '
            f'{x2:g} {y2:g}" marker-end="url(#arrow-{part_slug})"/>'
        )
    for slug, (x, y) in place.items():
        c = chapters[slug]
        text = (
            f'<rect x="{x:g}" y="{y:g}" width="{w}" height="{h}" rx="10"/>'
            f'<text class="node-title" x="{x + w / 2:g}" y="{y + 24:g}">'
            f"{escape(plan['nodes'][slug].get('short', c.title))}</text>"
            f'<text class="node-asks" x="{x + w / 2:g}" y="{y + 45:g}">{escape(plan["nodes"][slug]["asks"])}</text>'
            f'<text class="node-state" x="{x + w / 2:g}" y="{y + 65:g}">'
            f"{c.planned} papers{'' if c.written else ', not written yet'}</text>"
        )
        boxes.append(
            f'<a href="{link(c.page)}" class="node is-written">{text}</a>'
            if c.written
            else f'<g class="node is-planned">{text}</g>'
        )
    order = "".join(
        "<li>"
        + (
            f'<a href="{link(c.page)}">{escape(c.title)}</a>'
            if c.written
            else f'{escape(c.title)} <span class="quiet">(not written yet)</span>'
        )
        + f": {escape(c.line)}</li>"
        for c in (chapters[s] for s in plan.get("reading", chapters) if s in chapters)
    )
    said = "; ".join(f"{chapters[a].title} leads to {chapters[b].title}" for a, b in plan.get("edges", []))
    return (
        f'<figure class="course-map"><svg viewBox="0 0 {width} {height:g}" role="group" '
        f'aria-labelledby="map-{part_slug}-t map-{part_slug}-d"><title id="map-{part_slug}-t">The chapters of '
        f'{escape(part.title)} and how they follow from each other</title><desc id="map-{part_slug}-d">{escape(said)}.'
        f'</desc><defs><marker id="arrow-{part_slug}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path class="arrow" d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{''.join(lines)}{''.join(boxes)}</svg><figcaption>Each chapter asks the question that the one before "
        f"leaves open. Solid boxes can be read now.</figcaption></figure>"
        f'<p>An order to read them in:</p><ol class="reading-order">{order}</ol>'
    )


def papers_html(course: Course, link: Link, code: Callable[[Chapter, str], str | None]) -> str:
    rows: list[Row] = []
    kinds, parts = set(), {}
    for part in course.parts:
        for c in part.chapters:
            for p in c.papers:
                claims = c.claims(paper=p.key)
                shown = c.claims("quick", p.key) or claims
                verdicts = [v for v in VERDICTS if any(x.get("verdict") == v for x in claims)]
                kinds.add(p.kind)
                parts[part.slug] = part.title
                first = next(((s, i) for d, s, i, x in course.claims() if d is c and x.get("paper") == p.key), None)
                title = f'<a href="{link(c.page, p.key)}">{escape(p.title)}</a>' if c.written else escape(p.title)
                symbols = ", ".join(
                    f'<a href="{href}"><code>{escape(s)}</code></a>'
                    if (href := code(c, s))
                    else f"<code>{escape(s)}</code>"
                    for s in p.code
                )
                chapter = f'<a href="{link(c.page)}">{escape(c.title)}</a>' if c.written else escape(c.title)
                result = tally(shown) or '<span class="quiet">not measured</span>'
                if first:
                    result = f'<a class="plain" href="{link(EVIDENCE, anchor(c, *first))}">{result}</a>'
                words = escape(" ".join((p.key, p.title, p.idea, c.title, *p.code)).lower(), quote=True)
                rows.append(
                    (
                        f' id="paper-{p.key}" data-part="{part.slug}" data-kind="{escape(p.kind)}" '
                        f'data-verdicts="{" ".join(verdicts) or "none"}" data-words="{words}"',
                        [
                            f'{title}<span class="idea">{escape(p.idea)}</span>',
                            f'{chapter}<br><span class="quiet">{escape(p.kind)}</span>',
                            symbols or "–",
                            result,
                        ],
                    )
                )
    total = sum(c.planned for c in course.chapters())
    if not rows:
        return f'<p class="quiet">None of the {total} planned papers has a card yet.</p>'

    def select(name: str, label: str, options: list[tuple[str, str]]) -> str:
        listed = "".join(f'<option value="{escape(v)}">{escape(t)}</option>' for v, t in options)
        return f'<label>{label} <select name="{name}"><option value="">all</option>{listed}</select></label>'

    form = (
        '<form class="paper-filter" role="search" aria-label="Filter the papers" hidden>'
        '<label class="grow">Search <input type="search" name="q" placeholder="title, idea, function" '
        'autocomplete="off"></label>'
        + select("part", "Part", list(parts.items()))
        + select("kind", "Kind", [(k, k) for k in sorted(kinds)])
        + select("verdict", "Verdict", [(v, v) for v in VERDICTS] + [("none", "not measured")])
        + '<button type="reset">Clear</button></form>'
    )
    return (
        f'<div class="paper-index">{form}<p class="paper-count" role="status">{len(rows)} papers</p>'
        + table(
            ["Paper", "Chapter, kind", "Code", "Result"],
            rows,
            cls="papers",
            label="Papers of the course",
            caption=f"{len(rows)} of the {total} planned papers have been worked through.",
        )
        + "</div>"
    )


def evidence_html(course: Course, link: Link) -> str:
    rows: dict[str, list[Row]] = {s: [] for s in SCALES}
    for c, s, i, claim in course.claims():
        result, key = c.results[s], claim.get("paper", "")
        paper = next((p.title for p in c.papers if p.key == key), key)
        title = f'<a href="{link(c.page, key)}">{escape(paper)}</a>' if c.written else escape(paper)

        def arm(name: str, claim: dict = claim) -> str:
            found = values(claim, name)
            each = ", ".join(number(v) for v in found)
            return f'<span title="by seed: {each}">{number(mean(claim, name))}</span>' if found else "–"

        versions = claim.get("versions") or result.get("versions") or {}
        origin = [
            ("data", claim.get("data")),
            ("device", claim.get("device")),
            ("torch", versions.get("torch")),
            ("labcode", versions.get("labcode")),
            ("commit", str(claim.get("commit") or "")[:10]),
            ("date", str(claim.get("date") or "")[:10]),
            ("time", duration(claim.get("seconds")) if claim.get("seconds") else None),
            ("ours", ", ".join(map(number, values(claim, "ours")))),
            ("baseline", ", ".join(map(number, values(claim, "baseline")))),
        ]
        facts = "".join(f"<dt>{k}</dt><dd>{escape(str(v))}</dd>" for k, v in origin if v)
        n = seeds(claim, result)
        rows[s].append(
            (
                f' id="{anchor(c, s, i)}"',
                [
                    f'{escape(claim.get("statement", ""))}<span class="idea">{title}</span>'
                    f"<details><summary>where it comes from</summary><dl>{facts}</dl></details>",
                    arm("ours"),
                    arm("baseline"),
                    f"{difference(claim)}{strip(claim)}",
                    str(n or "–"),
                    badge(claim.get("verdict", "–")),
                ],
            )
        )
    if not any(rows.values()):
        return '<p class="quiet">The ledger is empty: nothing has been measured yet.</p>'
    heads = {"quick": "Quick scale", "full": "Full scale"}
    summary = [
        (
            "",
            [
                heads[s],
                *(str(sum(x.get("verdict") == v for _, _, _, x in course.claims(s))) for v in VERDICTS),
                str(len(rows[s])),
            ],
        )
        for s in SCALES
        if rows[s]
    ]
    out = [
        table(
            ["Scale", *(badge(v) for v in VERDICTS), "Claims"],
            summary,
            cls="summary",
            label="Verdicts by scale",
            caption="Verdicts by scale",
        )
    ]
    for s in SCALES:
        if rows[s]:
            out.append(
                f'<h2 id="evidence-{s}">{heads[s]}</h2>'
                + table(
                    ["Claim", "Ours", "Baseline", "Difference", "Seeds", "Verdict"],
                    rows[s],
                    cls="evidence",
                    label=f"Claims at {s} scale",
                    caption=f"{len(rows[s])} claims, means over the seeds",
                )
            )
        else:
            out.append(
                f'<h2 id="evidence-{s}">{heads[s]}</h2><p class="quiet">Nothing has been measured at '
                f"this scale yet.</p>"
            )
    return "".join(out)


def machines_html(course: Course, link: Link) -> str:
    rows: list[Row] = []
    setups: dict[tuple[str, str], set[str]] = {}
    for c in course.chapters():
        for s in SCALES:
            result = c.results.get(s)
            if not result:
                continue
            claims = result.get("claims", [])
            n = seeds({}, result) or 1
            seconds = result.get("seconds")
            devices = sorted({str(x.get("device") or "?") for x in claims}) or ["–"]
            title = f'<a href="{link(c.page)}">{escape(c.title)}</a>' if c.written else escape(c.title)
            each = duration(seconds / n) if isinstance(seconds, (int, float)) else "–"
            rows.append(("", [title, s, str(n), duration(seconds), each, escape("; ".join(devices))]))
            for x in claims:
                key = (str(x.get("device") or "?"), json.dumps(x.get("versions") or {}, sort_keys=True))
                setups.setdefault(key, set()).add(f"{c.title} ({s})")
    if not rows:
        return '<p class="quiet">The ledger is empty: no run has been recorded yet.</p>'
    out = [
        table(
            ["Chapter", "Scale", "Seeds", "Whole run", "One seed", "Device"],
            rows,
            cls="machines",
            label="Run times by chapter",
            caption="Wall-clock time of the run that wrote the committed results",
        )
    ]
    used = [
        (
            "",
            [
                escape(d),
                escape(", ".join(f"{k} {v}" for k, v in json.loads(versions).items())) or "–",
                escape(", ".join(sorted(which))),
            ],
        )
        for (d, versions), which in sorted(setups.items())
    ]
    out.append(
        table(
            ["Device", "Versions", "Used for"],
            used,
            cls="setups",
            label="Devices and versions",
            caption="Devices and versions",
        )
    )
    return "".join(out)


# ---------------------------------------------------------------------------------------------- source pages


def symbols(source: str) -> dict[str, int]:
    """Top-level public names of a module and the line each starts on (decorators included)."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in getattr(node, "targets", None) or [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = node.lineno
    return found


def source_html(path: Path) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    source = path.read_text(encoding="utf-8")
    lines = highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).split("\n")
    for name, line in symbols(source).items():
        if line <= len(lines):
            lines[line - 1] = f'<span class="source-symbol" id="{name}">{lines[line - 1]}</span>'
    return (
        '<div class="highlight course-source" tabindex="0" role="region" aria-label="Source"><pre>'
        + "\n".join(lines)
        + "</pre></div>"
    )


def source_files(root: Path) -> list[Path]:
    return sorted(p for p in (root / "labcode").glob("**/*.py") if p.stat().st_size)


def source_page(path: Path, root: Path) -> str:
    return "code/" + path.relative_to(root / "labcode").with_suffix("").as_posix()


def imported(module: Path, root: Path) -> dict[str, tuple[Path, str | None]]:
    """Names that a module of the package takes from another one: file and name there (None for a module itself)."""
    found = {}
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = module.parents[node.level - 1]
        elif (node.module or "").split(".")[0] == "labcode":
            base = root
        else:
            continue
        base = base.joinpath(*(node.module or "").split("."))
        for alias in node.names:
            name = alias.asname or alias.name
            if (base / f"{alias.name}.py").exists():
                found[name] = (base / f"{alias.name}.py", None)
            elif base.with_suffix(".py").exists():
                found[name] = (base.with_suffix(".py"), alias.name)
            elif (base / "__init__.py").exists():
                found[name] = (base / "__init__.py", alias.name)
    return found


def code_link(course: Course, link: Link) -> Callable[[Chapter, str], str | None]:
    """Address of a symbol on a source page: ``loss``, ``Class.method``, ``cpc.loss``, ``labcode/augment.py:views``."""

    def find(chapter: Chapter, symbol: str) -> str | None:
        module, names = chapter.module, symbol.split(".")
        if ":" in symbol:
            where, name = symbol.split(":", 1)
            module, names = course.root / where, name.split(".")
        for _ in range(4):  # a name may be handed on from module to module
            if module is None or not module.exists() or not names:
                return None
            if names[0] in symbols(module.read_text(encoding="utf-8")):
                return link(source_page(module, course.root), names[0])
            handed = imported(module, course.root).get(names[0])
            beside = module.with_name(f"{names[0]}.py")
            if handed:
                module, names = handed[0], names[1:] if handed[1] is None else [handed[1], *names[1:]]
            elif len(names) > 1 and beside.exists():
                module, names = beside, names[1:]
            else:
                return None
        return None

    return find


# ---------------------------------------------------------------------------------------------- Sphinx


class course_block(nodes.General, nodes.Element):
    """Stands in a page until all pages are read, then becomes HTML."""


class Block(SphinxDirective):
    optional_arguments = 1
    option_spec = {"class": directives.class_option}

    def run(self) -> list[nodes.Node]:
        what = self.name.removeprefix("course-")
        if what == "map" and not self.arguments:
            raise self.error("course-map needs the name of a part")
        self.env.__dict__.setdefault("course_pages", set()).add(self.env.docname)
        return [course_block("", what=what, argument=(self.arguments or [""])[0])]


class Count(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list]:
        self.env.__dict__.setdefault("course_pages", set()).add(self.env.docname)
        counts = load(Path(self.env.srcdir)).counts()
        if self.text not in counts:
            message = self.inliner.reporter.error(
                f"course: no count {self.text!r}, one of {', '.join(counts)}", line=self.lineno
            )
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [nodes.Text(str(counts[self.text]))], []


def linker(app, here: str) -> Link:
    """link(page, target) -> relative address; a target that no page has is left out, a label's real id is used."""
    labels = app.env.get_domain("std").anonlabels

    def link(page: str, target: str | None = None) -> str:
        address = app.builder.get_relative_uri(here, page)
        if not target:
            return address
        if page.startswith(PAGES + "/"):
            known = labels.get(target.lower())
            return f"{address}#{known[1]}" if known and known[0] == page else address
        return f"{address}#{target}"

    return link


def tidy(app, doctree: nodes.document) -> None:
    """The mark that tells the tests which outputs to compare is nothing for readers."""
    for block in doctree.findall(nodes.literal_block):
        if MARK in block.astext():
            kept = "\n".join(line for line in block.astext().split("\n") if line.strip() != MARK)
            block.rawsource = kept
            block.children = [nodes.Text(kept)]


def fill(app, doctree: nodes.document, here: str) -> None:
    blocks = list(doctree.findall(course_block))
    if not blocks:
        return
    course, link = load(Path(app.srcdir)), linker(app, here)
    for chapter in course.chapters():  # a notebook outside the table of contents is no page
        chapter.written = chapter.page in app.env.found_docs
    make = {
        "parts": lambda _: parts_html(course, link),
        "sample": lambda _: sample_html(course, link),
        "map": lambda part: map_html(course, part, link),
        "papers": lambda _: papers_html(course, link, code_link(course, link)),
        "evidence": lambda _: evidence_html(course, link),
        "machines": lambda _: machines_html(course, link),
    }
    for block in blocks:
        block.replace_self(nodes.raw("", make[block["what"]](block["argument"]), format="html"))


def outdated(app, env, added, changed, removed) -> list[str]:
    """Generated pages follow files that Sphinx does not watch: make them every time, they are few."""
    return sorted(set(getattr(env, "course_pages", ())) & set(env.found_docs))


def merge(app, env, docnames, other) -> None:
    env.__dict__.setdefault("course_pages", set()).update(getattr(other, "course_pages", ()))


def source_pages(app) -> Iterator[tuple[str, dict, str]]:
    root = Path(app.srcdir)
    for path in source_files(root):
        name = path.relative_to(root).as_posix()
        yield (
            source_page(path, root),
            {
                "title": name,
                "body": f"<h1>{escape(name)}</h1>{source_html(path)}",
                "sourcename": "",
                "page_source_suffix": "",
            },
            "page.html",
        )


def setup(app) -> dict[str, Any]:
    app.add_node(course_block)
    for name in ("parts", "sample", "map", "papers", "evidence", "machines"):
        app.add_directive(f"course-{name}", Block)
    app.add_role("course", Count())
    app.connect("doctree-read", tidy)
    app.connect("doctree-resolved", fill)
    app.connect("env-get-outdated", outdated)
    app.connect("env-merge-info", merge)
    app.connect("html-collect-pages", source_pages)
    app.add_css_file("course.css")
    app.add_js_file("course.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
