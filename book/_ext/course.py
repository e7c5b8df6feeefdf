"""What the book says about itself, made at build time from the files that hold it.

Directives: ``course-parts`` (cards of every chapter), ``course-map PART`` (a family as a picture), ``course-verdicts
PART`` (every paper's verdicts, chapter by chapter), ``course-results PART`` (every method between floor and ceiling),
``course-sample`` (measured results), ``course-papers`` (the paper index), ``course-evidence`` (verdicts, part by part),
``course-failures`` (the clearest failures), ``course-leaderboard`` (methods at full size), ``course-machines``,
``course-speed`` (``make bench``'s figures), ``course-tasks`` (what is graded), ``course-prerequisites`` (what builds on
what), ``course-api`` (the package's reference), ``course-legend`` (how a verdict is drawn).
On a chapter's page each paper's section has a strip with the ways to
its card, code, exercises and result. Role: ``{course}`papers``` and other counts.
Made at the end: ``book/evidence/PART`` (every claim), ``book/reference/PART`` (the chapters' symbols), and ``code/…``,
the package's source, one anchor a symbol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from course_claims import claims, legend_html
from course_data import PAGES, Course, load
from course_evidence import evidence_html, evidence_pages, failures_html, machines_html
from course_html import Link
from course_papers import papers_html, prerequisites_html, section_html
from course_parts import map_html, parts_html, results_html, sample_html, verdicts_html
from course_source import api_html, api_pages, code_link, source_files, source_html, source_page
from course_speed import leaderboard_html, speed_html, training_html
from course_tasks import tasks_html
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective, SphinxRole

MARKS = ("# NBVAL_CHECK_OUTPUT", "### BEGIN SOLUTION", "### END SOLUTION")


class course_block(nodes.General, nodes.Element):
    """Stands in a page until all pages are read, then becomes HTML."""


class Block(SphinxDirective):
    optional_arguments = 1
    option_spec = {"class": directives.class_option}

    def run(self) -> list[nodes.Node]:
        what = self.name.removeprefix("course-")
        if what in ("map", "verdicts", "results") and not self.arguments:
            raise self.error(f"{self.name} needs the name of a part")
        self.env.__dict__.setdefault("course_pages", set()).add(self.env.docname)
        return [course_block("", what=what, argument=(self.arguments or [""])[0])]


class Count(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list]:
        self.env.__dict__.setdefault("course_pages", set()).add(self.env.docname)
        counts = load(Path(self.env.srcdir)).counts()
        if self.text not in counts:
            message = self.inliner.reporter.error(
                f"course: no count {self.text!r}, one of {', '.join(counts)}", line=self.lineno
            )
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [nodes.Text(str(counts[self.text]))], []


def linker(app, here: str) -> Link:
    """link(page, target) -> relative address; a target that no page has is left out, a label's real id is used."""
    labels = app.env.get_domain("std").anonlabels

    def link(page: str, target: str | None = None) -> str:
        address = app.builder.get_relative_uri(here, page)
        if not target:
            return address
        if page.startswith(PAGES + "/"):
            known = labels.get(target.lower())
            return f"{address}#{known[1]}" if known and known[0] == page else address
        return f"{address}#{target}"

    return link


def tidy(app, doctree: nodes.document) -> None:
    """Lines that tell tests which outputs to compare, and nbgrader what is a solution, are nothing for readers."""
    if not app.env.docname.startswith("notebooks/"):
        return
    app.env.__dict__.setdefault("course_pages", set()).add(app.env.docname)
    for block in doctree.findall(nodes.literal_block):
        if any(mark in block.astext() for mark in MARKS):
            kept = "\n".join(line for line in block.astext().split("\n") if line.strip() not in MARKS)
            block.rawsource = kept
            block.children = [nodes.Text(kept)]


def written(app) -> Course:
    """The course; what stands outside the table of contents is no page."""
    course = load(Path(app.srcdir))
    for page in (*course.parts, *course.chapters()):
        page.written = page.page in app.env.found_docs
    return course


def fill(app, doctree: nodes.document, here: str) -> None:
    blocks = list(doctree.findall(course_block))
    if not blocks and not here.startswith(PAGES + "/"):
        return
    course, link = written(app), linker(app, here)
    strips(course, doctree, here, link)
    claims(course, doctree, here)
    make = {
        "parts": lambda _: parts_html(course, link),
        "sample": lambda _: sample_html(course, link),
        "map": lambda part: map_html(course, part, link),
        "verdicts": lambda part: verdicts_html(course, part, link),
        "results": lambda part: results_html(course, part, link),
        "failures": lambda _: failures_html(course, link),
        "papers": lambda _: papers_html(course, link, code_link(course, link)),
        "evidence": lambda _: evidence_html(course, link),
        "machines": lambda _: machines_html(course, link),
        "speed": lambda what: training_html(course) if what == "training" else speed_html(course),
        "api": lambda _: api_html(course, link),
        "tasks": lambda _: tasks_html(course, link),
        "legend": lambda _: legend_html(),
        "leaderboard": lambda _: leaderboard_html(course, link),
        "prerequisites": lambda _: prerequisites_html(course, link),
    }
    for block in blocks:
        block.replace_self(nodes.raw("", make[block["what"]](block["argument"]), format="html"))


