"""The page of speeds says what the file of figures says, and where it comes from."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
import course_speed  # noqa: E402

FIGURES = dict(
    device="CPU (abacus)", threads=1, versions={"torch": "9.9"}, missing=["kornia"], commit="abc", date="2030-01-02",
    seconds=120.0,
    speed=[
        dict(work="A", aim=0.5, milliseconds={"labcode": 4.0, "slow": 100.0, "fast": 10.0}),
        dict(work="B", aim=0.5, milliseconds={"labcode": 6.0, "fast": 10.0}),
        dict(work="C", aim=1.0, milliseconds={"labcode": 6.0}),
    ],
    scaling=[dict(work="A", axis="N", sizes=[10, 100], milliseconds={"labcode": [1.0, 10.0], "fast": [2.0, 200.0]},
                  slope={"labcode": 1.0, "fast": 2.0})],
    memory=[dict(work="A", megabytes={"labcode": 60.4, "fast": 4299.0})],
    processes=[dict(work="A", gradient={"labcode": dict(length=1.0, error=3e-16)})],
)  # fmt: skip


@pytest.fixture
def page(tmp_path):
    def make(figures):
        file = tmp_path / "book" / "results" / "bench.json"
        file.parent.mkdir(parents=True)
        if figures:
            file.write_text(json.dumps(figures))
        return BeautifulSoup(course_speed.speed_html(SimpleNamespace(root=tmp_path)), "html.parser")

    return make


def test_the_figures_are_those_of_the_file(page):
    found = page(FIGURES)
    rows = found.select(".speed tbody tr")
    cells = [[c.get_text(" ", strip=True) for c in row.find_all(["th", "td"])] for row in rows]
    assert [row[3] for row in cells] == ["0.40\xa0✓", "0.60\xa0✗", "–"]  # ours over the best peer's, against the aim
    assert cells[0][1:3] == ["4.00", "slow 100 fast 10.0"]
    said = found.find("p").get_text()
    assert all(word in said for word in ("abacus", "2030-01-02", "abc", "torch 9.9", "Not installed: kornia", "2 min"))
    ours, theirs = (line["points"].split() for line in found.select("polyline"))
    rise = [float(p[0].split(",")[1]) - float(p[-1].split(",")[1]) for p in (ours, theirs)]
    assert rise[1] == pytest.approx(2 * rise[0], abs=0.2)  # twice the slope
    assert "fast from 2.00 to 200 ms" in found.find("svg")["aria-label"]


def test_nothing_measured_is_said(page):
    assert "Nothing has been measured" in page(None).get_text()


def test_training_speed_is_shown_with_its_origin_or_said_to_be_missing(tmp_path):
    course = SimpleNamespace(root=tmp_path)
    assert "Not measured yet" in course_speed.training_html(course)
    made = dict(
        method="SimCLR", net="ResNet-18", batch=512, side=32, precision="bfloat16", peak_tflops=790.0, device="GPU <1>",
        date="2026-01-01", commit="abc", views_per_second={"labcode": 61234.5, "lightly": 9000.0},
        ways={"plain": dict(views_per_second=61234.5, share_of_peak=0.257, parts={"forward": 0.4, "backward": 0.6}),
              "compiled": dict(error="RuntimeError: none")},
    )  # fmt: skip
    (tmp_path / "book" / "results").mkdir(parents=True)
    (tmp_path / "book" / "results" / "throughput.json").write_text(json.dumps(made))
    page = BeautifulSoup(course_speed.training_html(course), "html.parser")
    rows = [[td.text.strip() for td in tr.find_all("td")] for tr in page.tbody.find_all("tr")]
    assert rows[0] == ["61,234", "26 %", "forward 40 %, backward 60 %"] and rows[1][2] == "RuntimeError: none"
    assert rows[2][0] == "9,000" and "GPU <1>" in page.caption.text and "commit abc" in page.caption.text
