"""Papers in the book: the index, the strip under each section's heading, and what builds on what."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from html import escape

from course_claims import shows_html
from course_data import SCALES, VERDICTS, Chapter, Course, Paper
from course_html import SIGNS, Link, Row, apart, count, evidence, signs, table, tally, titled

from labcode.course.cards import search_link

INDEX = "book/papers"
Code = Callable[[Chapter, str], str | None]


def papers_html(course: Course, link: Link, code: Code) -> str:
    """A line a paper, part by part: what else is known of it is folded into the line."""
    rows: list[Row] = []
    kinds, parts = set(), {}
    for part in course.parts:
        papers = [(c, p) for c in part.chapters for p in c.papers]
        if papers:
            parts[part.slug] = part.title
            head = f'{escape(part.title)} <span class="quiet">{count(len(papers), "paper")}</span>'
            rows.append((f' class="part-row" id="papers-{part.slug}"', [head, "", "", ""]))
        for c, p in papers:
            kinds.add(p.kind)
            claims = c.settled(p.key)
            verdicts = [v for v in VERDICTS if any(x.get("verdict") == v for x in claims)]
            rows.append(
                (
                    f' id="paper-{p.key}" data-part="{part.slug}" data-kind="{escape(p.kind)}" '
                    f'data-verdicts="{" ".join(verdicts) or "none"}"',
                    [
                        _named(c, p, link, code),
                        titled(c, link),
                        escape(p.kind) or "–",
                        _result(course, c, p.key, link, signs(claims)) or '<span class="quiet">not measured</span>',
                    ],
                )
            )
    total = sum(c.planned for c in course.chapters())
    if not rows:
        return f'<p class="quiet">None of the {total} planned papers has a card yet.</p>'
    worked = len(rows) - len(parts)

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
    return apart(
        f'<div class="paper-index">{form}<p class="paper-count" role="status">{count(worked, "paper")}</p>'
        + table(
            ["Paper", "Chapter", "Kind", "Result"],
            rows,
            cls="papers",
            label="Papers of the course",
            caption=f"{worked} of the {total} planned papers have been worked through. Open a line for idea and code. "
            f"Results count claims: {', '.join(f'{SIGNS[v]} {v}' for v in VERDICTS)}.",
        )
        + "</div>"
    )


def _named(chapter: Chapter, paper: Paper, link: Link, code: Code) -> str:
    """A paper's short name and title, and what is folded behind them."""
    short = "" if paper.title.startswith(paper.name) else f'<span class="short">{escape(paper.name)}</span> '
    title = f'<span class="title">{escape(paper.title)}</span>'
    if chapter.written:
        title = f'<a class="title" href="{link(chapter.page, paper.key)}">{escape(paper.title)}</a>'
    symbols = _symbols(chapter, paper, code)
    more = f'<p class="idea">{escape(paper.idea)}</p>' + (f"<p>Code: {symbols}</p>" if symbols else "")
    mark = f'<summary><span class="sr-only">More about {escape(paper.name)}</span></summary>'
    return f'<div class="line">{short}{title}</div><details>{mark}{more}</details>'


def _result(course: Course, chapter: Chapter, key: str, link: Link, text: str) -> str:
    """What a paper's claims came to, as a link to its first row of evidence; nothing if nothing was measured."""
    for scale in SCALES:
        for i, claim in enumerate(chapter.claims(scale)):
            if claim.get("paper") == key:
                return f'<a class="plain" href="{evidence(chapter, scale, i, link)}">{text}</a>'
    return ""


def _symbols(chapter: Chapter, paper: Paper, code: Code) -> str:
    named = [(code(chapter, s), f"<code>{escape(s)}</code>") for s in paper.code]
    return ", ".join(f'<a href="{href}">{text}</a>' if href else text for href, text in named)


def section_html(course: Course, chapter: Chapter, paper: Paper, link: Link, code: Code, titles: dict[str, str]) -> str:
    """What stands under the heading of a paper's section: its title, and the ways to result, code, exercises and card.

    titles  of the page's exercises by label
    """
    told = _result(course, chapter, paper.key, link, tally(chapter.settled(paper.key)))
    result = told or '<span class="quiet">not measured yet</span>'
    needs = [(key, course.paper(key)) for key in paper.needs]
    before = [f'<a href="{link(w[0].page, key)}">{escape(w[1].name)}</a>' for key, w in needs if w]
    own = [f'<a href="#{label}">{escape(titles[label])}</a>' for label in paper.exercises if label in titles]
    facts = {
        "Result": result,
        "Code": _symbols(chapter, paper, code),
        "Builds on": ", ".join(before),
        "Exercises": ", ".join(own) or ('<a href="#exercises">those of the chapter</a>' if titles else ""),
    }
    said = {"Idea": paper.idea, "The paper reports": paper.reported, "Different here": paper.differs}
    card = _terms({name: escape(text) for name, text in said.items()})
    index = f'<a href="{link(INDEX, f"paper-{paper.key}")}">In the index of papers</a>'
    return apart(
        f'<aside class="paper-strip" aria-label="About the paper"><p><a href="{escape(search_link(paper.title))}">'
        f"{escape(paper.title)}</a></p>{_terms(facts)}<details><summary>The paper's card</summary>"
        f"{card}<p>{index}</p></details>{shows_html(chapter, paper)}</aside>"
    )


