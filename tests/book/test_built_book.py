"""The whole book is built once, warnings as errors, and its pages are read."""

import json
import re
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from bs4 import BeautifulSoup
from sphinx.search.en import SearchEnglish

from labcode.course import cards

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(1800)  # the first test waits for the book
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
    "use": "href",
}
ELSEWHERE = re.compile(r"^\s*(https?:)?//", re.I)


@pytest.fixture(scope="session")
def read(html):
    """A function that parses a page of the book; the last few stay, all of them would not fit."""

    @lru_cache(maxsize=4)
    def page(name):
        return BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser")

    return page


@pytest.fixture(scope="session")
def ids(html):
    """A function that lists the anchors of a page, by its file."""
    mark = re.compile(r'\s(?:id|name)="([^"]+)"')

    @cache
    def of(file):
        return set(mark.findall(file.read_text(encoding="utf-8")))

    return of


def of_chapter(page_name):
    """The cards of the chapter whose page it is."""
    return [c for c in cards.papers() if f"notebooks/{c.part}/{c.chapter}" == page_name]


def loaded(page):
    """What a page loads from another host."""
    found = [t[a] for tag, a in LOADS.items() for t in page.find_all(tag) if ELSEWHERE.match(t.get(a, ""))]
    names = {"canonical", "author", "license"}
    links = [t for t in page.find_all("link") if not names & {*t.get("rel", ())}]
    found += [t["href"] for t in links if ELSEWHERE.match(t.get("href", ""))]
    found += [t["srcset"] for t in page.find_all(srcset=True) if "//" in t["srcset"]]
    found += [t["style"] for t in page.find_all(style=True) if re.search(r"url\(\W*(https?:)?//", t["style"])]
    return found + [m[0] for t in page.find_all("script") for m in re.finditer(r"import\s*\(?['\"]https?://", t.text)]


def broken(page, here, html, ids):
    """Links of a page inside the book that lead to no file or anchor."""
    found = set()
    for tag in page.find_all(["a", "link", "img", "script"]):
        address = tag.get("href") or tag.get("src") or ""
        if not address or re.match(r"^(\w+:|//)", address):
            continue
        path, fragment = urldefrag(address)
        path = unquote(path.split("?")[0])
        target = (here.parent / path).resolve() if path else here
        if not target.exists() or (
            target.suffix == ".html" and unquote(fragment) not in {"", "top", *ids(target)}
        ):
            found.add(address)
    return found


def test_page_is_sound(read, ids, html, page_name):
    """Nothing from another host, no dead link, every picture with words, headings in order, no mark of the tests."""
    page, bad = read(page_name), {}
    bad["loaded from another host"] = loaded(page)
    bad["dead links"] = broken(page, (html / f"{page_name}.html").resolve(), html, ids)
    bad["pictures without words"] = [
        t.get("src", "")[:80]
        for t in page.select("article img")
        if not t.get("alt", "").strip() or t["alt"].strip().endswith((".png", ".svg", ".jpg"))
    ]
    if page_name.startswith(("book/", "notebooks/")):
        levels = [int(t.name[1]) for t in page.select("article h1, article h2, article h3, article h4, article h5")]
        bad["headings"] = [(a, b) for a, b in zip(levels, levels[1:], strict=False) if b > a + 1]
        bad["titles"] = [levels.count(1)] * (levels.count(1) != 1)
    bad["marks for the tests"] = page_name.startswith("notebooks/") and "NBVAL_CHECK" in page.text
    assert {what: found for what, found in bad.items() if found} == {}


def test_page_is_light(html, page_name):
    assert (html / f"{page_name}.html").stat().st_size < 3e6


def test_every_page_is_read_by_these_tests(html, reading):
    """The list that names the tests holds all that is built, but for the listings of source."""
    built = {p.relative_to(html).with_suffix("").as_posix() for p in html.rglob("*.html") if "_static" not in p.parts}
    own = {"index", "genindex", "py-modindex"}  # Sphinx's own: the first leads to the book's first page
    assert {p for p in built if not p.startswith("code/")} - own == {p for p in reading if not p.startswith("code/")}


def test_a_dead_link_and_a_foreign_script_are_noticed(ids, html):
    page = BeautifulSoup('<a href="index.html#nowhere">x</a><script src="//cdn.org/x.js"></script>', "html.parser")
    assert loaded(page) == ["//cdn.org/x.js"]
    assert broken(page, (html / "book/papers.html").resolve(), html, ids) == {"index.html#nowhere"}


