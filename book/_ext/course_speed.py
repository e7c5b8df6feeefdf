"""Speed and full size: what ``make bench``, ``labcode.throughput`` and ``labcode.leaderboard`` write, as tables."""

from __future__ import annotations

import json
import math
from html import escape
from statistics import fmean, stdev
from typing import Any

import yaml
from course_data import Course
from course_html import Link, Row, duration, table

LINES = ("", "7 4", "2 3")  # dashes of labcode, of the first peer, of the second


def speed_html(course: Course) -> str:
    file = course.root / "book" / "results" / "bench.json"
    if not file.exists():
        return '<p class="quiet">Nothing has been measured yet: <code>make bench</code> does.</p>'
    found = json.loads(file.read_text(encoding="utf-8"))
    return "".join(
        (about_html(found), times_html(found["speed"]), scaling_html(found["scaling"]), memory_html(found["memory"]),
         processes_html(found["processes"]))
    )  # fmt: skip


def training_html(course: Course) -> str:
    """Whole training steps at full size, from ``book/results/throughput.json``."""
    file = course.root / "book" / "results" / "throughput.json"
    if not file.exists():
        return '<p class="quiet">Not measured yet: no GPU has been at hand.</p>'
    found = json.loads(file.read_text(encoding="utf-8"))
    lines: list[Row] = []
    for way, w in found["ways"].items():
        if "error" in w:
            lines.append(("", [escape(way), "–", "–", escape(w["error"])]))
        else:
            parts = ", ".join(f"{escape(name)} {100 * share:.0f} %" for name, share in w["parts"].items())
            peak = f"{100 * w['share_of_peak']:.0f} %"
            lines.append(("", [escape(way), f"{w['views_per_second']:,.0f}", peak, parts]))
    for name, rate in found["views_per_second"].items():
        if name != "labcode":
            lines.append(("", [f"{escape(name)}, its own recipe", f"{rate:,.0f}", "–", "–"]))
    caption = (
        f"{escape(found['method'])}, {escape(found['net'])}, batch {found['batch']}, {found['side']}×{found['side']}, "
        f"{escape(found['precision'])}, on {escape(found['device'])}, whose matrix product reaches "
        f"{found['peak_tflops']:g} TFLOP/s; {escape(found['date'])}, commit {escape(found['commit'])}"
    )
    head = ["Way", "Views a second", "Of the peak", "Where a step's time goes"]
    return table(head, lines, cls="training", caption=caption, label="Training speed")


def leaderboard_html(course: Course, link: Link) -> str:
    """Methods at full size beside published figures: ``book/leaderboard.yml`` and ``book/results/leaderboard.json``."""
    listed, file = course.root / "book" / "leaderboard.yml", course.root / "book" / "results" / "leaderboard.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    lines: list[Row] = []
    for entry in yaml.safe_load(listed.read_text(encoding="utf-8")) if listed.exists() else ():
        mine = [row for row in found if row["method"] == entry["method"]]
        title, key = escape(entry["title"]), entry.get("paper", "")
        where = course.paper(key)
        title = f'<a href="{link(where[0].page, key)}">{title}</a>' if where else title
        origin = sorted({f"{row['device']}, {row['date']}, commit {row['commit'][:10]}; {row['data']}" for row in mine})
        if origin:
            title += f"<details><summary>where it comes from</summary>{escape(' · '.join(origin))}</details>"
        said = [
            f'{row[what]:.3f} {word} <span class="quiet">({escape(row["source"])})</span>'
            for row in entry.get("published", ())
            for what, word in (("knn", "kNN"), ("probe", "probe"))
            if what in row
        ]
        minutes = [row["seconds"] / 60 for row in mine if row["seconds"]]
        took = f"{fmean(minutes):.1f}" if minutes else "–"
        knn, probe = (_figure([row[what] for row in mine]) for what in ("knn", "probe"))
        lines.append(("", [title, knn, probe, str(len(mine) or "–"), took, "<br>".join(said) or "–"]))
    if not lines:
        return '<p class="quiet">No method is listed.</p>'
    told = "Test accuracy, mean ± standard deviation over seeds" if found else "Not measured: no GPU has been at hand"
    head = ["Method", "kNN", "Linear probe", "Seeds", "Minutes", "Published"]
    return table(head, lines, cls="leaderboard", caption=told, label="Methods at full size")


