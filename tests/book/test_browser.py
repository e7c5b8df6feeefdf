"""The built book in a real browser with the network cut off: what a reader sees, types and tabs through.

A page is opened once for all its checks: light and dark, wide and narrow are settings of the page that is there.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from labcode import plots

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))
import browser as book_browser  # noqa: E402

pytestmark = [
    pytest.mark.skipif(
        book_browser.chromium() is None or importlib.util.find_spec("playwright") is None,
        reason="no Chromium, or no playwright: apt-get install chromium",
    ),
    pytest.mark.timeout(1800),  # the first test waits for the book
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
INDEX = "book/papers"
WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
# axe walks the whole document, ten thousand elements for a chapter. What is looked at elsewhere is taken out before:
# the frame of the page (once, on one page), code (by FAINT), the inside of formulae (not ours).
STRIP = """() => {
  const frame = "[class*='bd-sidebar'], .bd-header, .bd-header-article, footer, script";
  for (const piece of document.querySelectorAll(frame)) piece.remove();
  for (const code of document.querySelectorAll(".highlight pre")) code.textContent = code.textContent.trim() && "code";
  for (const formula of document.querySelectorAll("mjx-container")) formula.replaceWith("formula");
}"""
READY = """() => Promise.all([document.fonts.ready, window.MathJax?.startup?.promise])
    .then(() => Array.from(document.images).every(i => i.complete || i.loading === "lazy"))"""


def left_behind(request):
    """Was this file dropped because the next page was asked for? A missing file says ERR_FILE_NOT_FOUND instead."""
    return request.failure == "net::ERR_ABORTED"


@pytest.fixture(scope="module")
def opened():
    with book_browser.browser() as found:
        yield found


@pytest.fixture(scope="module")
def window(opened):
    """One window for all pages, on a machine without network, and what went wrong in it."""
    context = opened.new_context(viewport=DESK, offline=True, reduced_motion="reduce")  # no colour half way
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(f"{page.url}: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(f"{page.url}: {e}"))
    page.on("requestfailed", lambda r: None if left_behind(r) else wrong.append(f"{page.url}: {r.url} {r.failure}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
    yield page, wrong
    context.close()


@pytest.fixture
def tab(window, html):
    """A function that opens a page of the book, wide and light."""
    page, wrong = window
    wrong.clear()
    page.set_viewport_size(DESK)

    def go(name, query=""):
        page.goto("about:blank")  # what the last page's scripts still miss is no fault of this one
        wrong.clear()
        page.goto((html / f"{name}.html").as_uri() + query)
        page.wait_for_function(READY)
        theme(page, "light")
        return page

    go.page, go.wrong = page, wrong
    return go


def theme(page, name):
    page.evaluate("t => { for (const k of ['theme', 'mode']) document.documentElement.dataset[k] = t }", name)


def axe(page, **how):
    """Serious and critical violations: (rule, the first elements)."""
    if not page.evaluate("'axe' in window"):
        source = Path(importlib.util.find_spec("axe_playwright_python").origin).with_name("axe.min.js")
        page.evaluate(source.read_text(encoding="utf-8"))
    how = {"runOnly": WCAG, "resultTypes": ["violations"], "preload": False} | how
    found = page.evaluate("how => axe.run(document, how).then(r => r.violations)", how)
    return [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found if v["impact"] in ("serious", "critical")]


def luminance(rgb):
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (x / 255 for x in rgb)]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(text):
    return [float(v) for v in text[text.index("(") + 1 : -1].split(",")[:3]]


# Text that does not stand out from its ground (WCAG 1.4.3), code and drawings too. axe's own rule, which also looks for
# what lies over the text, takes six seconds a chapter and theme; it is asked on one page, this one on all.
FAINT = """() => {
  const ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colours = new Map(), grounds = new Map([[null, [255, 255, 255]]]), shades = new Map([[null, 1]]);
  const rgba = text => {
    if (!colours.has(text)) {
      ink.clearRect(0, 0, 1, 1);
      ink.fillStyle = text;
      ink.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = ink.getImageData(0, 0, 1, 1).data;
      colours.set(text, [r, g, b, a / 255]);
    }
    return colours.get(text);
  };
  const over = (top, share, under) => under.map((v, i) => top[i] * top[3] * share + v * (1 - top[3] * share));
  const walk = (known, make) => function of(e) {
    if (!known.has(e)) known.set(e, make(getComputedStyle(e), of(e.parentElement)));
    return known.get(e);
  };
  const ground = walk(grounds, (style, under) => over(rgba(style.backgroundColor), 1, under));
  const shade = walk(shades, (style, above) => style.opacity * above);
  const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const texts = document.createTreeWalker(document.querySelector(".bd-article-container"), NodeFilter.SHOW_TEXT);
  const seen = new Set(), found = [];
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (seen.has(e) || !texts.currentNode.data.trim()) continue;
    seen.add(e);
    if (!e.checkVisibility({ visibilityProperty: true }) || e.getBoundingClientRect().width < 2) continue;
    if (e.closest("mjx-container, script, style, title, desc")) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const colour = over(rgba(e instanceof SVGElement ? style.fill : style.color), shade(e), ground(e));
    const [low, high] = [light(colour), light(ground(e))].sort((a, b) => a - b), ratio = (high + .05) / (low + .05);
    if (ratio < wanted) found.push([e.outerHTML.slice(0, 60), ratio.toFixed(2)]);
  }
  return found.slice(0, 5) }"""


# Tables wider than their place: each needs a box that scrolls, takes the focus, has a name, and a shadow at its edge.
TABLES = """() => Array.from(document.querySelectorAll(".bd-article table"), table => {
  let box = table;
  while (box && box.scrollWidth <= box.clientWidth + 1) box = box.parentElement;
  if (!table.offsetWidth || !box || box === document.documentElement) return null;
  const style = getComputedStyle(box);
  return [style.overflowX, box.getAttribute("role"), box.tabIndex, !!box.getAttribute("aria-label"),
          style.backgroundAttachment];
}).filter(Boolean)"""
SCROLLS = ["auto", "region", 0, True, "local, local, scroll, scroll"]

# Lines of code that wrap, and names broken in them that would have fitted a line. Options keep their hyphens.
BREAKS = r"""() => {
  let lines = 0, found = [];
  const range = document.createRange();
  for (const line of document.querySelectorAll(".bd-article .highlight pre .code-line")) {
    const style = getComputedStyle(line);
    if (!line.offsetHeight || line.offsetHeight < 1.6 * parseFloat(style.lineHeight)) continue;
    lines += 1;
    const room = line.clientWidth - parseFloat(style.paddingLeft);
    const walk = document.createTreeWalker(line, NodeFilter.SHOW_TEXT), pieces = [];
    let text = "";
    while (walk.nextNode()) {
      pieces.push([text.length, walk.currentNode]);
      text += walk.currentNode.data;
    }
    const at = i => { const [start, node] = pieces.findLast(p => p[0] <= i); return [node, i - start] };
    for (const name of text.matchAll(/-*\w+(-\w+)*/g)) {
      range.setStart(...at(name.index));
      const [node, offset] = at(name.index + name[0].length - 1);
      range.setEnd(node, offset + 1);
      const boxes = Array.from(range.getClientRects()).filter(box => box.width);
      const width = boxes.reduce((sum, box) => sum + box.width, 0);
      if (boxes.length > 1 && boxes.at(-1).top - boxes[0].top > 6 && width <= room) found.push(name[0]);
    }
  }
  return [lines, found] }"""

# Figures: natural width, width shown, focus and width of the box. Two panels in 358 pixels cannot be read.
FIGURES = """() => Array.from(document.querySelectorAll(".bd-article figure img")).filter(i => i.naturalWidth).map(
    i => [i.naturalWidth, i.clientWidth, i.closest("figure").tabIndex, i.closest("figure").clientWidth])"""


def test_page(tab, page_name):
    """Loads offline without an error, formulae set, legible in both themes, whole on a phone."""
    page, bad = tab(page_name), {}
    asked, made, failed = (page.locator(s).count() for s in (".math:visible", ".math mjx-container", "mjx-merror"))
    if failed or (asked and not made):
        bad["formulae"] = (asked, made, failed)
    bad["faint, light"] = page.evaluate(FAINT)
    theme(page, "dark")
    bad["faint, dark"] = page.evaluate(FAINT)

    page.set_viewport_size(PHONE)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    if (width := page.evaluate("document.documentElement.scrollWidth")) > 390:
        bad["wider than a phone"] = width
    bad["tables that cannot be scrolled"] = [t for t in page.evaluate(TABLES) if t != SCROLLS]
    bad["names broken in code"] = page.evaluate(BREAKS)[1][:5]
    shown = page.evaluate(FIGURES)
    bad["figures too small to read"] = [
        f for f in shown if (f[0] > 600 and not (f[1] >= 600 and f[2] == 0 and f[3] <= 390)) or (f[0] <= 600 < f[1])
    ]

    bad["errors"] = tab.wrong[:]  # what is taken out is missed by the page's scripts
    page.evaluate(STRIP)
    bad["axe"] = axe(page, rules={"color-contrast": {"enabled": False}})  # see FAINT
    assert {what: found for what, found in bad.items() if found} == {}


@pytest.mark.parametrize("look", ["light", "dark"])
def test_what_stands_around_every_page_is_sound(tab, look):
    """Header, sidebar, footer and the document itself, on one page for all."""
    page = tab("book/how_to_use")
    theme(page, look)
    assert axe(page) == []


def test_the_checks_of_a_page_can_fail(tab, tmp_path):
    """Each fault of a page made for it is found."""
    page = tab("book/how_to_use")
    page.evaluate("""() => document.querySelector(".bd-article").insertAdjacentHTML("beforeend",
        '<p style="color: #999; background: #aaa">pale</p><div class="highlight"><pre><span class="pale" '
        + 'style="color: #eee; background: #fff">x</span></pre></div><img src="none.png" id="none">'
        + '<table style="width: 900px"><tr><td>wide</td></tr></table><div class="highlight" '
        + 'style="width: 200px"><pre style="white-space: pre-wrap">'
        + '<span class="code-line" style="word-break: break-all">of some_words and_many_more</span></pre></div>')""")
    rules = [rule for rule, _ in axe(page)]
    assert "color-contrast" in rules and "image-alt" in rules
    assert [("pale" in html, float(ratio) < 2) for html, ratio in page.evaluate(FAINT)] == [(True, True)] * 2
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") > 390
    lines, broken = page.evaluate(BREAKS)
    assert lines and broken
    page.wait_for_function("document.getElementById('none').complete")
    assert any("none.png" in line for line in tab.wrong)


def test_a_missing_picture_is_told_from_one_that_was_left_behind(opened, tmp_path):
    (tmp_path / "page.html").write_text("<img src='none.png'>")
    page, failed = opened.new_page(), []
    page.on("requestfailed", lambda r: failed.append((r.failure, left_behind(r))))
    page.goto((tmp_path / "page.html").as_uri())
    page.close()
    assert failed == [("net::ERR_FILE_NOT_FOUND", False)]


def test_the_index_filters_and_sorts_by_keyboard(tab):
    page = tab(INDEX)
    rows = page.locator(".papers tbody tr[data-part]:visible")
    every = rows.count()
    page.locator(".paper-filter input[name=q]").focus()
    page.keyboard.type("barlow")
    assert 0 < rows.count() < every and "Barlow" in rows.filter(has_text="Barlow Twins").first.text_content()
    assert page.locator(".paper-count").text_content() == f"{rows.count()} of {every} papers"
    parts = {row.get_attribute("data-part") for row in rows.all()}
    assert page.locator(".papers .part-row:visible").count() == len(parts) < 12
    for _ in range(3):  # part, kind, verdict
        page.keyboard.press("Tab")
    page.keyboard.press("i")  # inconclusive
    few = rows.count()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # clear
    left = "document.querySelectorAll('.papers tr[data-part]:not([hidden])').length"
    page.wait_for_function(f"n => {left} === n", arg=every)
    assert few < every
    page.locator(".papers th button").first.focus()
    page.keyboard.press("Enter")
    titles = page.locator(".papers tbody tr[data-part] a.title").all_text_contents()
    assert len(titles) == every and titles == sorted(titles, key=str.lower)
    page.keyboard.press("Enter")
    assert page.locator(".papers th[aria-sort=descending]").count() == 1
    assert page.locator(".papers tbody tr[data-part] a.title").first.text_content() == titles[-1]


def test_a_line_of_the_index_opens_by_keyboard_and_one_finds_what_is_in_it(tab):
    page = tab(INDEX)
    line = page.locator(".papers tr#paper-barlow-twins")
    assert not line.locator(".idea").is_visible() and line.evaluate("r => r.offsetHeight") < 60
    line.locator("summary").focus()
    page.keyboard.press("Enter")
    assert line.locator(".idea").is_visible() and line.locator("code").count()
    page.locator(".paper-filter input[name=q]").fill(line.locator("code").first.text_content())
    assert line.is_visible()  # the search looks into what is folded
    page = tab(INDEX, "#paper-moco")
    assert page.locator("tr#paper-moco .idea").is_visible()  # who follows a link to a line finds it open


def test_the_index_stands_whole_without_scripts(opened, html):
    context = opened.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((html / f"{INDEX}.html").as_uri())
    assert page.locator(".papers tbody tr:visible").count() > 40
    assert not page.locator(".paper-filter").is_visible()
    context.close()


@pytest.mark.parametrize(
    ("words", "page"),
    [("Barlow Twins", "redundancy"), ("nt_xent", "contrastive"), ("Momentum Contrast", "papers|contrastive|reference"),
     ("Improved Baselines with Momentum Contrastive Learning", "contrastive|papers")],
)  # fmt: skip
def test_search_finds_a_method_by_its_name_and_a_paper_by_its_title(tab, words, page):
    found = tab("book/index")
    found.keyboard.press("Control+k")
    found.keyboard.type(words)
    found.keyboard.press("Enter")
    found.wait_for_url("**/search.html?**")
    found.wait_for_selector("#search-results li a", timeout=15_000)
    links = found.locator("#search-results li a").evaluate_all("a => a.map(x => x.getAttribute('href'))")
    assert any(name in link for link in links for name in page.split("|")), links


def test_the_sidebar_folds_parts_and_shows_the_chapters_of_the_open_one(tab):
    page = tab("notebooks/self_supervision/redundancy")
    nav = page.locator(".bd-sidebar-primary .bd-links__nav, .bd-sidebar-primary nav.bd-links")
    assert nav.locator("a[href$='pretext.html']").is_visible()  # a sister
    assert nav.locator("a[href$='foundations/evaluation.html']").count() == 1
    assert not nav.locator("a[href$='foundations/evaluation.html']").is_visible()  # a chapter of a part that is folded
    toggle = nav.locator("li:has(> a[href$='parts/foundations.html']) > details > summary")
    toggle.focus()
    page.keyboard.press("Enter")
    assert nav.locator("a[href$='foundations/evaluation.html']").is_visible()


@pytest.mark.parametrize("look", ["light", "dark"])
def test_figures_are_legible_on_the_page(tab, look):
    """Figures have no ground of their own: their text and colours must stand out from the page's."""
    page = tab("notebooks/self_supervision/redundancy")
    theme(page, look)
    ground = rgb(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    for colour in (plots.GREY, *plots.COLOURS):
        assert contrast([int(colour[i : i + 2], 16) for i in (1, 3, 5)], ground) >= 3, (look, colour)
    box = page.locator("div.cell_output img").first
    style = box.evaluate("i => [getComputedStyle(i).backgroundColor, getComputedStyle(i).filter]")
    assert style == ["rgba(0, 0, 0, 0)", "none"]


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