def test_no_style_sheet_loads_anything_from_another_host(html):
    found = [
        f"{p.name}: {m[0]}"
        for p in html.rglob("*.css")
        for m in re.finditer(r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//[^)'\"]*", p.read_text(errors="replace"))
    ]
    assert not found


def test_formulae_are_rendered_by_a_local_script(read, html):
    page = read("book/notation")
    scripts = [t["src"] for t in page.find_all("script", src=True) if "mathjax" in t["src"].lower()]
    assert scripts and all((html / "book" / s.split("?")[0]).resolve().exists() for s in scripts)


def test_index_holds_every_card_and_links_its_section_code_and_result(read):
    page, missing, listed = read("book/papers"), [], cards.papers()
    assert len(page.select("table.papers tbody tr[data-part]")) == len(listed)
    for card in listed:
        row = page.find(id=f"paper-{card.key}")
        if row is None:
            missing.append(f"{card.key}: no row")
            continue
        if not row.find("a", href=f"../notebooks/{card.part}/{card.chapter}.html#{card.key}"):
            missing.append(f"{card.key}: no link to its section")
        if len(row.select('a[href^="../code/"]')) < len(card.code):
            missing.append(f"{card.key}: a symbol of {card.code} without a source page")
        if not row.select(f'a[href^="evidence/{card.part}.html#claim-"]'):
            missing.append(f"{card.key}: no link to a result")
    assert not missing


def test_every_section_of_a_paper_leads_to_its_card_code_exercise_and_result(read, page_name):
    """The links themselves resolve: see above."""
    missing = []
    for card in of_chapter(page_name):
        page = read(page_name)
        key = card.key
        found = page.select(f"section#{key} > aside.paper-strip, section:has(> span#{key}) > aside.paper-strip")
        if len(found) != 1:
            missing.append(f"{key}: {len(found)} strips")
            continue
        strip, text = found[0], " ".join(found[0].text.split())
        told = (card.title, card.idea, card.reported, card.differs)
        missing += [f"{key}: {said[:30]}" for said in told if " ".join(said.split()) not in text]
        hrefs = [a["href"] for a in strip.find_all("a")]
        missing += [f"{key}: {a.text}" for a in strip.select('a[href^="#ex-"]') if a.text.strip(" ()") != a.text]
        wanted = {"result": f"book/evidence/{card.part}.html#claim-", "card": f"book/papers.html#paper-{key}"}
        wanted |= {f"exercise {e}": f"#{e}" for e in card.exercises or ["exercises"]}
        wanted |= {f"what it builds on, {k}": f"#{k}" for k in card.needs} | {"code": "/code/"}
        missing += [f"{key}: no way to {what}" for what, part in wanted.items() if not any(part in h for h in hrefs)]
    assert not missing


def test_code_on_a_page_reads_as_it_was_written(read):
    """Each line has a box of its own, so that it can wrap; what is copied from the page has the same text."""
    page = read("notebooks/self_supervision/redundancy")
    shown = "".join(block.text for block in page.select("div.cell_input pre"))
    twin = (ROOT / "notebooks/self_supervision/redundancy.py").read_text()
    cell = twin[twin.index("apart = []\n") :].split("\n# %%")[0].strip()
    assert cell.count("\n") > 4 and cell in shown and page.select("pre > span.code-line")


def test_first_page_shows_the_plan_and_only_links_what_exists(read):
    page = read("book/index")
    plan = yaml.safe_load((ROOT / "book/plan.yml").read_text())["parts"]
    assert len(page.select("section.part")) == len(plan)
    written = {
        p.relative_to(ROOT / "notebooks").with_suffix("").as_posix() for p in (ROOT / "notebooks").glob("*/*.ipynb")
    }
    assert len(page.select("li.chapter.is-written")) == len(written)
    assert len(page.select("li.chapter")) == sum(len(p["chapters"]) for p in plan)


@pytest.fixture(scope="session")
def indexed(html):
    """Page -> the terms under which the site's search finds it."""
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index, found = json.loads(text[text.index("{") : text.rindex("}") + 1]), {}
    for terms in (index["terms"], index["titleterms"]):
        for term, where in terms.items():
            for i in [where] if isinstance(where, int) else where:
                found.setdefault(index["docnames"][i], set()).add(term)
    return found


def test_the_search_finds_every_paper_by_its_title_and_its_short_name(indexed):
    """The search wants every word of the question on one page, stop words and numbers aside."""
    english, missing = SearchEnglish({}), []
    for card in cards.papers():
        for word in english.split(f"{card.title} {card.name}".lower()):
            if word not in english.stopwords and not word.isdigit() and len(word) > 2:
                if english.stem(word) not in indexed[f"notebooks/{card.part}/{card.chapter}"]:
                    missing.append(f"{card.key}: {word}")
    assert not missing


def test_no_two_words_of_a_strip_or_table_are_indexed_as_one(read, indexed, page_name):
    english, glued = SearchEnglish({}), set()
    for box in read(page_name).select("aside.paper-strip, table.course-table"):
        texts = [" ".join(b.get_text(" ").split()) for b in box.select("p, dt, dd, summary, caption, th, td")]
        for a, b in zip(texts, texts[1:], strict=False):
            last, first = re.search(r"[^\W\d_]{3,}$", a), re.match(r"[^\W\d_]{3,}", b)
            if last and first and english.stem((last[0] + first[0]).lower()) in indexed.get(page_name, ()):
                glued.add(f"{last[0]}{first[0]}")
    assert not glued
