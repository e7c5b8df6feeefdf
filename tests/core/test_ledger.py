"""Verdicts, provenance, and the comparison with what is committed."""

import dataclasses
import json
import subprocess
import sys

import pytest
import scipy.stats

from labcode.course import ledger


def record(**changes):
    fields = dict(
        paper="moco",
        statement="queues help",
        kind="claim",
        verdict="supported",
        seeds=[0, 1, 2],
        seconds=1.0,
        device="CPU",
        data="scenes",
        versions={"torch": "2"},
        commit="abc",
        code="def",
        date="2026-01-01",
        ours=[0.80, 0.81, 0.82],
        baseline=[0.70, 0.70, 0.71],
        margin=0.05,
        higher_is_better=True,
        interval=[0.09, 0.12],
    )
    return ledger.Record(**(fields | changes))


def test_interval_is_students():
    values = [0.1, 0.4, 0.2, 0.35, 0.5]
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert ledger.interval(values) == pytest.approx((low, high), abs=2e-4)
    assert ledger.interval([0.3]) is None


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ([0.10, 0.11, 0.12], 0.05, "supported"),
        ([0.10, 0.11, 0.12], 0.20, "smaller"),  # surely an effect, surely not the one that was asked for
        ([-0.10, 0.11, 0.00], 0.50, "smaller"),  # surely below the margin, on either side of zero
        ([-0.10, -0.11, -0.12], 0.05, "reversed"),
        ([-0.10, -0.11, -0.12], 0.0, "reversed"),
        ([-0.10, -0.11, -0.12], -0.05, "reversed"),  # worse than a negative margin allows
        ([-0.020, -0.021, -0.022], -0.05, "supported"),  # worse, and within it
        ([0.00, 0.11, 0.22], 0.05, "inconclusive"),
        ([-0.01, 0.0, 0.01], -0.05, "supported"),  # not worse by more than 0.05
        ([0.06], 0.05, "supported"),
        ([0.04], 0.05, "smaller"),
        ([-0.04], 0.05, "reversed"),
        ([-0.04], -0.03, "reversed"),
        ([0.1, 0.1, 0.1], 0.1, "supported"),
    ],
)
def test_every_verdict_can_come_out(differences, margin, verdict):
    assert ledger.judge(differences, margin) == verdict


def test_lower_is_better_turns_the_difference():
    lower = record(ours=[0.1, 0.1, 0.1], baseline=[0.3, 0.3, 0.3], higher_is_better=False, margin=0.1)
    assert lower.judged() == "supported"
    assert dataclasses.replace(lower, higher_is_better=True).judged() == "reversed"


@pytest.mark.parametrize(
    ("floor", "verdict"),
    [
        ([0.2, 0.2, 0.2], "supported"),
        ([0.75, 0.75, 0.75], "supported"),  # one arm above it is enough: the other failed to learn
        ([0.81, 0.81, 0.81], "untaught"),  # on it, to within the seeds
        ([0.9, 0.9, 0.9], "untaught"),
        (None, "supported"),
    ],
)
def test_where_no_arm_lies_clearly_above_the_floor_nothing_was_taught(floor, verdict):
    assert record(floor=floor).judged() == verdict


def test_a_floor_of_a_loss_lies_above():
    errors = dict(ours=[0.1, 0.1, 0.1], baseline=[0.3, 0.3, 0.3], higher_is_better=False)
    assert record(**errors, floor=[0.5, 0.5, 0.5]).judged() == "supported"
    assert record(**errors, floor=[0.05, 0.05, 0.05]).judged() == "untaught"


def test_a_verdict_is_drawn_to_scale():
    """Zero, margin, interval and seeds lie on one axis, in their order, inside the picture."""
    import re

    from labcode.course.drawn import WIDTH, svg

    made = record(ours=[0.80, 0.81, 0.82], baseline=[0.70, 0.70, 0.71], margin=0.05, interval=[0.09, 0.12])
    text = svg(made)
    zero, margin = (float(x) for x in re.findall(r'd="M([\d.]+) [23]V', text))
    low, high = map(float, re.search(r'd="M([\d.]+) 13.0H([\d.]+)" stroke=', text).groups())
    dots = [float(x) for x in re.findall(r'cx="([\d.]+)"', text)]
    assert 0 < zero < margin < low < high < WIDTH
    assert (margin - zero) / (low - zero) == pytest.approx(0.05 / 0.09, abs=0.01)
    assert [d - zero for d in dots] == pytest.approx([(low - zero) * d / 0.09 for d in made.differences], abs=0.4)
    assert "margin +0.05" in text


def test_a_statement_is_escaped_and_can_be_found_again():
    html = record(statement="p < q & r")._repr_html_()
    assert "<!-- claim moco: p &lt; q &amp; r -->" in html
    assert ">p &lt; q &amp; r</p>" in html


@pytest.mark.parametrize(
    "missing", ["statement", "seeds", "device", "data", "versions", "commit", "code", "ours", "margin"]
)
def test_a_record_without_provenance_is_refused(missing):
    with pytest.raises(ValueError, match=missing):
        record(**{missing: None})
    if missing in ("statement", "data", "commit"):
        with pytest.raises(ValueError, match=missing):
            record(**{missing: ""})


