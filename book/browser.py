"""A headless Chromium for the book: chapters as PDF, and the tests that read the pages as a person would.

    python book/browser.py self_supervision/redundancy [--without-solutions] [--out FILE]     one chapter as a PDF
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--allow-file-access-from-files",
]  # fmt: skip


def chromium() -> str | None:
    """The browser that is installed: CHROMIUM, or the first of the usual names on the path."""
    given = os.environ.get("CHROMIUM")
    return given or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator:
    """A Playwright browser on the installed Chromium. Raises FileNotFoundError where there is none."""
    from playwright.sync_api import sync_playwright

    program = chromium()
    if program is None:
        raise FileNotFoundError(
            "no Chromium here: on Debian and Ubuntu, apt-get install chromium; or name one: CHROMIUM=/path/to/chrome"
        )
    sandbox = [] if hasattr(os, "geteuid") and os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=QUIET + sandbox)
        try:
            yield opened
        finally:
            opened.close()


def pdf(chapter: str, out: Path, solutions: bool = True, html: Path = BUILT, opened=None) -> None:
    """Print a chapter's page: figures, formulae and code; solutions are opened, or left out. Code that only draws a
    figure, folded on the page, is left out.

    opened  a browser that is open already

    The file is written aside and renamed. Raises FileNotFoundError for a chapter without a page.
    """
    page_file = html / "notebooks" / f"{chapter}.html"
    if not page_file.exists():
        raise FileNotFoundError(f"chapter {chapter!r} has no page {page_file}: build the book, or look at its name")
    with contextlib.nullcontext(opened) if opened else browser() as opened:
        page = opened.new_page()
        page.emulate_media(media="print", color_scheme="light")
        page.goto(page_file.as_uri())
        page.wait_for_function("!window.MathJax?.startup || window.MathJax.startup.promise.then(() => true)")
        page.evaluate(
            """solutions => {
              document.documentElement.dataset.theme = document.documentElement.dataset.mode = "light";
              for (const box of document.querySelectorAll(".admonition.solution")) if (!solutions) box.remove();
              for (const d of document.querySelectorAll("details:not(.hide)")) d.open = true;
              for (const b of document.querySelectorAll(".toggle-hidden")) b.classList.remove("toggle-hidden");
              for (const image of document.images) image.loading = "eager";
            }""",
            solutions,
        )
        page.wait_for_function("Array.from(document.images).every(i => i.complete)")
        aside = out.with_name(f"{out.name}.{os.getpid()}.tmp")
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(page.pdf(format="A4", print_background=True, margin=dict.fromkeys(
            ("top", "bottom", "left", "right"), "16mm"), display_header_footer=True, header_template="<span></span>",
            footer_template='<div style="font-size:8px;width:100%;text-align:center;color:#777">'
                            '<span class="title"></span> · <span class="pageNumber"></span></div>'))  # fmt: skip
        os.replace(aside, out)
        page.close()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("chapter", help="part/chapter, such as self_supervision/redundancy")
    options.add_argument("--without-solutions", action="store_true")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    out = given.out or ROOT / "_build" / "pdf" / f"{given.chapter.replace('/', '-')}.pdf"
    try:
        pdf(given.chapter, out, not given.without_solutions)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        print(f"make pdf: {error}", file=sys.stderr)
        return 1
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
