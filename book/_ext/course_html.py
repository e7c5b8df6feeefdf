"""The blocks of HTML that the book's pages are made of, each a function of the course."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from statistics import fmean, stdev
from typing import Any

from course_data import SCALES, VERDICTS, Chapter, Course

SIGNS = {"supported": "✓", "contradicted": "✗", "inconclusive": "~"}
EVIDENCE = "book/evidence"
Link = Callable[..., str]
BLOCKS = re.compile(
    r"(?=<(?:blockquote|br|button|caption|dd|details|desc|dt|figcaption|figure|h[1-6]|label|li|ol|option|p|section|"
    r'summary|svg|td|text|th|tr|tspan|ul|span class="(?:idea|quiet)")\b)|(?<=</summary>)|(?<=</h\d>)|(?<=</p>)'
)


def apart(html: str) -> str:
    """The same with a new line between blocks: Sphinx's search takes tags away without a space, and would index the
    last word of one and the first of the next as one word."""
    return BLOCKS.sub("\n", html)


def number(value: Any) -> str:
    """Three significant digits, never more than a reader can use."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else escape(str(value))
    if value != value:
        return "nan"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value)}".replace("-", "−")
    text = f"{value:.1e}" if abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−", 1) if value < 0 else text


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
    """A table in a box that scrolls. The roles keep it a table where a phone's style stacks its cells: it does so for
    all but short ones, and leaves out cells that say nothing ("–")."""

    def line(attributes: str, cells: list[str]) -> str:
        rest = "".join(
            f'<td role="cell" data-label="{escape(h, quote=True)}"{none if c == "–" else ""}><div>{c}</div></td>'
            for h, c in zip(plain[1:], cells[1:], strict=True)
        )
        return f'<tr role="row"{attributes}><th role="rowheader" scope="row">{cells[0]}</th>{rest}</tr>'

    none = ' class="none"'
    shape = "" if cls in ("results", "verdicts") else "stacked "
    plain = [
        h.split(">", 1)[-1].split("<")[0] if "verdict" not in h else h.rsplit("</span> ", 1)[-1].split("<")[0]
        for h in head
    ]
    cells = "".join(f'<th role="columnheader" scope="col">{h}</th>' for h in head)
    return apart(
        f'<div class="table-scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f'<table role="table" class="course-table {shape}{cls}"><caption>{caption}</caption>'
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
    text = f"{sign * (ours - base):+.3g}"
    if isinstance(interval, (list, tuple)) and len(interval) == 2 and None not in interval:
        text += f" [{number(interval[0])}, {number(interval[1])}]"
    margin = claim.get("margin")
    wanted = f"at least {margin:+g} wanted" if margin else "more than 0 wanted"
    return f'{text}<br><span class="quiet">{wanted}</span>'.replace("-", "−")


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
            if c.written and len(c.papers) < c.planned:
                papers = f"{len(c.papers)} of {papers}"
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
    return apart(f'<div class="course-parts">{"".join(out)}</div>')


def sample_html(course: Course, link: Link) -> str:
    """One claim of each verdict: of those that the plan names, else the first that was measured."""
    found = [(c, s, i, claim) for c, s, i, claim in course.claims("quick") if c.written and not is_exact(claim)]
    found.sort(key=lambda x: x[3].get("statement") not in course.samples)
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
    return apart(f'<div class="samples">{"".join(out)}</div>')


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
    return apart(
        f'<figure class="course-map"><svg viewBox="0 0 {width} {height:g}" role="group" '
        f'aria-labelledby="map-{part_slug}-t map-{part_slug}-d"><title id="map-{part_slug}-t">The chapters of '
        f'{escape(part.title)} and how they follow from each other</title><desc id="map-{part_slug}-d">{escape(said)}.'
        f'</desc><defs><marker id="arrow-{part_slug}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path class="arrow" d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{''.join(lines)}{''.join(boxes)}</svg><figcaption>Each chapter asks the question that the one before "
        f"leaves open. Solid boxes can be read now.</figcaption></figure>"
        f'<p>An order to read them in:</p><ol class="reading-order">{order}</ol>'
    )


def verdicts_html(course: Course, part_slug: str, link: Link) -> str:
    """One line a paper, chapter by chapter in reading order: its claims at quick scale as signs, each a link."""
    part = next((p for p in course.parts if p.slug == part_slug), None)
    chapters = {c.slug: c for c in part.chapters} if part else {}
    reading = (course.maps.get(part_slug) or {}).get("reading", chapters)
    rows: list[Row] = []
    for c in (chapters[s] for s in reading if s in chapters):
        if c.papers:
            chapter = f'<a href="{link(c.page)}">{escape(c.title)}</a>' if c.written else escape(c.title)
            rows.append((' class="chapter-row"', [f"<strong>{chapter}</strong>", ""]))
        for p in c.papers:
            numbered = [(i, x) for d, s, i, x in course.claims("quick") if d is c and x.get("paper") == p.key]
            signs = " ".join(
                f'<a class="plain" href="{link(EVIDENCE, anchor(c, "quick", i))}" title="{escape(x["statement"])}" '
                f'aria-label="{x["verdict"]}: {escape(x["statement"])}">{badge(x["verdict"], "")}</a>'
                for i, x in numbered
            )
            title = f'<a href="{link(c.page, p.key)}">{escape(p.title)}</a>' if c.written else escape(p.title)
            rows.append(("", [title, signs or '<span class="quiet">not measured</span>']))
    if not rows:
        return '<p class="quiet">No paper of this part has been worked through yet.</p>'
    caption = "One sign a claim: ✓ supported, ✗ contradicted, ~ inconclusive. Each leads to its numbers."
    return table(["Paper", "Claims"], rows, cls="verdicts", label="Verdicts by paper", caption=caption)


def results_html(course: Course, part_slug: str, link: Link) -> str:
    """The chapters' summaries one under the other, in reading order: each method between its floor and its ceiling."""
    part = next((p for p in course.parts if p.slug == part_slug), None)
    chapters = {c.slug: c for c in part.chapters} if part else {}
    rows: list[Row] = []
    for c in (chapters[s] for s in (course.maps.get(part_slug) or {}).get("reading", chapters) if s in chapters):
        found = c.results.get("quick", {}).get("summary")
        if not found:
            continue
        mean_of = {name: fmean(v) for name, v in found["rows"].items()}
        low, high = (mean_of.get(found.get(end)) for end in ("floor", "ceiling"))
        title = f'<a href="{link(c.page)}">{escape(c.title)}</a>' if c.written else escape(c.title)
        rows.append((' class="chapter-row"', [f"<strong>{title}</strong>", f"<em>{escape(found['measure'])}</em>", ""]))
        for name in sorted(mean_of, key=mean_of.get):
            each = found["rows"][name]
            spread = f" ± {number(stdev(each))}" if len(each) > 1 else ""
            way = (mean_of[name] - low) / (high - low) if None not in (low, high) and high != low else None
            end = {found.get("floor"): "0", found.get("ceiling"): "1"}.get(name)
            rows.append(("", [escape(name), number(mean_of[name]) + spread, _way(way, end)]))
    if not rows:
        return '<p class="quiet">No chapter of this part has a summary yet.</p>'
    caption = (
        "Means over the seeds. Share of the way: 0 is the same network untrained, 1 the same network taught with all "
        "labels. Data, networks and lengths of training are those of the chapter, so compare within a chapter."
    )
    head = ["Method", "Measured", "Share of the way"]
    return table(head, rows, cls="results", label="Methods by chapter", caption=caption)


def _way(way: float | None, end: str | None) -> str:
    """A share as a number and a small bar; below 0 there is no bar."""
    if way is None:
        return "–"
    width = 90 * min(1.0, max(0.0, way))
    bar = (
        f'<svg class="way" viewBox="0 0 92 10" width="92" height="10" aria-hidden="true" focusable="false">'
        f'<rect class="way-all" x="1" y="1" width="90" height="8"/><rect class="way-done" x="1" y="1" '
        f'width="{width:.1f}" height="8"/></svg>'
    )
    return f"{bar} {end or f'{way:.2f}'.replace('-', '−')}"


def _chapter_order(course: Course, chapter: Chapter) -> tuple[int, int]:
    """Parts as in the plan, chapters in the order to read them in."""
    for i, part in enumerate(course.parts):
        if part.slug == chapter.part:
            reading = (course.maps.get(part.slug) or {}).get("reading", [c.slug for c in part.chapters])
            return i, reading.index(chapter.slug) if chapter.slug in reading else len(reading)
    return len(course.parts), 0


def evidence_html(course: Course, link: Link) -> str:
    rows: dict[str, list[Row]] = {s: [] for s in SCALES}
    place = {(c.name, p.key): i for c in course.chapters() for i, p in enumerate(c.papers)}
    last: dict[str, Chapter] = {}

    def told(found: tuple[Chapter, str, int, dict]) -> tuple:
        """As the chapters' sections tell it; the numbers of the anchors stay those of the file."""
        c, s, i, claim = found
        return _chapter_order(course, c), s, place.get((c.name, claim.get("paper")), 99), i

    for c, s, i, claim in sorted(course.claims(), key=told):
        result, key = c.results[s], claim.get("paper", "")
        if last.get(s) is not c:
            last[s] = c
            name = f'<a href="{link(c.page)}">{escape(c.title)}</a>' if c.written else escape(c.title)
            rows[s].append((' class="chapter-row"', [f"<strong>{name}</strong>", *[""] * 5]))
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
                str(sum(1 for _ in course.claims(s))),
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
                    caption=f"{sum(1 for _ in course.claims(s))} claims, means over the seeds",
                )
            )
        else:
            out.append(
                f'<h2 id="evidence-{s}">{heads[s]}</h2><p class="quiet">Nothing has been measured at '
                f"this scale yet.</p>"
            )
    return apart("".join(out))


