"""A verdict as a line that is drawn: the interval, the margin and zero, every seed a dot, the numbers beside it."""

import statistics
from html import escape

from .judging import SCALES

WIDTH, HEIGHT = 220, 26
OPEN = "#7a7f87"
# legible on a light and on a dark page
COLOURS = dict(supported="#2f9e6e", smaller="#b08a1e", reversed="#d9534f", inconclusive=OPEN, untaught=OPEN)


def block(records: dict) -> str:
    """One statement as HTML: what is claimed, and for each scale that measured it the verdict, drawn, with its numbers.

    records  the ledger's, by scale, in the order in which they are shown
    """
    statement = escape(next(iter(records.values())).statement)
    lines = "".join(_line(scale, record) for scale, record in records.items())
    return f'<div class="claim"><p class="claim-statement">{statement}</p>{lines}</div>'


def _line(scale: str, record) -> str:
    verdict = f'<b class="verdict verdict-{record.verdict}">{record.verdict}</b>'
    picture = svg(record) if record.kind == "claim" else ""
    numbers = f'<small class="claim-numbers">{escape(record.evidence())}</small>'
    return f'<p class="claim-line"><span class="claim-scale">{scale}</span> {verdict} {picture} {numbers}</p>'


def svg(record) -> str:
    """The paired differences of a claim: a thick line for the interval, dots for seeds, a solid tick at the margin, a
    dashed one at zero. To the right is better for ours.
    """
    values = record.differences
    low, high = record.interval or (min(values), max(values))
    least, most = min([0, record.margin, low, *values]), max([0, record.margin, high, *values])
    room = 0.06 * ((most - least) or 1)

    def x(value: float) -> float:
        return round(4 + (WIDTH - 8) * (value - least + room) / (most - least + 2 * room), 1)

    middle, colour = HEIGHT / 2, COLOURS[record.verdict]
    dots = "".join(f'<circle cx="{x(v)}" cy="{middle}" r="2.2"/>' for v in values)
    told = f"difference {low:+.3g} to {high:+.3g}, margin {record.margin:+g}"
    return (
        f'<svg class="claim-drawn" role="img" aria-label="{told}" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" style="vertical-align: middle; max-width: 100%">'
        f'<g stroke="currentColor" fill="none"><path d="M2 {middle}H{WIDTH - 2}" opacity=".25"/>'
        f'<path d="M{x(0)} 3V{HEIGHT - 3}" stroke-dasharray="2 2"/><path d="M{x(record.margin)} 2V{HEIGHT - 2}"/></g>'
        f'<path d="M{x(low)} {middle}H{x(high)}" stroke="{colour}" stroke-width="5" stroke-linecap="round"/>'
        f'<g fill="currentColor">{dots}</g></svg>'
    )


def carry_over(papers: list[tuple[str, str, str]], records: dict[str, list]) -> str:
    """What carries over, as an HTML table: a row a claim, its verdict at each scale, under what each paper reports.

    papers   (key, short name, what it reports)
    records  lists of the ledger's, by scale
    """
    scales = [*records, *(s for s in SCALES if s not in records)]
    head = "".join(f'<th scope="col">{scale}</th>' for scale in scales)
    rows = []
    for key, name, reported in papers:
        told = f'<a href="#{key}">{escape(name)}</a> <small>{escape(" ".join(reported.split()))}</small>'
        rows.append(f'<tr class="carry-paper"><th scope="colgroup" colspan="{1 + len(scales)}">{told}</th></tr>')
        statements = dict.fromkeys(r.statement for found in records.values() for r in found if r.paper == key)
        for statement in statements:
            same = ([r for r in records.get(s, ()) if (r.paper, r.statement) == (key, statement)] for s in scales)
            cells = "".join(f"<td>{_word(found[0] if found else None)}</td>" for found in same)
            rows.append(f'<tr><th scope="row">{escape(statement)}</th>{cells}</tr>')
    head = f'<thead><tr><th scope="col">claim</th>{head}</tr></thead>'
    return f'<table class="carry-over">{head}<tbody>{"".join(rows)}</tbody></table>'


def _word(record) -> str:
    if record is None:
        return '<span class="quiet" title="not measured">–</span>'
    size = f"{statistics.fmean(record.differences):+.3g}" if record.kind == "claim" else f"{record.value:.3g}"
    return f'<b class="verdict verdict-{record.verdict}">{record.verdict}</b> <small>{size}</small>'
