"""The built book in a real browser with the network cut off: what a reader sees, types and tabs through."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from labcode import plots

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))
import browser as book_browser  # noqa: E402

pytestmark = pytest.mark.skipif(
    book_browser.chromium() is None or importlib.util.find_spec("playwright") is None,
    reason="no Chromium, or no playwright: apt-get install chromium",
)
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
INDEX = "book/papers.html"


@pytest.fixture(scope="module")
def opened():
    with book_browser.browser() as found:
        yield found


@pytest.fixture(scope="module")
def reading(html):
    """Pages that people read: all but the source listings, of which one stands for all."""
    found = sorted(p.relative_to(html).as_posix() for p in html.rglob("*.html") if "_static" not in p.parts)
    sources = [p for p in found if p.startswith("code/")]
    return [p for p in found if p not in sources and p != "genindex.html"] + sources[:1]


def left_behind(request):
    """Was this file dropped because the next page was asked for? A missing file says ERR_FILE_NOT_FOUND instead."""
    return request.failure == "net::ERR_ABORTED"


@pytest.fixture
def tab(opened, html):
    """A function that opens a page of the book, and what went wrong meanwhile, on a machine without network."""
    context = opened.new_context(viewport=DESK, offline=True, reduced_motion="reduce")  # no colour half way
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(f"{page.url}: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(f"{page.url}: {e}"))
    page.on("requestfailed", lambda r: None if left_behind(r) else wrong.append(f"{page.url}: {r.url} {r.failure}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))

    def go(name, query=""):
        page.goto((html / name).as_uri() + query)
        page.wait_for_function("!window.MathJax?.startup || window.MathJax.startup.promise.then(() => true)")
        return page

    go.page, go.wrong = page, wrong
    yield go
    context.close()


def test_every_page_loads_offline_without_an_error_and_its_formulae_are_set(tab, reading):
    assert len(reading) > 12
    bare = []
    for name in reading:
        page = tab(name)
        asked, made, failed = (page.locator(s).count() for s in (".math:visible", ".math mjx-container", "mjx-merror"))
        if failed or (asked and not made):
            bare.append(name)
    assert tab.wrong == [] and bare == []


def test_a_missing_picture_is_told_from_one_that_was_left_behind(opened, tmp_path):
    (tmp_path / "page.html").write_text("<img src='none.png'>")
    page, failed = opened.new_page(), []
    page.on("requestfailed", lambda r: failed.append((r.failure, left_behind(r))))
    page.goto((tmp_path / "page.html").as_uri())
    page.close()
    assert failed == [("net::ERR_FILE_NOT_FOUND", False)]


def test_nothing_sticks_out_on_a_phone(tab, reading):
    tab.page.set_viewport_size(PHONE)
    wide = {name: w for name in reading if (w := tab(name).evaluate("document.documentElement.scrollWidth")) > 390}
    assert wide == {}


def test_wide_figures_scroll_in_their_own_box_on_a_phone(tab):
    """Two panels squeezed into 358 pixels cannot be read; a keyboard can scroll the box too."""
    tab.page.set_viewport_size(PHONE)
    page = tab("notebooks/self_supervision/contrastive_theory.html")
    shown = page.evaluate("""Array.from(document.querySelectorAll(".bd-article figure img")).map(
        i => [i.naturalWidth, i.clientWidth, i.closest("figure").tabIndex, i.closest("figure").clientWidth])""")
    many = [(width, focus, box) for natural, width, focus, box in shown if natural > 600]
    assert len(many) > 5 and all(width >= 600 and focus == 0 and box <= 390 for width, focus, box in many)
    assert all(width <= 390 for natural, width, *_ in shown if natural <= 600)


def test_tables_wider_than_a_phone_scroll_by_keyboard_and_show_where_they_are_cut(tab, reading):
    """No part of a table is out of reach: its box scrolls, takes the focus, has a name, and a shadow at its edge."""
    tab.page.set_viewport_size(PHONE)
    wide, bad = 0, []
    for name in reading:
        found = tab(name).evaluate("""Array.from(document.querySelectorAll(".bd-article table"), table => {
            let box = table;
            while (box && box.scrollWidth <= box.clientWidth + 1) box = box.parentElement;
            if (!table.offsetWidth || !box || box === document.documentElement) return null;
            const style = getComputedStyle(box);
            return [style.overflowX, box.getAttribute("role"), box.tabIndex, !!box.getAttribute("aria-label"),
                    style.backgroundAttachment];
        }).filter(Boolean)""")
        wide += len(found)
        bad += [(name, x) for x in found if x != ["auto", "region", 0, True, "local, local, scroll, scroll"]]
    assert wide > 1 and bad == []


def test_no_name_in_code_is_broken_that_would_fit_a_phones_line(tab, reading):
    """Long lines go on after spaces, brackets, commas and before dots; an option keeps its hyphens."""
    tab.page.set_viewport_size(PHONE)
    broken, wrapped = {}, 0
    for name in reading:
        lines, found = tab(name).evaluate(r"""() => {
          let lines = 0, found = [];
          for (const line of document.querySelectorAll(".bd-article .highlight pre .code-line")) {
            const style = getComputedStyle(line);
            if (!line.offsetHeight || line.offsetHeight < 1.6 * parseFloat(style.lineHeight)) continue;
            lines += 1;
            const room = line.clientWidth - parseFloat(style.paddingLeft), range = document.createRange();
            const text = document.createTreeWalker(line, NodeFilter.SHOW_TEXT), signs = [];
            while (text.nextNode()) for (let i = 0; i < text.currentNode.length; i++) {
              range.setStart(text.currentNode, i);
              range.setEnd(text.currentNode, i + 1);
              signs.push([text.currentNode.data[i], range.getBoundingClientRect()]);
            }
            for (const name of signs.map(x => x[0]).join("").matchAll(/-*\w+(-\w+)*/g)) {
              const boxes = signs.slice(name.index, name.index + name[0].length).map(x => x[1]);
              const width = boxes.reduce((sum, box) => sum + box.width, 0);
              if (boxes.at(-1).top - boxes[0].top > 6 && width <= room) found.push(name[0]);
            }
          }
          return [lines, found] }""")
        wrapped += lines
        if found:
            broken[name] = found[:5]
    assert wrapped > 100 and broken == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_violation(tab, reading, theme):
    axe = Path(importlib.util.find_spec("axe_playwright_python").origin).with_name("axe.min.js").read_text()
    found = {}
    for name in reading:
        page = tab(name)
        page.evaluate("t => { for (const k of ['theme', 'mode']) document.documentElement.dataset[k] = t }", theme)
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for violation in result["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["target"] for node in violation["nodes"]]
                found.setdefault(violation["id"], []).append((name, nodes[:3]))
    assert found == {}, json.dumps(found, indent=1)


def test_the_index_filters_and_sorts_by_keyboard(tab):
    page = tab(INDEX)
    rows = page.locator(".papers tbody tr:visible")
    every = rows.count()
    page.locator(".paper-filter input[name=q]").focus()
    page.keyboard.type("barlow")
    assert 0 < rows.count() < every and "Barlow" in rows.first.text_content()
    assert page.locator(".paper-count").text_content() == f"{rows.count()} of {every} papers"
    for _ in range(3):  # part, kind, verdict
        page.keyboard.press("Tab")
    page.keyboard.press("c")  # contradicted
    few = rows.count()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # clear
    page.wait_for_function("n => document.querySelectorAll('.papers tbody tr:not([hidden])').length === n", arg=every)
    assert few < every
    page.locator(".papers th button").first.focus()
    page.keyboard.press("Enter")
    titles = page.locator(".papers tbody tr th > a:first-child").all_text_contents()
    assert len(titles) == every and titles == sorted(titles, key=str.lower)
    page.keyboard.press("Enter")
    assert page.locator(".papers th[aria-sort=descending]").count() == 1
    assert page.locator(".papers tbody tr th > a:first-child").first.text_content() == titles[-1]


def test_the_index_stands_whole_without_scripts(opened, html):
    context = opened.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((html / INDEX).as_uri())
    assert page.locator(".papers tbody tr:visible").count() > 40
    assert not page.locator(".paper-filter").is_visible()
    context.close()


@pytest.mark.parametrize(
    ("words", "page"),
    [("Barlow Twins", "redundancy"), ("nt_xent", "contrastive"), ("Momentum Contrast", "papers|contrastive|reference"),
     ("Improved Baselines with Momentum Contrastive Learning", "contrastive|papers")],
)  # fmt: skip
def test_search_finds_a_method_by_its_name_and_a_paper_by_its_title(tab, words, page):
    found = tab("book/index.html")
    found.keyboard.press("Control+k")
    found.keyboard.type(words)
    found.keyboard.press("Enter")
    found.wait_for_url("**/search.html?**")
    found.wait_for_selector("#search-results li a", timeout=15_000)
    links = found.locator("#search-results li a").evaluate_all("a => a.map(x => x.getAttribute('href'))")
    assert any(name in link for link in links for name in page.split("|")), links


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_are_legible_on_the_page(tab, theme):
    """Figures have no ground of their own: their text and colours must stand out from the page's."""
    page = tab("notebooks/self_supervision/redundancy.html")
    page.evaluate("t => { for (const k of ['theme', 'mode']) document.documentElement.dataset[k] = t }", theme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page_light = luminance([int(v) for v in ground[ground.index("(") + 1 : -1].split(",")[:3]])
    for colour in (plots.GREY, *plots.COLOURS):
        mine = luminance([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        low, high = sorted((mine, page_light))
        assert (high + 0.05) / (low + 0.05) >= 3, (theme, colour)
    box = page.locator("div.cell_output img").first
    style = box.evaluate("i => [getComputedStyle(i).backgroundColor, getComputedStyle(i).filter]")
    assert style == ["rgba(0, 0, 0, 0)", "none"]


def luminance(rgb):
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (x / 255 for x in rgb)]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_chapter_is_printed_with_and_without_its_solutions(opened, html, tmp_path):
    sizes = []
    for solutions in (True, False):
        out = tmp_path / f"{solutions}.pdf"
        book_browser.pdf("self_supervision/redundancy", out, solutions, html, opened)
        assert out.read_bytes()[:5] == b"%PDF-"
        sizes.append(out.stat().st_size)
    assert sizes[0] > sizes[1] > 100_000 and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(FileNotFoundError, match="no page"):
        book_browser.pdf("nobody/nothing", tmp_path / "x.pdf", html=html)