def failures_html(course: Course, link: Link, count: int = 8) -> str:
    """The contradicted claims that fell furthest short: the most telling paper by paper, in standard errors."""
    found = {}
    for c, s, i, x in course.claims("quick"):
        interval, margin = x.get("interval"), x.get("margin")
        if x.get("verdict") != "contradicted" or is_exact(x) or not interval or interval[0] == interval[1]:
            continue
        if interval[1] >= min(0.0, margin):  # a gain smaller than wanted is no contradiction to tell of
            continue
        middle, half = fmean(interval), (interval[1] - interval[0]) / 2
        short, key = (margin - middle) / half, x.get("paper")
        if short > found.get(key, (0.0,))[0]:
            found[key] = (short, c, s, i, x)
    rows: list[Row] = []
    for _, c, s, i, x in sorted(found.values(), key=lambda row: -row[0])[:count]:
        paper = next((p.title for p in c.papers if p.key == x["paper"]), x["paper"])
        title = f'<a href="{link(c.page, x["paper"])}">{escape(paper)}</a>' if c.written else escape(paper)
        said = f'<a href="{link(EVIDENCE, anchor(c, s, i))}">{escape(x["statement"])}</a>'
        arms = f"{number(mean(x, 'ours'))} against {number(mean(x, 'baseline'))}"
        rows.append(("", [f'{said}<span class="idea">{title}</span>', arms, f"{difference(x)}{strip(x)}"]))
    if not rows:
        return '<p class="quiet">No claim has been contradicted yet.</p>'
    head, caption = ["Claim", "Ours against baseline", "Difference"], "At most one a paper, the clearest first"
    return table(head, rows, cls="failures", label="Contradicted claims", caption=caption)


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
            caption="Time of the run that wrote the results: processor time on a CPU (one thread), wall clock on a GPU",
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
