"""The whole book is built once, warnings as errors, and its pages are read."""

import json
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from bs4 import BeautifulSoup
from sphinx.search.en import SearchEnglish

ROOT = Path(__file__).resolve().parents[2]
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
def pages(html):
    """Path in the book -> parsed page."""
    found = {
        p.relative_to(html).as_posix(): BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser")
        for p in html.rglob("*.html")
        if "_static" not in p.relative_to(html).parts
    }
    assert "book/papers.html" in found
    return found


@pytest.fixture(scope="session")
def ids(pages):
    return {
        name: {t["id"] for t in page.find_all(id=True)} | {a["name"] for a in page.find_all("a", attrs={"name": True})}
        for name, page in pages.items()
    }


def cards():
    for path in sorted((ROOT / "labcode").glob("*/*.yml")):
        for card in yaml.safe_load(path.read_text()) or []:
            yield f"{path.parent.name}/{path.stem}", card


def test_no_page_loads_anything_from_another_host(pages):
    found = []
    for name, page in pages.items():
        for tag, attribute in LOADS.items():
            found += [f"{name}: {t[attribute]}" for t in page.find_all(tag) if ELSEWHERE.match(t.get(attribute, ""))]
        found += [
            f"{name}: {t['href']}"
            for t in page.find_all("link")
            if ELSEWHERE.match(t.get("href", "")) and not {"canonical", "author", "license"} & set(t.get("rel", []))
        ]
        found += [f"{name}: {t['srcset']}" for t in page.find_all(srcset=True) if "//" in t["srcset"]]
        found += [
            f"{name}: style {t['style']}"
            for t in page.find_all(style=True)
            if re.search(r"url\(\W*(https?:)?//", t["style"])
        ]
        found += [
            f"{name}: module import"
            for t in page.find_all("script")
            if re.search(r"import\s*\(?['\"]https?://", t.text)
        ]
    assert not found


