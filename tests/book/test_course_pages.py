"""The generated pages on small made-up courses, and with nothing there at all."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]


def load_course():
    """All that the modules of the book's extension define, under one name."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    names = ("data", "html", "claims", "parts", "evidence", "papers", "source")
    names = [*(f"course_{name}" for name in names), "course"]
    return SimpleNamespace(**{k: v for name in names for k, v in vars(importlib.import_module(name)).items()})


course = load_course()
PLAN = {
    "parts": [
        {
            "slug": "p",
            "title": "Part",
            "line": "A line.",
            "chapters": [
                {"slug": "a", "title": "Chapter A", "line": "On a.", "papers": 2},
                {"slug": "b", "title": "Chapter B", "line": "On b.", "papers": 7},
            ],
        }
    ],
    "maps": {
        "p": {
            "reading": ["a", "b"],
            "edges": [["a", "b"]],
            "nodes": {"a": {"at": [0, 0], "asks": "what?"}, "b": {"at": [1, 1], "asks": "why?"}},
        }
    },
}
CARDS = [
    {
        "key": "one",
        "title": "One <b> & more",
        "kind": "method",
        "idea": "An idea.",
        "reported": "r",
        "differs": "d",
        "code": ["loss", "gone"],
    },
    {"key": "two", "title": "Two", "kind": "theory", "idea": "Another.", "reported": "r", "differs": "d", "code": []},
]
CLAIM = {
    "paper": "one",
    "statement": "ours gains 10 points",
    "kind": "claim",
    "verdict": "reversed",
    "ours": [0.5, 0.52],
    "baseline": [0.5, 0.5],
    "margin": 0.1,
    "higher_is_better": True,
    "interval": [-0.1, 0.08],
    "seeds": [0, 1],
    "seconds": 3.0,
    "device": "cpu",
    "data": "scenes",
    "versions": {"torch": "2.14.1"},
    "commit": "abc",
}
EXACT = {
    "paper": "one",
    "statement": "equal to the loop",
    "kind": "exact",
    "verdict": "supported",
    "value": 2e-7,
    "at_most": 1e-5,
    "ours": None,
    "baseline": None,
    "margin": None,
    "interval": None,
    "seeds": [0],
    "seconds": 0.1,
    "device": "cpu",
    "data": "random",
    "versions": {"torch": "2.14.1"},
    "commit": "abc",
}