def _figure(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def time(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def about_html(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{escape(k)} {escape(v)}" for k, v in found["versions"].items())
    missing = f" Not installed: {escape(', '.join(found['missing']))}." if found["missing"] else ""
    return (
        f'<p class="quiet">{escape(found["device"])}, {found["threads"]} thread, {escape(found["date"])}, commit '
        f"{escape(found['commit'])}, {duration(found['seconds'])} for all of it. {versions}.{missing}</p>"
    )


def times_html(rows: list[dict]) -> str:
    lines: list[Row] = []
    for row in rows:
        times = dict(row["milliseconds"])
        ours = times.pop("labcode")
        ratio = ours / min(times.values()) if times else None
        peers = "<br>".join(f"{escape(name)} {time(ms)}" for name, ms in times.items())
        met = "–" if ratio is None else f"{ratio:.2f}&nbsp;{'✓' if round(ratio, 2) <= row['aim'] else '✗'}"
        lines.append(("", [escape(row["work"]), time(ours), peers or "–", met, f"≤&nbsp;{row['aim']:g}"]))
    caption = "Milliseconds of processor time, medians; the ratio is to the best peer, less is faster. ✓ the aim is met"
    head = ["Work", "labcode", "Peers", "Ratio", "Aim"]
    return '<h2 id="speed-times">Time</h2>' + table(head, lines, cls="speed", caption=caption, label="Times by work")


def scaling_html(rows: list[dict]) -> str:
    panels = "".join(panel(row) for row in rows)
    lines: list[Row] = [
        ("", [escape(row["work"]), row["axis"], f"{row['sizes'][0]} … {row['sizes'][-1]}",
              ", ".join(f"{escape(name)} {slope:.2f}" for name, slope in row["slope"].items())])
        for row in rows
    ]  # fmt: skip
    caption = "Least-squares slopes of log time over log size: 1 is linear, 2 is quadratic"
    return (
        '<h2 id="speed-scaling">How it scales</h2>'
        f'<figure class="speed-scaling">{panels}<figcaption>Time over size, both logarithmic: labcode solid, peers '
        "dashed.</figcaption></figure>"
        + table(["Work", "Size", "Range", "Slopes"], lines, cls="slopes", caption=caption, label="Slopes")
    )


def panel(row: dict) -> str:
    """Time over size as a small log-log picture."""
    width, height, left, right, top, bottom = 320, 220, 46, 74, 26, 36
    times = row["milliseconds"]
    low, high = (f(t for each in times.values() for t in each) for f in (min, max))
    low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
    first, last = row["sizes"][0], row["sizes"][-1]

    def x(size: float) -> float:
        return left + (width - left - right) * math.log(size / first) / math.log(last / first)

    def y(ms: float) -> float:
        return height - bottom - (height - top - bottom) * math.log(ms / low) / math.log(high / low)

    decades = [10**e for e in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    grid = "".join(
        f'<path class="grid" d="M{left} {y(d):.1f}H{width - right}"/>'
        f'<text x="{left - 6}" y="{y(d) + 4:.1f}" text-anchor="end">{d:g}</text>'
        for d in decades
    )
    ticks = "".join(
        f'<text x="{x(s):.1f}" y="{height - bottom + 15}" text-anchor="middle">{s}</text>' for s in row["sizes"]
    )
    curves, ends = "", []
    for dash, (name, each) in zip(LINES, times.items(), strict=False):
        points = " ".join(f"{x(s):.1f},{y(t):.1f}" for s, t in zip(row["sizes"], each, strict=True))
        curves += f'<polyline points="{points}" stroke-dasharray="{dash}"/>'
        ends.append((y(each[-1]), "labcode" if name == "labcode" else name))
    ends.sort()
    for i, (at, name) in enumerate(ends):  # names that would lie on one another move apart
        at = max(at, ends[i - 1][0] + 14) if i else at
        ends[i] = (at, name)
        curves += f'<text x="{width - right + 6}" y="{at + 4:.1f}">{escape(name)}</text>'
    said = "; ".join(f"{name} from {time(t[0])} to {time(t[-1])} ms" for name, t in times.items())
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(row["work"])}, {row["axis"]} from {first} '
        f'to {last}: {escape(said, quote=True)}"><text class="head" x="{left}" y="14">{escape(row["work"])}</text>'
        f'{grid}{ticks}<text x="{(left + width - right) / 2}" y="{height - 4}" text-anchor="middle">{row["axis"]}'
        f'</text><text x="10" y="{(top + height - bottom) / 2}" text-anchor="middle" transform="rotate(-90 10 '
        f'{(top + height - bottom) / 2})">ms</text>{curves}</svg>'
    )


def memory_html(rows: list[dict]) -> str:
    lines: list[Row] = []
    for row in rows:
        found = dict(row["megabytes"])
        ours = found.pop("labcode")
        peers = "<br>".join(f"{escape(name)} {mb:.0f}" for name, mb in found.items())
        lines.append(("", [escape(row["work"]), f"{ours:.0f}", peers or "–"]))
    caption = "Peak memory in MB above the inputs, forward and backward, of a process that does nothing else"
    head = ["Loss", "labcode", "Peers"]
    return '<h2 id="speed-memory">Memory</h2>' + table(head, lines, cls="memory", caption=caption, label="Memory")


def processes_html(rows: list[dict]) -> str:
    lines: list[Row] = []
    for row in rows:
        each = row["gradient"]
        shown = [f"{escape(name)} {g['length']:.4f}, error {g['error']:.1e}" for name, g in each.items()]
        lines.append(("", [escape(row["work"]), "<br>".join(shown)]))
    caption = (
        "The gradient that two processes with half a batch each average, along that of one process with the whole "
        "batch: its length, 1 where it is right and 0.5 where others' rows have no gradient, and its relative error"
    )
    head = ["Loss", "Length and error"]
    return '<h2 id="speed-processes">Several processes</h2>' + table(
        head, lines, cls="processes", caption=caption, label="Gradients of two processes"
    )
