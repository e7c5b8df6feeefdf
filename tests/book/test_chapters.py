"""Every chapter: notebook, twin, cards, module and ledger agree, and the stored notebook was executed."""

import ast
import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(
    p.relative_to(ROOT / "notebooks").with_suffix("").as_posix() for p in (ROOT / "notebooks").glob("*/*.ipynb")
)
MARK = "# NBVAL_CHECK_OUTPUT"
PROVENANCE = ("statement", "verdict", "seeds", "device", "data", "versions", "commit")
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS)


def notebook(chapter):
    return nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)


def cards(chapter):
    return yaml.safe_load((ROOT / "labcode" / chapter / "papers.yml").read_text())


def prose(chapter):
    return "\n\n".join(c.source for c in notebook(chapter).cells if c.cell_type == "markdown")


def results(chapter, scale):
    path = ROOT / "book" / "results" / scale / f"{chapter}.json"
    return json.loads(path.read_text()) if path.exists() else None


def public_names(module):
    names = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names.update(t.id for t in getattr(node, "targets", None) or [node.target] if isinstance(t, ast.Name))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((a.asname or a.name).split(".")[0] for a in node.names)
    return {n for n in names if not n.startswith("_")}


def test_there_are_chapters_and_all_are_planned():
    plan = yaml.safe_load((ROOT / "book/plan.yml").read_text())["parts"]
    assert CHAPTERS and set(CHAPTERS) <= {f"{p['slug']}/{c['slug']}" for p in plan for c in p["chapters"]}


def test_plan_is_the_whole_course():
    parts = yaml.safe_load((ROOT / "book/plan.yml").read_text())["parts"]
    chapters = [c for p in parts for c in p["chapters"]]
    assert (len(parts), len(chapters), sum(c["papers"] for c in chapters)) == (12, 62, 536)
    assert all(p["title"] and p["line"] for p in parts) and all(c["title"] and c["line"] for c in chapters)
    assert len({(p["slug"], c["slug"]) for p in parts for c in p["chapters"]}) == 62


@each_chapter
def test_everything_with_the_chapters_name_is_there(chapter):
    wanted = [
        f"labcode/{chapter}/__init__.py",
        f"labcode/{chapter}/papers.yml",
        f"notebooks/{chapter}.py",
        f"tests/{chapter}",
        f"book/results/quick/{chapter}.json",
    ]
    assert not [w for w in wanted if not (ROOT / w).exists()]
    assert chapter in (ROOT / "_toc.yml").read_text()


@each_chapter
def test_twin_holds_the_same_cells_and_tags(chapter):
    book, twin = notebook(chapter), jupytext.read(ROOT / "notebooks" / f"{chapter}.py")

    def told(cell):
        return (
            cell.cell_type,
            cell.source.strip(),
            sorted(cell.metadata.get("tags", [])),
            cell.metadata.get("mystnb", {}),
        )

    assert [told(c) for c in book.cells] == [told(c) for c in twin.cells]