@pytest.fixture
def root(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("book/plan.yml", yaml.safe_dump(PLAN))
    write("labcode/p/a/papers.yml", yaml.safe_dump(CARDS))
    write("labcode/p/a/__init__.py", "from .one import loss  # noqa: F401\n")
    write("labcode/p/a/one.py", "import torch\n\n\n@torch.no_grad()\ndef loss(z):\n    return z\n")
    write("notebooks/p/a.ipynb", "{}")
    write(
        "book/results/quick/p/a.json",
        json.dumps({"chapter": "p/a", "scale": "quick", "seeds": [0, 1], "seconds": 100.0, "claims": [CLAIM, EXACT]}),
    )
    return tmp_path


def link(page, target=None):
    return f"{page}.html" + (f"#{target}" if target else "")


def soup(html):
    return BeautifulSoup(html, "html.parser")


def listing(root):
    found = course.load(root)
    return course.part_evidence_html(found, found.parts[0], link)


def blocks(found):
    return {
        "parts": course.parts_html(found, link),
        "sample": course.sample_html(found, link),
        "map": course.map_html(found, "p", link),
        "evidence": course.evidence_html(found, link),
        "part's evidence": course.part_evidence_html(found, found.parts[0], link) if found.parts else "none",
        "papers": course.papers_html(found, link, course.code_link(found, link)),
        "machines": course.machines_html(found, link),
    }


def test_counts(root):
    assert course.load(root).counts() == dict(
        parts=1,
        chapters=2,
        papers=9,
        written=1,
        cards=2,
        measured=1,
        claims=2,
        supported=1,
        reversed=1,
        smaller=0, inconclusive=0, untaught=0,
    )


def test_parts_link_written_chapters_and_grey_out_the_others(root):
    page = soup(course.parts_html(course.load(root), link))
    written, planned = page.select_one("li.is-written"), page.select_one("li.is-planned")
    assert (
        written.a["href"] == "notebooks/p/a.html" and "1 supported" in written.text and "1 reversed" in written.text
    )
    assert "1 of 2 chapters · 2 of 9 papers" in page.select_one(".part-head").text
    assert "about 50 s" in written.text  # for one of two seeds
    assert planned.a is None and "7 papers" in planned.text and "not written yet" in planned.text


def test_index_row(root):
    found = course.load(root)
    page = soup(course.papers_html(found, link, course.code_link(found, link)))
    rows = page.select("tbody tr")
    assert [r["id"] for r in rows] == ["papers-p", "paper-one", "paper-two"]
    head, one, two = rows
    assert head.th.text == "Part 2 papers"
    assert one.th.a["href"] == "notebooks/p/a.html#one" and one.th.a.text == "One <b> & more"
    assert one["data-part"] == "p" and one["data-kind"] == "method"
    assert one["data-verdicts"].split() == ["supported", "reversed"] and two["data-verdicts"] == "none"
    assert [a["href"] for a in one.select("details a")] == ["code/p/a/one.html#loss"]  # and no link for `gone`
    assert "gone" in one.details.text and "An idea." in one.details.text and "An idea." not in one.summary.text
    assert [v.text for v in one.select("td .verdict")] == ["✓\u202f11 supported", "✗\u202f11 reversed"]
    page, target = one.select_one("a.plain")["href"].split("#")
    ((name, _, html),) = course.evidence_pages(found)
    assert page == f"{name}.html" and soup(html(link)).find(id=target), "the result links to no row of the evidence"


def test_filters_are_hidden_without_javascript_and_labelled(root):
    found = course.load(root)
    form = soup(course.papers_html(found, link, course.code_link(found, link))).form
    assert form.has_attr("hidden")
    controls = form.select("input, select")
    assert [c["name"] for c in controls] == ["q", "part", "kind", "verdict"]
    assert all(c.find_parent("label") for c in controls)


def test_evidence_shows_arms_interval_verdict_and_origin(root):
    row = soup(listing(root)).find(id="claim-quick-p-a-1")
    cells = [c.text.strip() for c in row.find_all("td")]
    assert cells[0] == "0.510" and cells[1] == "0.500" and cells[3] == "2" and "reversed" in cells[4]
    assert "+0.01 [−0.100, 0.0800]" in cells[2] and "at least +0.1 wanted" in cells[2]
    for part in ("scenes", "cpu", "2.14.1", "abc"):
        assert part in row.details.text


def test_lower_is_better_turns_the_difference(root):
    claim = CLAIM | {"ours": [1.0], "baseline": [3.0], "higher_is_better": False, "interval": None}
    assert course.difference(claim).startswith("+2")


def test_exact_claims_show_value_and_bound(root):
    text = soup(listing(root)).find(id="claim-quick-p-a-2").text
    assert "2.0e-07" in text and "at most 1.0e-05" in text


def test_sample_is_no_selection_of_successes(root):
    page = soup(course.sample_html(course.load(root), link))
    assert [f.select_one(".verdict").text.split()[-1] for f in page.select("figure")] == ["reversed"]


def test_map_says_in_words_what_it_draws(root):
    svg = soup(course.map_html(course.load(root), "p", link)).svg
    assert "Chapter A leads to Chapter B" in svg.desc.text and svg.title.text
    assert svg.select_one("a")["href"] == "notebooks/p/a.html" and len(svg.select("g.node.is-planned")) == 1


def test_a_part_shows_a_sign_for_every_claim_of_every_paper(root):
    loaded = course.load(root)
    page = soup(course.verdicts_html(loaded, "p", link))
    signs, claims = page.select("tbody td a"), [x for c, _, _, x in loaded.claims("quick") if c.part == "p"]
    assert sorted(a["title"] for a in signs) == sorted(x["statement"] for x in claims) and signs
    assert all(a["href"].startswith("book/evidence/p.html#") and ": " in a["aria-label"] for a in signs)
    assert "No paper" in course.verdicts_html(loaded, "unknown", link)


@pytest.mark.parametrize("gone", ["book/results", "labcode", "notebooks", "book/plan.yml", "book labcode notebooks"])
def test_whatever_is_missing_the_pages_can_be_made(root, gone):
    import shutil

    for name in gone.split():
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, html in blocks(course.load(root)).items():
        assert soup(html).text.strip(), name
    if "results" in gone:
        assert "Nothing has been measured yet" in course.sample_html(course.load(root), link)


@pytest.mark.parametrize("text", ["[]", "", "papers: []"])
def test_empty_cards(root, text):
    (root / "labcode/p/a/papers.yml").write_text(text)
    blocks(course.load(root))


def test_claims_with_missing_fields_do_not_stop_a_build(root):
    path = root / "book/results/quick/p/a.json"
    path.write_text(
        json.dumps({"claims": [{"paper": "one"}, CLAIM | {"interval": None, "seeds": 1}, EXACT | {"at_most": None}]})
    )
    blocks(course.load(root))


@pytest.mark.parametrize(
    "value,text",
    [
        (0.7634, "0.763"),
        (12.345, "12.3"),
        (2, "2"),
        (3.0, "3"),
        (2e-7, "2.0e-07"),
        (None, "–"),
        (float("nan"), "nan"),
        (0, "0"),
        (123456.7, "1.2e+05"),
    ],
)
def test_numbers(value, text):
    assert course.number(value) == text


def test_symbols_and_source_anchors(root):
    assert course.symbols("X = 1\n\n@a\n@b\ndef f():\n    g = 2\n\nclass C:\n    pass\n") == {"X": 1, "f": 3, "C": 8}
    page = soup(course.source_html(root / "labcode/p/a/one.py"))
    assert page.find(id="loss").text == "@torch.no_grad()"
    assert page.pre.text.strip() == (root / "labcode/p/a/one.py").read_text().strip()


def test_a_book_without_chapters_builds(root, tmp_path):
    """Plain Sphinx, warnings as errors, with no notebook, no card and no result; then again from the cache."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "book").mkdir()
    (site / "book/plan.yml").write_text(yaml.safe_dump(PLAN))
    (site / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book/_ext')!r})\n"
        "extensions = ['myst_parser', 'course']\nhtml_static_path = []\n"
    )
    names = (
        "course-parts",
        "course-sample",
        "course-map} p\n```\n```{course-papers",
        "course-evidence",
        "course-machines",
    )
    (site / "index.md").write_text(
        "# Title\n\n{course}`papers` papers\n\n" + "".join(f"```{{{n}}}\n```\n" for n in names)
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", "-W", "-n", str(site), str(tmp_path / "out")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    page = soup((tmp_path / "out/index.html").read_text())
    assert "9 papers" in page.text and page.select("li.is-planned") and not page.select("li.is-written")


def test_an_unknown_count_fails_the_build(root, tmp_path):
    (root / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book/_ext')!r})\n"
        "extensions = ['myst_parser', 'course']\nexclude_patterns = ['labcode', 'notebooks']\n"
    )
    (root / "index.md").write_text("# Title\n\n{course}`paperz`\n")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", str(root), str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode and "no count 'paperz'" in done.stderr


def test_symbols_are_followed_to_the_module_that_holds_them(root):
    (root / "labcode/__init__.py").write_text("")
    (root / "labcode/p/a/other.py").write_text("def far():\n    pass\n")
    (root / "labcode/core.py").write_text("from .p.a.other import far\n\n\ndef near():\n    pass\n")
    (root / "labcode/p/a/__init__.py").write_text("from ...core import far, near as close\nfrom . import other\n")
    found = course.load(root)
    find, chapter = course.code_link(found, link), next(found.chapters())
    assert find(chapter, "close") == "code/core.html#near"
    assert find(chapter, "far") == "code/p/a/other.html#far"
    assert find(chapter, "other.far") == "code/p/a/other.html#far"
    assert find(chapter, "labcode/core.py:near") == "code/core.html#near"
    assert find(chapter, "nowhere") is None and find(chapter, "os.path") is None


SUMMARY = {
    "measure": "kNN", "data": "scenes", "seeds": [0, 1], "floor": "untrained", "ceiling": "labels",
    "rows": {"labels": [0.9, 0.7], "method": [0.5, 0.7], "untrained": [0.3, 0.5], "lost": [0.2, 0.2]},
}  # fmt: skip


def test_results_place_methods_between_floor_and_ceiling(root):
    path = root / "book" / "results" / "quick" / "p" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"summary": SUMMARY}))
    html = soup(course.results_html(course.load(root), "p", link))
    rows = {tr.th.text: [td.text.strip() for td in tr.find_all("td")] for tr in html.tbody.find_all("tr")}
    assert list(rows) == ["Chapter A", "lost", "untrained", "method", "labels"]  # one chapter has a summary
    assert rows["method"] == ["0.600 ± 0.141", "0.50"] and rows["labels"][1] == "1" and rows["lost"][1] == "−0.50"
    assert html.find("rect", class_="way-done")["width"] == "0.0"
    assert "No chapter" in course.results_html(course.load(root), "nobody", link)


def test_failures_are_the_clearest_and_one_a_paper(root):
    claims = [CLAIM | {"statement": s, "interval": i} for s, i in (("close", [0.0, 0.08]), ("clear", [-0.3, -0.28]))]
    path = root / "book" / "results" / "quick" / "p" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"claims": [*claims, EXACT]}))
    (row,) = soup(course.failures_html(course.load(root), link)).tbody.find_all("tr")
    assert "clear" in row.th.text and row.th.a["href"] == "book/evidence/p.html#claim-quick-p-a-2"


def test_evidence_is_told_in_the_order_of_the_sections(root):
    """The file is sorted by key; the page follows the cards, and the anchors keep the file's numbers."""
    path = root / "book" / "results" / "quick" / "p" / "a.json"
    claims = [CLAIM | {"paper": "two", "statement": "second"}, CLAIM | {"paper": "one", "statement": "first"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"claims": claims}))
    rows = soup(listing(root)).find("table", class_="evidence").tbody.find_all("tr")
    assert [r.get("id") for r in rows] == [None, "claim-quick-p-a-2", "claim-quick-p-a-1"]