def _terms(facts: dict[str, str]) -> str:
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{text}</dd></div>' for name, text in facts.items() if text)}</dl>"


def prerequisites_html(course: Course, link: Link) -> str:
    """What builds on what, from the cards: a picture of the written chapters, and the papers behind each arrow."""
    needs = {a: {b: keys for b, keys in of.items()} for a, of in course.needs().items()}
    chapters = {c.name: c for c in course.chapters() if c.papers}
    if not chapters:
        return '<p class="quiet">No paper has a card yet.</p>'
    level: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in level:
            level[name] = 1 + max((depth(b) for b in needs.get(name, ())), default=-1)
        return level[name]

    columns: list[list[Chapter]] = [[] for _ in range(1 + max(map(depth, chapters)))]
    for c in chapters.values():
        columns[depth(c.name)].append(c)
    w, h, gap, row = 160, 50, 44, 62
    height = row * max(map(len, columns)) + 8
    place = {
        c.name: (4 + (w + gap) * x, height / 2 + row * (y - len(column) / 2) + (row - h) / 2)
        for x, column in enumerate(columns)
        for y, c in enumerate(column)
    }
    lines, boxes, rows = [], [], []
    for name, of in needs.items():
        for before in of:
            (xa, ya), (xb, yb) = place[before], place[name]
            x1, y1, x2, y2 = xa + w, ya + h / 2, xb - 3, yb + h / 2
            lines.append(
                f'<path class="edge" d="M{x1:g} {y1:g} C{x1 + gap / 2:g} {y1:g} {x2 - gap / 2:g} {y2:g} {x2:g} {y2:g}" '
                f'marker-end="url(#arrow-needs)"/>'
            )
    for name, (x, y) in place.items():
        c = chapters[name]
        pieces = textwrap.wrap(c.title, 15)
        words = "".join(
            f'<tspan x="{x + w / 2:g}" y="{y + h / 2 + 5 + 18 * (i - (len(pieces) - 1) / 2):g}">{escape(part)}</tspan>'
            for i, part in enumerate(pieces)
        )
        text = (
            f'<rect x="{x:g}" y="{y:g}" width="{w}" height="{h}" rx="8"/><text class="node-title">{words}</text>'
        )
        named = f'<a href="{link(c.page)}" aria-label="{escape(c.title)}" class="node is-written">{text}</a>'
        boxes.append(named if c.written else text)
    for name, c in chapters.items():
        of = needs.get(name, {})
        before = "; ".join(
            f"{escape(chapters[b].title)}: " + ", ".join(
                f'<a href="{link(chapters[b].page, k)}">{escape(course.paper(k)[1].name)}</a>' for k in keys
            )
            for b, keys in of.items()
        )  # fmt: skip
        alone = [p for p in c.papers if not p.needs]
        free = ", ".join(f'<a href="{link(c.page, p.key)}">{escape(p.name)}</a>' for p in alone)
        title = titled(c, link)
        rows.append(("", [title, before or "nothing", free or "–"]))
    said = "; ".join(f"{chapters[a].title} builds on {chapters[b].title}" for a, of in needs.items() for b in of)
    width = (w + gap) * len(columns) - gap + 8
    return apart(
        f'<figure class="course-map needs"><svg viewBox="0 0 {width} {height:g}" '
        f'style="max-width: {1.1 * width:.0f}px; min-width: {0.8 * width:.0f}px" '
        f'role="group" aria-labelledby="needs-t needs-d"><title id="needs-t">Which chapter builds on which</title>'
        f'<desc id="needs-d">{escape(said)}.</desc><defs><marker id="arrow-needs" viewBox="0 0 8 8" refX="7" refY="4" '
        f'markerWidth="7" markerHeight="7" orient="auto"><path class="arrow" d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{''.join(lines)}{''.join(boxes)}</svg></figure>"
        + table(
            ["Chapter", "Builds on these sections", "Its sections that need no other"],
            rows, cls="needs", label="What each chapter builds on", caption="From the papers' cards",
        )
    )  # fmt: skip