def test_an_exact_record_needs_one_bound():
    exact = dict(kind="exact", ours=None, baseline=None, margin=None, value=1e-7)
    assert record(**exact, at_most=1e-6).judged() == "supported"
    assert record(**exact, at_least=1e-6).judged() == "reversed"
    for bounds in ({}, {"at_most": 1.0, "at_least": 0.0}):
        with pytest.raises(ValueError, match="one bound"):
            record(**exact, **bounds)


def test_compare_accepts_noise_and_refuses_more():
    old = record()
    assert ledger.compare(record(ours=[0.81, 0.81, 0.81]), old) == []
    off = ledger.compare(record(ours=[0.80, 0.81, 0.60]), old)
    assert len(off) == 1 and "seed 2" in off[0] and "0.6" in off[0]
    assert ledger.compare(record(ours=[0.75, 0.81, 0.82], tolerance=0.1), record(tolerance=0.1)) == []


def test_compare_names_a_flipped_verdict():
    flipped = ledger.compare(record(ours=[0.7] * 3), record())
    assert any("turned from supported to smaller" in line for line in flipped)
    exact = dict(kind="exact", ours=None, baseline=None, margin=None, at_most=0.1)
    lines = ledger.compare(record(**exact, value=0.2), record(**exact, value=0.05))
    assert any("turned" in line for line in lines)


def test_a_single_seed_is_compared_with_its_own_committed_value():
    old = record(ours=[0.80, 0.60, 0.82])
    one = dict(seeds=[1], baseline=[0.70], interval=None)
    assert ledger.compare(record(ours=[0.60], **one), old) == []
    assert ledger.compare(record(ours=[0.95], **(one | {"seeds": [0]})), record())


def test_files_come_back_as_written_and_sorted(tmp_path):
    file = tmp_path / "deep" / "x.json"
    first, second = record(paper="b"), record(paper="a", tolerance=0.3)
    ledger.write(file, "p/c", "quick", [0, 1, 2], 12.3, [first, second])
    found = ledger.read(file)
    assert found["claims"] == [second, first] and found["seconds"] == 12.3
    assert [p.name for p in file.parent.iterdir()] == ["x.json"]
    assert json.loads(file.read_text())["chapter"] == "p/c"


COUNT = """
import json, pathlib, sys
from labcode.course import ledger
file = pathlib.Path(sys.argv[1])
for _ in range(100):
    with ledger.alone(file):
        ledger.put(file, [*json.loads(file.read_text()), sys.argv[2]])
"""


def test_processes_that_add_to_the_same_file_wait_for_each_other(tmp_path):
    ledger.put(tmp_path / "rows.json", [])
    started = [subprocess.Popen([sys.executable, "-c", COUNT, tmp_path / "rows.json", name]) for name in "ab"]
    assert [process.wait(60) for process in started] == [0, 0]
    assert sorted(json.loads((tmp_path / "rows.json").read_text())) == ["a"] * 100 + ["b"] * 100


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"claims": [{"paper": "moco"}]}')
    with pytest.raises(ValueError, match="x.json is damaged"):
        ledger.read(file)
    assert ledger.read(tmp_path / "none.json") == {"claims": [], "curves": [], "summary": None}


def summary(**changes):
    rows = {"untrained": [0.2, 0.3], "method": [0.5, 0.6], "labels": [0.9, 0.8]}
    return ledger.Summary(
        **(dict(measure="kNN", data="scenes", seeds=[0, 1], rows=rows, floor="untrained", ceiling="labels") | changes)
    )


def test_a_summary_places_methods_between_floor_and_ceiling_and_survives_its_file(tmp_path):
    made = summary()
    assert (made.way("untrained"), made.way("labels")) == (0, 1) and made.way("method") == pytest.approx(0.5)
    assert summary(ceiling=None).way("method") is None
    assert "| method | 0.55 ± 0.071 | 0.50 |" in made._repr_markdown_()
    ledger.write(tmp_path / "r.json", "p/c", "quick", [0, 1], 1.0, [record()], made)
    assert ledger.read(tmp_path / "r.json")["summary"] == made


def test_a_summary_that_left_its_tolerance_or_lost_a_row_is_told():
    old = summary()
    one = summary(seeds=[0], rows={"untrained": [0.2], "method": [0.5], "labels": [0.9]})
    assert one.differs(old) == []
    assert "method is 0.95 for seed 0" in summary(seeds=[0], rows=one.rows | {"method": [0.95]}).differs(old)[0]
    lost = summary(rows={k: v for k, v in old.rows.items() if k != "method"})
    assert lost.differs(old) == ["kNN: method was not measured"]
    for bad in (dict(rows={}), dict(floor="nobody"), dict(rows={"untrained": [0.1]}), dict(seeds=[0])):
        with pytest.raises(ValueError, match="rows"):
            summary(**bad)


def test_a_method_that_does_nothing_cannot_hide_in_the_spread_of_its_arms():
    """Seeds move both arms by 0.2, the method adds 0.06 on each: without it every value is still within tolerance."""
    base = [0.4, 0.6, 0.5, 0.7, 0.45]
    old = record(seeds=[0, 1, 2, 3, 4], ours=[v + 0.06 for v in base], baseline=base, margin=0.02)
    same = record(seeds=[0], ours=[0.46], baseline=[0.4], margin=0.02)
    broken = record(seeds=[0], ours=[0.4], baseline=[0.4], margin=0.02)
    assert old.allowed() > 0.06 and ledger.compare(same, old) == []
    assert "the difference is +0 for seed 0, committed +0.06" in ledger.compare(broken, old)[0]