def test_the_reference_lists_every_public_symbol_with_its_call(root):
    path = root / "labcode" / "p" / "a" / "one.py"
    path.write_text('"""Head.\n\nMore."""\n\ndef loss(z: Float[Tensor, "n d"], tau: float = 0.5, *, g=None) -> float:\n'
                    '    """First.\n\n    Rest <b>."""\n\n\nclass Net(Module):\n    """A net."""\n\n'
                    "    def __init__(self, width: int = 3):\n        pass\n\n\n"
                    "def _hidden():\n    pass\n")  # fmt: skip
    (root / "labcode" / "core.py").write_text("def near():\n    pass\n")
    found = course.load(root)
    library = soup(course.api_html(found, link))
    assert [dt.text for dt in library.find_all("dt")] == ["near()"]
    assert library.find("a", href="book/reference/p.html").text == "Part"
    ((name, title, html),) = course.api_pages(found)
    page = soup(html(link))
    assert (name, title) == ("book/reference/p", "Reference: Part")
    assert [dt.text for dt in page.find_all("dt")] == ["loss(z, tau=0.5, *, g=None)", "Net(width=3)"]
    assert page.dt.a["href"] == "code/p/a/one.html#loss" and page.h2["id"] == "labcode.p.a.one"
    told = page.dd.pre.text
    assert "loss(z: Float[Tensor, 'n d'], tau: float=0.5, *, g=None) -> float" in told and "Rest <b>." in told


