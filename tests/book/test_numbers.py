"""Numbers and names that a person typed, held against what was measured: prose, captions, alt texts, cards, maps.

A decimal number must be found, rounded as it is written, in the chapter's results, outputs, code or in what its papers
report; or stand in ``labcode/<part>/<chapter>/numbers.yml``, a short list of ``number: why it is nowhere else``.
A machine cannot tell whether a number stands at the right place: it finds those that stand nowhere.
"""

import ast
import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

import jupytext
import pytest
import yaml

from labcode.course import cards

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(p.relative_to(ROOT / "notebooks").with_suffix("").as_posix() for p in ROOT.glob("notebooks/*/*.py"))
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS)
DECIMAL = re.compile(r"(?<![\w.\\])(\d+[.]\d+)(?:e([-−+]?\d+))?(?!\.?\w)")
SILENT = re.compile(r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|https?://\S+|<[^>]+>", re.S)


def decimals(text):
    """The decimal numbers of a text as (value, last digit's weight, as written); thousands have no point."""
    for found in DECIMAL.finditer(text):
        power = int((found[2] or "0").replace("−", "-"))
        yield float(found[1]) * 10.0**power, 10.0 ** (power - len(found[1].split(".")[1])), found[0]


@cache
def twin(chapter):
    """The cells of the twin, each with the key of the paper whose section it stands in (None where it is shared)."""
    key, found = None, []
    for cell in jupytext.read(ROOT / "notebooks" / f"{chapter}.py").cells:
        if cell.cell_type == "markdown":
            for target, _ in re.findall(r"(?m)^(?:\(([\w-]+)\)=\n+)?(##) ", cell.source):
                key = target or None
        found.append((key, cell))
    return found


def said(chapter):
    """(paper, where, text) of all that a person wrote for readers: prose, captions, alt texts, the cards' own words."""
    for i, (key, cell) in enumerate(twin(chapter)):
        if cell.cell_type == "markdown":
            yield key, f"cell {i}", SILENT.sub(" ", cell.source)
        figure = cell.metadata.get("mystnb", {})
        yield key, f"cell {i}, caption", (figure.get("figure", {}).get("caption") or "").replace("$", " ")
        yield key, f"cell {i}, alt text", figure.get("image", {}).get("alt") or ""
    for card in cards.papers(chapter):
        yield card.key, f"card {card.key}", f"{card.idea} {card.differs}"


def measured(chapter, key):
    """What a paper's claims, or all of the chapter's, came to: means, differences, ratios, intervals, bounds."""
    for file in ROOT.glob(f"book/results/*/{chapter}.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        for claim in found["claims"]:
            if key not in (None, claim["paper"]):
                continue
            arms = [claim.get(arm) or [] for arm in ("ours", "baseline", "floor")]
            yield from (v for arm in arms for v in _of_arm(arm))
            if arms[0] and len(arms[0]) == len(arms[1]):
                yield from _of_arm([a - b for a, b in zip(*arms[:2], strict=True)])
                yield from (a / b for a, b in [map(fmean, arms[:2])] if b)
            yield from claim.get("interval") or ()
            yield from (claim[k] for k in ("margin", "value", "at_most", "at_least") if claim.get(k) is not None)
        for row in ((found.get("summary") or {}).get("rows") or {}).values():
            yield from _of_arm(row)


def _of_arm(values):
    return ([fmean(values)] if values else []) + ([stdev(values)] if len(values) > 1 else [])


def written(chapter, key):
    """Where a number may stand: outputs and code of the section and of shared cells, and what its paper reports."""
    book = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    for (of, cell), stored in zip(twin(chapter), book, strict=False):
        if key is None or of in (None, key):
            yield cell.source if cell.cell_type == "code" else ""
            for output in stored.get("outputs", []):
                yield "".join(output.get("text", ""))
                yield from ("".join(data) for kind, data in output.get("data", {}).items() if kind.startswith("text/"))
    yield from (card.reported for card in cards.papers(chapter) if key in (None, card.key))


def nowhere(texts, pool):
    """[(where, number)] of the numbers in ``texts`` that no value of ``pool(paper)`` rounds to, as share or percent."""
    found = []
    for key, where, text in texts:
        for value, last, as_written in decimals(text):
            if not any(abs(abs(v) * scale - value) <= 0.5001 * last for v in pool(key) for scale in (1, 100)):
                found.append((where, as_written))
    return found


def allowed(chapter):
    file = ROOT / "labcode" / chapter / "numbers.yml"
    listed = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {str(number): why for number, why in (listed or {}).items()}


@each_chapter
def test_every_number_a_reader_sees_was_measured_or_set(chapter):
    pool = cache(
        lambda key: [*measured(chapter, key), *(v for text in written(chapter, key) for v, *_ in decimals(text))]
    )
    excused, found = allowed(chapter), nowhere(said(chapter), pool)
    unknown = [f"{where}: {number}" for where, number in found if number not in excused]
    assert not unknown, "numbers that stand in no result, output, code or report:\n" + "\n".join(unknown)
    assert all(str(why or "").strip() for why in excused.values()), "a number is excused with a reason"
    assert set(excused) <= {number for _, number in found}, "numbers.yml excuses what needs no excuse"


@each_chapter
def test_arrows_of_the_map_and_what_cards_build_on_agree(chapter):
    """Over all steps: a paper needs one of those that lead to it on the map at least, and is led to by all it needs."""
    nodes, arrows = family(chapter)
    if not arrows:
        pytest.skip("no map of the family")
    short = {plain(card.name): card for card in cards.papers(chapter)}
    key = {node: short[plain(node)].key for node in nodes if plain(node) in short}
    drawn = reach({node: {a for a, b in arrows if b == node} for node in nodes})
    needs = reach({card.key: set(card.needs) for card in cards.papers()})
    before = {b: [key[a] for a, to in arrows if to == b and a in key] for b in key}
    wrong = [f"map: {' and '.join(of)} lead to {key[b]}, whose card builds on none of them"
             for b, of in before.items() if of and not needs[key[b]] & set(of)]  # fmt: skip
    node = {k: n for n, k in key.items()}
    wrong += [f"card: {card.key} builds on {need}, no arrow leads there" for card in short.values() if card.key in node
              for need in card.needs if need in node and node[need] not in drawn[node[card.key]]]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def plain(name):
    return re.sub(r"[^a-z0-9α-ω]", "", name.lower())


def reach(before):
    """{name: all that comes before it, over all steps}"""
    found = {}

    def of(name, path=()):
        if name not in found and name not in path:
            steps = before.get(name, set())
            found[name] = set(steps).union(*(of(step, (*path, name)) for step in steps))
        return found.get(name, set())

    for name in before:
        of(name)
    return found


def family(chapter):
    """Nodes and arrows of the chapter's map, from the literals that its cell hands to ``plots.family``."""
    for _, cell in twin(chapter):
        if cell.cell_type == "code" and "plots.family(" in cell.source:
            tree, named = ast.parse(cell.source), {}
            for node in tree.body:
                if isinstance(node, ast.Assign):
                    try:
                        named[node.targets[0].id] = ast.literal_eval(node.value)
                    except (ValueError, AttributeError):
                        continue
            calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
            call = next(node for node in calls if getattr(node.func, "attr", "") == "family")
            given = [named.get(getattr(a, "id", None)) or ast.literal_eval(a) for a in call.args[:2]]
            return list(given[0]), [tuple(arrow[:2]) for arrow in given[1]]
    return [], []


def test_a_wrong_number_is_found_and_a_rounded_one_is_not():
    values = {"one": [0.7634, 0.12, 2e-7], "two": [0.764]}
    text = SILENT.sub(" ", "from 0.763 to 76.3 %, 0.12, 2.0e-07; version 2.14.1, `0.99`")
    assert nowhere([("one", "a", text), ("one", "b", "It is 0.764."), ("two", "c", "0.764 and 1.5")], values.get) == [
        ("b", "0.764"), ("c", "1.5")]  # fmt: skip


def test_what_comes_before_is_found_over_all_steps():
    assert reach({"c": {"b"}, "b": {"a"}, "a": set()}) == {"a": set(), "b": {"a"}, "c": {"a", "b"}}