def strips(course: Course, doctree: nodes.document, here: str, link: Link) -> None:
    """Under the heading of every paper's section: its title, and the ways to its card, code, exercises and result."""
    chapter = next((c for c in course.chapters() if c.page == here), None)
    if chapter is None:
        return
    titles = {
        label: node.next_node(nodes.title).astext().strip(" ()")
        for node in doctree.findall(lambda n: isinstance(n, nodes.Element) and "exercise" in n.get("classes", ()))
        for label in node["ids"]
    }
    papers = {p.key: p for p in chapter.papers}
    for section in doctree.findall(nodes.section):
        for key in papers.keys() & set(section["ids"] + section["names"]):
            html = section_html(course, chapter, papers[key], link, code_link(course, link), titles)
            section.insert(1, nodes.raw("", html, format="html"))


def outdated(app, env, added, changed, removed) -> list[str]:
    """Generated pages follow files that Sphinx does not watch: make them every time, they are few."""
    return sorted(set(getattr(env, "course_pages", ())) & set(env.found_docs))


def merge(app, env, docnames, other) -> None:
    env.__dict__.setdefault("course_pages", set()).update(getattr(other, "course_pages", ()))


LONG = 24  # signs in a row without a space that may not fit a phone's line beside the indentation
GLUED = re.compile(r'(<span class="o">-</span><span[^>]*>[^<\s]*</span>|-+(?:&\w+;|[^\s<])|# [^\s<&])|<[^>]*>')


def breakable(text: str) -> str:
    """A line of code whose long runs may go on after brackets, commas, ``=`` and ``/`` and before a dot, and in which a
    hyphen stays with what follows it: so a browser has no need to break a name."""
    text = GLUED.sub(lambda m: f'<span class="whole">{m[1]}</span>' if m[1] else m[0], text)
    out = []
    for run in re.split(r"(\s+)(?![^<]*>)", text):
        signs = re.findall(r"<[^>]*>|&#?\w+;|[^<]", run)
        shown = [i for i, t in enumerate(signs) if t[0] != "<"]
        if len(shown) > LONG:
            for i, j, k in zip(shown, shown[1:], [*shown[2:], None], strict=False):
                after = signs[i] in "([{,=/" and signs[j] not in ")]}=/,"
                dot = signs[j] == "." and not signs[i].isdigit() and k is not None and signs[k].isalpha()
                if after or dot:
                    signs[i] += "<wbr>"
        out.append("".join(signs))
    return "".join(out)


def hanging(app, page: str, template: str, context: dict, doctree) -> None:
    """Every line of code in a box of its own, so that what has to wrap is indented further than it began. A phone makes
    the indentation (``in``) and the gap before a comment (``gap``) smaller."""

    def line(text: str) -> str:
        tags, indent, rest = re.match(r"((?:<[^>]*>)*)( *)(.*)", text, re.S).groups()
        rest = re.sub(r" {2,}(?=(?:</span>)?(?:<span[^>]*>)?#)", r'<span class="gap">\g<0></span>', breakable(rest))
        indented = f'<span class="in">{indent}</span>' if indent else ""
        return f'<span class="code-line" style="--in:{len(indent)}">{tags}{indented}{rest}\n</span>'

    def block(found: re.Match) -> str:
        return found[1] + "".join(map(line, found[2].removesuffix("\n").split("\n"))) + found[3]

    if "body" in context:
        context["body"] = re.sub(r'(<div class="highlight"><pre>)(.*?)(</pre>)', block, context["body"], flags=re.S)


def without_thebe(app, page: str, template: str, context: dict, doctree) -> None:
    """Jupyter Book adds sphinx-thebe's scripts to every page, some of them twice. No cell of ours runs in the page."""
    thebe = lambda s: "thebe" in str(s.attributes.get("body", "")) or "thebe" in str(s.filename)  # noqa: E731
    context["script_files"] = [s for s in context.get("script_files", []) if not thebe(s)]


def generated(app) -> Iterator[tuple[str, dict, str]]:
    """Pages that are made, not written: evidence and reference part by part, and the package's source."""
    root = Path(app.srcdir)
    course = written(app)
    for name, title, html in (*evidence_pages(course), *api_pages(course)):
        body = f"<h1>{escape(title)}</h1>{html(linker(app, name))}"
        yield name, {"title": title, "body": body, "sourcename": "", "page_source_suffix": ""}, "page.html"
    for path in source_files(root):
        title = path.relative_to(root).as_posix()
        body = f"<h1>{escape(title)}</h1>{source_html(path)}"
        yield source_page(path, root), {"title": title, "body": body, "sourcename": "", "page_source_suffix": ""}, (
            "page.html"
        )


def markdown_tables(app, config) -> None:
    """Outputs in Markdown are read as the pages are: plain CommonMark, MyST-NB's default, has no tables."""
    config.nb_render_markdown_format = "myst"


def setup(app) -> dict[str, Any]:
    app.add_node(course_block)
    for name in (
        "parts", "sample", "map", "verdicts", "results", "papers", "evidence", "failures", "machines", "speed", "tasks",
        "api", "prerequisites", "leaderboard", "legend",
    ):  # fmt: skip
        app.add_directive(f"course-{name}", Block)
    app.add_role("course", Count())
    app.connect("config-inited", markdown_tables)
    app.connect("doctree-read", tidy)
    app.connect("doctree-resolved", fill)
    app.connect("env-get-outdated", outdated)
    app.connect("env-merge-info", merge)
    app.connect("html-collect-pages", generated)
    app.connect("html-page-context", hanging)
    app.connect("html-page-context", without_thebe, priority=900)
    app.add_css_file("course.css")
    app.add_js_file("course.js", loading_method="defer")
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