def test_the_longest_scale_speaks_first(root):
    """A statement measured at two scales counts once, with the verdict of the longer."""
    for scale, verdict in (("full", "supported"), ("long", "inconclusive")):
        path = root / "book" / "results" / scale / "p" / "a.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"seeds": [0], "claims": [CLAIM | {"verdict": verdict}]}))
    found = course.load(root)
    assert [x["verdict"] for x in next(found.chapters()).settled("one")] == ["supported", "supported"]
    scales, parts = soup(course.evidence_html(found, link)).find_all("table")
    assert [tr.th.text for tr in scales.tbody.find_all("tr")] == ["Quick scale", "Long scale", "Full scale"]
    counted = dict(zip([th.text.split()[-1] for th in parts.thead.find_all("th")],
                       [c.text.strip() for c in parts.tbody.find_all(["th", "td"])], strict=True))  # fmt: skip
    assert {k for k, v in counted.items() if v == "2"} == {"supported", "Claims"} and counted["Papers"] == "1"


def test_what_was_read_is_read_again_when_it_changes(root):
    before = course.load(root).counts()["cards"]
    path = root / "labcode/p/a/papers.yml"
    path.write_text(yaml.safe_dump(CARDS[:1]))
    os.utime(path, ns=(1, 1))
    assert (before, course.load(root).counts()["cards"]) == (2, 1)