def test_no_style_sheet_loads_anything_from_another_host(html):
    found = [
        f"{p.name}: {m[0]}"
        for p in html.rglob("*.css")
        for m in re.finditer(r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//[^)'\"]*", p.read_text(errors="replace"))
    ]
    assert not found


def test_formulae_are_rendered_by_a_local_script(pages, html):
    page = pages["book/notation.html"]
    scripts = [t["src"] for t in page.find_all("script", src=True) if "mathjax" in t["src"].lower()]
    assert scripts and all((html / "book" / s.split("?")[0]).resolve().exists() for s in scripts)


def test_internal_links_resolve(pages, ids, html):
    broken = set()
    for name, page in pages.items():
        here = html / name
        for tag in page.find_all(["a", "link", "img", "script"]):
            address = tag.get("href") or tag.get("src") or ""
            if not address or re.match(r"^(\w+:|//)", address):
                continue
            path, fragment = urldefrag(address)
            path = unquote(path.split("?")[0])
            target = (here.parent / path).resolve() if path else here
            if not target.exists():
                broken.add(f"{name} -> {address}")
            elif fragment and target.suffix == ".html":
                other = target.relative_to(html.resolve()).as_posix() if path else name
                if other in ids and unquote(fragment) not in ids[other] and fragment not in ("", "top"):
                    broken.add(f"{name} -> {address}")
    assert not broken


def test_index_holds_every_card_and_links_its_section_code_and_result(pages):
    page, missing = pages["book/papers.html"], []
    listed = list(cards())
    assert len(page.select("table.papers tbody tr")) == len(listed)
    for chapter, card in listed:
        row = page.find(id=f"paper-{card['key']}")
        if row is None:
            missing.append(f"{card['key']}: no row")
            continue
        if not row.find("a", href=f"../notebooks/{chapter}.html#{card['key']}"):
            missing.append(f"{card['key']}: no link to its section")
        if len(row.select('a[href^="../code/"]')) < len(card["code"]):
            missing.append(f"{card['key']}: a symbol of {card['code']} without a source page")
        if not row.select('a[href^="evidence.html#claim-"]'):
            missing.append(f"{card['key']}: no link to a result")
    assert not missing


def test_every_section_of_a_paper_leads_to_its_card_code_exercise_and_result(pages):
    """The links themselves resolve: see above."""
    missing = []
    for chapter, card in cards():
        page, key = pages[f"notebooks/{chapter}.html"], card["key"]
        found = page.select(f"section#{key} > aside.paper-strip, section:has(> span#{key}) > aside.paper-strip")
        if len(found) != 1:
            missing.append(f"{key}: {len(found)} strips")
            continue
        strip = found[0]
        assert card["title"] in strip.text and all(" ".join(card[f].split()) in " ".join(strip.text.split())
                                                   for f in ("idea", "reported", "differs"))  # fmt: skip
        hrefs = [a["href"] for a in strip.find_all("a")]
        missing += [f"{key}: {a.text}" for a in strip.select('a[href^="#ex-"]') if a.text.strip(" ()") != a.text]
        wanted = {"result": "book/evidence.html#claim-", "card": f"book/papers.html#paper-{key}", "code": "/code/"}
        wanted |= {f"exercise {e}": f"#{e}" for e in card.get("exercises", ["exercises"])}
        wanted |= {f"what it builds on, {k}": f"#{k}" for k in card.get("needs", [])}
        missing += [f"{key}: no way to {what}" for what, part in wanted.items() if not any(part in h for h in hrefs)]
    assert not missing


def test_code_on_a_page_reads_as_it_was_written(pages):
    """Each line has a box of its own, so that it can wrap; what is copied from the page has the same text."""
    page = pages["notebooks/self_supervision/redundancy.html"]
    shown = "".join(block.text for block in page.select("div.cell_input pre"))
    twin = (ROOT / "notebooks/self_supervision/redundancy.py").read_text()
    cell = twin[twin.index("apart = []\n") :].split("\n# %%")[0].strip()
    assert cell.count("\n") > 4 and cell in shown and page.select("pre > span.code-line")


def test_every_picture_says_what_it_shows(pages):
    bad = [
        f"{name}: {t.get('src', '')[:80]}"
        for name, page in pages.items()
        for t in page.select("article img")
        if not t.get("alt", "").strip() or t["alt"].strip().endswith((".png", ".svg", ".jpg"))
    ]
    assert not bad


def test_first_page_shows_the_plan_and_only_links_what_exists(pages):
    page = pages["book/index.html"]
    plan = yaml.safe_load((ROOT / "book/plan.yml").read_text())["parts"]
    assert len(page.select("section.part")) == len(plan)
    written = {
        p.relative_to(ROOT / "notebooks").with_suffix("").as_posix() for p in (ROOT / "notebooks").glob("*/*.ipynb")
    }
    assert len(page.select("li.chapter.is-written")) == len(written)
    assert len(page.select("li.chapter")) == sum(len(p["chapters"]) for p in plan)


def test_headings_do_not_jump_a_level(pages):
    bad = []
    for name, page in pages.items():
        levels = [int(t.name[1]) for t in page.select("article h1, article h2, article h3, article h4, article h5")]
        if name.startswith(("book/", "notebooks/")):
            bad += [f"{name}: h{a} then h{b}" for a, b in zip(levels, levels[1:], strict=False) if b > a + 1]
            bad += [f"{name}: {levels.count(1)} h1"] * (levels.count(1) != 1)
    assert not bad


def test_the_mark_for_the_tests_is_not_shown_to_readers(pages):
    assert not [name for name, page in pages.items() if name.startswith("notebooks/") and "NBVAL_CHECK" in page.text]


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


def test_the_search_finds_every_paper_by_its_full_title(indexed):
    """The search wants every word of the question on one page, stop words and numbers aside."""
    english, missing = SearchEnglish({}), []
    for chapter, card in cards():
        for word in english.split(card["title"].lower()):
            if word not in english.stopwords and not word.isdigit() and len(word) > 2:
                if english.stem(word) not in indexed[f"notebooks/{chapter}"]:
                    missing.append(f"{card['key']}: {word}")
    assert not missing


def test_no_two_words_of_a_strip_or_table_are_indexed_as_one(pages, indexed):
    english, glued = SearchEnglish({}), set()
    for name, page in pages.items():
        for box in page.select("aside.paper-strip, table.course-table"):
            texts = [" ".join(b.get_text(" ").split()) for b in box.select("p, dt, dd, summary, caption, th, td")]
            for a, b in zip(texts, texts[1:], strict=False):
                last, first = re.search(r"[^\W\d_]{3,}$", a), re.match(r"[^\W\d_]{3,}", b)
                if last and first and english.stem((last[0] + first[0]).lower()) in indexed[name.removesuffix(".html")]:
                    glued.add(f"{name}: {last[0]}{first[0]}")
    assert not glued
