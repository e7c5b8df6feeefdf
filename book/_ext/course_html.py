"""The pieces of HTML that the book's generated blocks are made of: numbers, verdicts, tables, intervals."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from statistics import fmean
from typing import Any

from course_data import VERDICTS, Chapter

SIGNS = {"supported": "✓", "smaller": "<", "reversed": "✗", "inconclusive": "~", "untaught": "○"}
EVIDENCE = "book/evidence"
Link = Callable[..., str]
BLOCKS = re.compile(
    r"(?=<(?:blockquote|br|button|caption|dd|details|desc|div|dt|figcaption|figure|h[1-6]|label|li|ol|option|p|section|"
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
    v = verdict if verdict in SIGNS else "none"
    sign = f'<span aria-hidden="true">{SIGNS[v]}</span> ' if v in SIGNS else ""
    return f'<span class="verdict verdict-{v}">{sign}{escape(verdict if text is None else text)}</span>'


def tally(claims: list[dict]) -> str:
    """Verdict counts as badges; the words are there for those who do not see colours."""
    counted = [(v, sum(c.get("verdict") == v for c in claims)) for v in VERDICTS]
    return " ".join(badge(v, f"{n} {v}") for v, n in counted if n)


def signs(claims: list[dict]) -> str:
    """Verdict counts, short: a sign and a number for the eye, the word for who hears the page."""
    counted = [(v, sum(c.get("verdict") == v for c in claims)) for v in VERDICTS]
    return " ".join(
        f'<span class="verdict verdict-{v}" title="{n} {v}"><span aria-hidden="true">{SIGNS[v]}&#8239;{n}</span>'
        f'<span class="sr-only">{n} {v}</span></span>'
        for v, n in counted
        if n
    )


def anchor(chapter: Chapter, scale: str, i: int) -> str:
    return f"claim-{scale}-{chapter.part}-{chapter.slug}-{i + 1}".replace("_", "-")


def evidence(chapter: Chapter, scale: str, i: int, link: Link) -> str:
    """The address of a claim's row on its part's page of evidence."""
    return link(f"{EVIDENCE}/{chapter.part}", anchor(chapter, scale, i))


def titled(chapter: Chapter, link: Link) -> str:
    """A chapter's title, linked once it is written."""
    return f'<a href="{link(chapter.page)}">{escape(chapter.title)}</a>' if chapter.written else escape(chapter.title)


def count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


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
        f'<line class="limit" x1="{x(margin)}" x2="{x(margin)}" y1="2" y2="16"/>'
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
