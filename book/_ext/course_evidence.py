"""The ledger as pages: a summary with the clearest failures, every claim part by part, and the machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from html import escape
from statistics import fmean

from course_claims import broken_html, shown
from course_data import SCALES, VERDICTS, Chapter, Course, Part
from course_html import (
    EVIDENCE,
    Link,
    Row,
    anchor,
    apart,
    badge,
    count,
    difference,
    duration,
    evidence,
    is_exact,
    mean,
    number,
    seeds,
    strip,
    table,
    titled,
    values,
)

HEADS = {"quick": "Quick scale", "long": "Long scale", "full": "Full scale"}


def evidence_html(course: Course, link: Link) -> str:
    """The summary: verdicts by scale, and part by part with the way to every claim."""
    claims = {s: [x for *_, x in course.claims(s)] for s in SCALES}
    if not any(claims.values()):
        return '<p class="quiet">The ledger is empty: nothing has been measured yet.</p>'

    def counts(found: list[dict]) -> list[str]:
        return [*(str(sum(x.get("verdict") == v for x in found) or "–") for v in VERDICTS), str(len(found))]

    words = [badge(v) for v in VERDICTS]
    scales: list[Row] = [("", [HEADS[s], *counts(found)]) for s, found in claims.items() if found]
    parts: list[Row] = []
    for part in course.parts:
        settled = [x for c in part.chapters for x in c.settled()]
        if settled:
            name = f'<a href="{link(f"{EVIDENCE}/{part.slug}")}">{escape(part.title)}</a>'
            papers = len({(c.name, x.get("paper")) for c in part.chapters for x in c.settled()})
            parts.append(("", [name, str(papers), *counts(settled)]))
    return apart(
        table(["Scale", *words, "Claims"], scales, cls="summary", label="Verdicts by scale", caption="By scale")
        + table(
            ["Part", "Papers", *words, "Claims"],
            parts,
            cls="summary",
            label="Verdicts by part",
            caption="Each claim at the longest scale that measured it. A part leads to all its claims.",
        )
    )


def evidence_pages(course: Course) -> Iterator[tuple[str, str, Callable[[Link], str]]]:
    """Address, title and contents of the page of every part with a claim."""
    for part in course.parts:
        if any(c.claims() for c in part.chapters):
            yield (
                f"{EVIDENCE}/{part.slug}",
                f"Evidence: {part.title}",
                lambda link, part=part: part_evidence_html(course, part, link),
            )


def part_evidence_html(course: Course, part: Part, link: Link) -> str:
    """Every claim of a part, scale by scale, as the chapters' sections tell them; anchors keep the file's numbers."""
    reading = (course.maps.get(part.slug) or {}).get("reading", [])
    chapters = sorted(part.chapters, key=lambda c: reading.index(c.slug) if c.slug in reading else len(reading))
    out = [f'<p><a href="{link(EVIDENCE)}">How to read these figures, and the other parts</a></p>']
    done, reach = map(sum, zip(*(shown(c, c.papers) for c in chapters), strict=True)) if chapters else (0, 0)
    if reach:
        out.append(f"<p>The papers show {reach} things that are within reach: {done} are answered here.</p>")
    out.append(broken_html(course.root, chapters))
    for s in SCALES:
        rows: list[Row] = []
        for c in chapters:
            numbered = list(enumerate(c.claims(s)))
            place = {p.key: i for i, p in enumerate(c.papers)}
            numbered.sort(key=lambda x: place.get(x[1].get("paper"), len(place)))
            if numbered:
                rows.append((' class="chapter-row"', [f"<strong>{titled(c, link)}</strong>", *[""] * 5]))
            rows += [_claim(c, s, i, claim, link) for i, claim in numbered]
        if rows:
            n = sum(len(c.claims(s)) for c in chapters)
            out.append(
                f'<h2 id="evidence-{s}">{HEADS[s]}</h2>'
                + table(
                    ["Claim", "Ours", "Baseline", "Difference", "Seeds", "Verdict"],
                    rows,
                    cls="evidence",
                    label=f"Claims at {s} scale",
                    caption=f"{count(n, 'claim')}, means over the seeds",
                )
            )
    return apart("".join(out))


def _claim(chapter: Chapter, scale: str, i: int, claim: dict, link: Link) -> Row:
    result, key = chapter.results[scale], claim.get("paper", "")
    paper = escape(next((p.title for p in chapter.papers if p.key == key), key))
    title = f'<a href="{link(chapter.page, key)}">{paper}</a>' if chapter.written else paper
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
    return (
        f' id="{anchor(chapter, scale, i)}"',
        [
            f'{escape(claim.get("statement", ""))}<span class="idea">{title}</span>'
            f"<details><summary>where it comes from</summary><dl>{facts}</dl></details>",
            number(mean(claim, "ours")),
            number(mean(claim, "baseline")),
            f"{difference(claim)}{strip(claim)}",
            str(seeds(claim, result) or "–"),
            badge(claim.get("verdict", "–")),
        ],
    )


def failures_html(course: Course, link: Link, most: int = 8) -> str:
    """The reversed claims that lie furthest on the other side: the most telling paper by paper, in standard errors."""
    found = {}
    for c, s, i, x in course.claims("quick"):
        interval, margin = x.get("interval"), x.get("margin")
        if x.get("verdict") != "reversed" or is_exact(x) or not interval or interval[0] == interval[1]:
            continue
        middle, half = fmean(interval), (interval[1] - interval[0]) / 2
        short, key = (margin - middle) / half, x.get("paper")
        if short > found.get(key, (0.0,))[0]:
            found[key] = (short, c, s, i, x)
    rows: list[Row] = []
    for _, c, s, i, x in sorted(found.values(), key=lambda row: -row[0])[:most]:
        paper = next((p.title for p in c.papers if p.key == x["paper"]), x["paper"])
        title = f'<a href="{link(c.page, x["paper"])}">{escape(paper)}</a>' if c.written else escape(paper)
        said = f'<a href="{evidence(c, s, i, link)}">{escape(x["statement"])}</a>'
        arms = f"{number(mean(x, 'ours'))} against {number(mean(x, 'baseline'))}"
        rows.append(("", [f'{said}<span class="idea">{title}</span>', arms, f"{difference(x)}{strip(x)}"]))
    if not rows:
        return '<p class="quiet">No claim has come out reversed yet.</p>'
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
            title = titled(c, link)
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