def test_a_statement_of_a_notebook_has_the_ledgers_verdict_at_every_scale(root):
    from docutils import nodes

    from labcode.course.ledger import Record

    whole = CLAIM | dict(verdict="smaller", code="c", date="2026-01-01")
    longer = whole | dict(verdict="supported", ours=[0.7, 0.72], interval=[0.19, 0.23], seeds=[0, 1])
    for scale, claim in (("quick", whole), ("long", longer)):
        file = root / "book" / "results" / scale / "p" / "a.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"chapter": "p/a", "scale": scale, "seeds": [0, 1], "claims": [claim]}))
    drawn = "<p>before</p>" + Record(**whole)._repr_html_() + "<p>after</p>"
    carry = "<!-- carry-over p/a --><table><tr><td>old</td></tr></table>"
    page = nodes.document(None, None)
    page += [nodes.raw("", drawn, format="html"), nodes.raw("", carry, format="html")]
    loaded = course.load(root)
    for chapter in loaded.chapters():
        chapter.written = True
    course.claims(loaded, page, "notebooks/p/a")
    one, two = (BeautifulSoup(raw.astext(), "html.parser") for raw in page.findall(nodes.raw))
    assert [s.text for s in one.select(".claim-scale")] == ["long", "quick"]
    assert [v.text for v in one.select(".verdict")] == ["supported", "smaller"]
    assert one.text.startswith("before") and one.text.endswith("after") and len(one.select("svg")) == 2
    assert [th.text for th in two.select("thead th")] == ["claim", "quick", "long", "full"] and "old" not in two.text
    assert [td.text.split()[0] for td in two.select("td")] == ["smaller", "supported", "–"]


def test_what_a_paper_shows_is_told_with_its_answers(root):
    items = [("its main claim", CLAIM["statement"]), ("a sweep", "left out: no time"), ("ImageNet", "out of reach")]
    items += [("another set", "A statement that no run has recorded"), ("its axis", "curve: over the axis")]
    cards = [CARDS[0] | {"shows": [{what: answer} for what, answer in items]}, CARDS[1]]
    (root / "labcode" / "p" / "a" / "papers.yml").write_text(yaml.safe_dump(cards))
    chapter = next(course.load(root).chapters())
    chapter.results["quick"]["curves"] = [{"name": "over the axis"}]
    assert course.shown(chapter, chapter.papers) == (2, 4)
    page = BeautifulSoup(course.shows_html(chapter, chapter.papers[0]), "html.parser")
    assert page.summary.text == "What the paper shows: 2 of 4 within reach answered here"
    assert page.select_one("li .verdict").text == CLAIM["verdict"] and len(page.select("li .quiet")) == 3
    assert [li.text for li in page.select("li")][3].endswith("(asked by longer runs, not measured yet)")


def test_the_legend_has_an_example_of_every_drawn_verdict():
    page = BeautifulSoup(course.legend_html(), "html.parser")
    assert [v.text for v in page.select(".verdict")] == ["supported", "smaller", "reversed", "inconclusive"]