@each_chapter
def test_notebook_is_executed_in_order_without_errors_or_warnings(chapter):
    code = [c for c in notebook(chapter).cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [(i, o) for i, c in enumerate(code) for o in c.outputs]
    assert not [i for i, o in outputs if o.output_type == "error"]
    assert not [(i, o.text[:200]) for i, o in outputs if o.output_type == "stream" and o.name == "stderr"]


@each_chapter
def test_at_least_five_outputs_are_compared_by_nbval(chapter):
    marked = [c for c in notebook(chapter).cells if c.cell_type == "code" and re.search(rf"(?m)^{MARK}$", c.source)]
    assert len(marked) >= 5
    compared = {"text/plain", "text/html", "text/latex", "image/svg+xml"}
    empty = [
        c.source
        for c in marked
        if not any(o.output_type == "stream" or compared & set(o.get("data", {})) for o in c.outputs)
    ]
    assert not empty, "nothing to compare"


@each_chapter
def test_every_figure_has_alt_text_and_caption(chapter):
    bad = []
    for i, cell in enumerate(notebook(chapter).cells):
        if any("image/png" in o.get("data", {}) for o in cell.get("outputs", [])):
            said = cell.metadata.get("mystnb", {})
            if len((said.get("image", {}).get("alt") or "").strip()) < 20:
                bad.append(f"cell {i}: alt text")
            if not (said.get("figure", {}).get("caption") or "").strip():
                bad.append(f"cell {i}: caption")
    assert not bad


@each_chapter
def test_notebook_is_small_and_its_cells_are_short(chapter):
    assert (ROOT / "notebooks" / f"{chapter}.ipynb").stat().st_size < 640 * 1024
    code = [c.source for c in notebook(chapter).cells if c.cell_type == "code"]
    long = [s for s in code if sum(bool(line.strip()) and line.strip() != MARK for line in s.splitlines()) > 20]
    assert not long


@each_chapter
def test_no_output_tells_where_it_was_made(chapter):
    text = (ROOT / "notebooks" / f"{chapter}.ipynb").read_text()
    assert not re.findall(r"(?:/home/|/root/|/Users/|/tmp/)[\w./-]*", text)


@each_chapter
def test_each_card_has_a_section_a_symbol_and_a_claim(chapter):
    text, names = prose(chapter), public_names(ROOT / "labcode" / chapter / "__init__.py")
    measured = {c["paper"] for c in results(chapter, "quick")["claims"]}
    bad = []
    for card in cards(chapter):
        key = card["key"]
        if not re.search(rf"(?m)^\({re.escape(key)}\)=\n+#+ ", text):
            bad.append(f"{key}: no heading with the target ({key})=")
        bad += [
            f"{key}: nothing under {f}"
            for f in ("title", "kind", "idea", "reported", "differs", "code")
            if not card.get(f)
        ]
        bad += [
            f"{key}: {s} is not in the module"
            for s in card["code"]
            if s.split(".")[0] not in names and not re.search("[/:]", s)
        ]
        if key not in measured:
            bad.append(f"{key}: no claim")
    assert not bad
    assert measured <= {c["key"] for c in cards(chapter)}, "claims about papers without a card"


def test_papers_come_after_those_they_build_on():
    """Needs are papers of the course, and its order of study, that of the contents, puts them first."""
    chapters = re.findall(r"file: notebooks/(\S+)", (ROOT / "_toc.yml").read_text())
    read = [re.findall(r"(?m)^\(([a-z0-9-]+)\)=$", prose(chapter)) for chapter in chapters]
    place = {key: (i, keys.index(key)) for i, keys in enumerate(read) for key in keys}
    wrong = [
        f"{card['key']} builds on {key}"
        for chapter in chapters
        for card in cards(chapter)
        for key in card.get("needs", ())
        if key not in place or place[key] >= place[card["key"]]
    ]
    assert len(place) >= 49 and not wrong


@each_chapter
def test_as_many_cards_as_planned(chapter):
    plan = {
        f"{p['slug']}/{c['slug']}": c.get("written", c["papers"])  # a chapter that is begun says how far
        for p in yaml.safe_load((ROOT / "book/plan.yml").read_text())["parts"]
        for c in p["chapters"]
    }
    assert len({c["key"] for c in cards(chapter)}) == len(cards(chapter)) == plan[chapter]


@each_chapter
@pytest.mark.parametrize("scale", ["quick", "full"])
def test_every_claim_says_where_it_comes_from(chapter, scale):
    found = results(chapter, scale)
    if found is None:
        pytest.skip(f"no {scale} results")
    assert found["chapter"] == chapter and found["scale"] == scale
    bad = [
        f"{c.get('paper')}: {f}"
        for c in found["claims"]
        for f in PROVENANCE
        if c.get(f, found.get(f)) in (None, "", [], {})
    ]
    assert not bad
    if scale == "quick":
        assert len(found["seeds"]) >= 3, "the committed ledger needs at least three seeds"
    for c in found["claims"]:
        if c["kind"] == "claim":
            assert len(c["ours"]) == len(c["baseline"]) == len(c["seeds"]), c["paper"]
            assert len(c["seeds"]) == 1 or len(c["interval"]) == 2, c["paper"]
        else:
            assert c["value"] is not None and {c.get("at_most"), c.get("at_least")} != {None}, c["paper"]


@each_chapter
def test_every_exercise_has_a_solution_with_code(chapter):
    """Gated directives: {exercise-start} :label: x … {solution-start} x … code cells … {solution-end}."""
    labels, solved, open_solution, has_code = [], {}, None, False
    for cell in notebook(chapter).cells:
        if cell.cell_type == "code":
            has_code = has_code or (open_solution is not None and bool(cell.source.strip()))
            continue
        for found in re.finditer(
            r"\{(exercise(?:-start)?|solution-start|solution-end)\}([^\n]*)\n(?::label:\s*(\S+))?", cell.source
        ):
            kind, argument, label = found[1], found[2].strip(), found[3]
            if kind.startswith("exercise"):
                labels.append(label or (re.search(r":label:\s*(\S+)", cell.source) or [None, None])[1])
            elif kind == "solution-start":
                open_solution, has_code = argument, False
            elif open_solution:
                solved[open_solution], open_solution = has_code, None
    assert len(labels) >= 3 and len(set(labels)) == len(labels)
    assert {label: solved.get(label) for label in labels} == dict.fromkeys(labels, True)
