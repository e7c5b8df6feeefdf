"""The parts of the course: all of them on the first page; a part's map, its verdicts and its results on its own."""

from __future__ import annotations

from html import escape
from statistics import fmean, stdev

from course_data import VERDICTS, Course
from course_html import (
    SIGNS,
    Link,
    Row,
    apart,
    badge,
    count,
    duration,
    evidence,
    is_exact,
    mean,
    number,
    seeds,
    strip,
    table,
    tally,
    titled,
)


def parts_html(course: Course, link: Link) -> str:
    if not course.parts:
        return '<p class="quiet">The plan is empty.</p>'
    out = []
    for part in course.parts:
        written, chapters = sum(c.written for c in part.chapters), count(len(part.chapters), "chapter")
        total, cards = sum(c.planned for c in part.chapters), sum(len(c.papers) for c in part.chapters)
        state = f"{chapters} and {total} papers planned"
        if written:
            state = f"{written} of {chapters} · {cards} of {total} papers"
        name = escape(part.title)
        if part.written:
            name = f'<a href="{link(part.page)}">{name}</a>'
        entries = []
        for c in part.chapters:
            papers = f"{c.planned} paper{'s' * (c.planned != 1)}"
            if c.written and len(c.papers) < c.planned:
                papers = f"{len(c.papers)} of {papers}"
            if c.written:
                seconds = c.results.get("quick", {}).get("seconds")
                n = seeds({}, c.results.get("quick")) or 1
                time = f" · about {duration(seconds / n)} to run" if seconds else ""
                verdicts = tally(c.claims("quick") or c.claims()) or '<span class="quiet">not measured yet</span>'
                entries.append(
                    f'<li class="chapter is-written"><a href="{link(c.page)}"><span class="chapter-title">'
                    f'{escape(c.title)}</span></a><p>{escape(c.line)}</p><p class="chapter-foot"><span class="quiet">'
                    f"{papers}{time}</span> {verdicts}</p></li>"
                )
            else:
                entries.append(
                    f'<li class="chapter is-planned"><span class="chapter-title">{escape(c.title)}</span>'
                    f' <span class="quiet">· {papers}<span class="sr-only">, not written yet</span></span>'
                    "</li>"
                )
        out.append(
            f'<section class="part{" has-chapters" if written else ""}" aria-labelledby="part-{part.slug}">'
            f'<div class="part-head"><h3 id="part-{part.slug}">{name}</h3>'
            f'<span class="quiet">{state}</span></div>'
            f'<p class="part-line">{escape(part.line)}</p><ul class="chapters">{"".join(entries)}</ul></section>'
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
                    f'<a href="{evidence(c, s, i, link)}">evidence</a></figcaption></figure>'
                )
                break
    if not out:
        return '<p class="quiet">Nothing has been measured yet: run <code>make notebooks</code>.</p>'
    return apart(f'<div class="samples">{"".join(out)}</div>')


_LATER = ' <span class="quiet">(not written yet)</span>'


def map_html(course: Course, part_slug: str, link: Link) -> str:
    part = next((p for p in course.parts if p.slug == part_slug), None)
    plan = course.maps.get(part_slug) or {}
    if part is None:
        return '<p class="quiet">There is no such part.</p>'
    chapters = {c.slug: c for c in part.chapters}
    order = "".join(
        f"<li>{titled(c, link)}{'' if c.written else _LATER}: {escape(c.line)}</li>"
        for c in (chapters[s] for s in plan.get("reading", chapters) if s in chapters)
    )
    if not plan.get("nodes"):
        return apart(f'<ol class="reading-order">{order}</ol>')
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
            chapter = titled(c, link)
            rows.append((' class="chapter-row"', [f"<strong>{chapter}</strong>", ""]))
        for p in c.papers:
            numbered = [(i, x) for d, s, i, x in course.claims("quick") if d is c and x.get("paper") == p.key]
            signs = " ".join(
                f'<a class="plain" href="{evidence(c, "quick", i, link)}" title="{escape(x["statement"])}" '
                f'aria-label="{x["verdict"]}: {escape(x["statement"])}">{badge(x["verdict"], "")}</a>'
                for i, x in numbered
            )
            title = f'<a href="{link(c.page, p.key)}">{escape(p.title)}</a>' if c.written else escape(p.title)
            rows.append(("", [title, signs or '<span class="quiet">not measured</span>']))
    if not rows:
        return '<p class="quiet">No paper of this part has been worked through yet.</p>'
    signs = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items())
    caption = f"One sign a claim: {escape(signs)}. Each leads to its numbers."
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
        title = titled(c, link)
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
