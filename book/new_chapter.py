"""The skeleton of a chapter, from the plan: `make chapter NAME=part/chapter`.

Writes the package with its cards, the notebook's twin with setup, sections and targets, and the tests' folder with
``broken.yml``. Nothing that exists is touched: a chapter of which anything stands is refused. CONTRIBUTING.md says what
is to be put into it.
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

PACKAGE = '''"""{title}: {line}"""

# ruff: noqa: F401, I001

{papers}
'''

CARD = '''- key: {key}
  name: ""
  title: {title}
  kind: {kind}
  idea: >
    To be written: what the paper does, in one or two sentences of our own.
  reported: >
    To be written: what it claims, with its figures.
  differs: >
    To be written: what is different here.
  shows:
    - "its main comparison": "left out: to be measured"
  code: []
  needs: []
  exercises: []
'''

HEAD = """# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # {title}
#
# {line}
#
# **You will be able to**
# -
#
# **You should know** **Run time:**

{setup}
# %%
import labcode as lab
from labcode.{part} import {slug} as {letter}

# %% tags=["hide-input"] mystnb={{"image": {{"alt": ""}}, "figure": {{"caption": "", "name": "fig-{label}-family"}}}}
PAPERS = {{
{map}
}}
ARROWS = []
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("{part}/{slug}")
run
"""

SECTION = """
# %% [markdown]
# ({key})=
# ## {title}
#
# The problem. The idea, its equation, and one line that names every symbol.

# %%
lab.show({letter})

# %%
run.table("{key}")
"""

TAIL = """
# %% [markdown]
# ## What carries over

# %%
run.table()

# %% [markdown]
# ## Exercises

# %% [markdown]
# ## What to read next

# %%
# NBVAL_CHECK_OUTPUT
run.close()
"""

TESTS = '''"""{title}: each method against an independent reference."""
'''

BROKEN = """# {title}: one-line breakages that a claim must notice, one or more for each paper.
# `make broken ONLY={name}` tries them.
# - paper: {key}
#   file: {file}
#   replace: "a line as it stands"
#   with: "the same line without its point"
"""


def planned() -> dict[str, dict]:
    """The plan's chapters by name, each with its title, line and papers."""
    plan = yaml.safe_load((ROOT / "book" / "plan.yml").read_text(encoding="utf-8"))
    papers = yaml.safe_load((ROOT / "book" / "plan_papers.yml").read_text(encoding="utf-8"))
    found = {f"{part['slug']}/{c['slug']}": c for part in plan["parts"] for c in part["chapters"]}
    return {name: chapter | {"papers": papers[name]} for name, chapter in found.items()}


def setup_cell() -> str:
    """The cell that installs labcode where it is missing, as the other chapters have it."""
    sys.path.insert(0, str(ROOT))
    from labcode.course.twin import SETUP_CELL

    for twin in sorted((ROOT / "notebooks").glob("*/*.py")):
        if found := re.search(SETUP_CELL, twin.read_text(encoding="utf-8")):
            return found.group(0)
    raise FileNotFoundError("no chapter has a setup cell to copy")


def skeleton(name: str) -> dict[Path, str]:
    """The files of a new chapter and their texts.

    Raises ValueError for a name that the plan does not know and for a chapter of which something stands.
    """
    chapters = planned()
    if name not in chapters:
        close = [c for c in chapters if name.split("/")[-1][:4] in c]
        raise ValueError(f"the plan has no chapter {name!r}" + f"; it has {', '.join(close)}" * bool(close))
    chapter, (part, slug) = chapters[name], name.split("/")
    package, tests = Path("labcode", part, slug), Path("tests", part, slug)
    places = [package, package.with_suffix(".py"), tests, *(Path("notebooks", f"{name}.{e}") for e in ("py", "ipynb"))]
    if there := [str(place) for place in places if (ROOT / place).exists()]:
        raise ValueError(f"{name} has been begun: {', '.join(there)} is there, and nothing was written")
    papers, letter = chapter["papers"], slug[0].upper()
    fields = dict(title=chapter["title"], line=chapter["line"], part=part, slug=slug, name=name, letter=letter)
    column = ",\n".join(f'    "{p["key"]}": (0, {row}, "this chapter")' for row, p in enumerate(papers))
    head = HEAD.format(setup=setup_cell(), map=column + ",", label=slug.replace("_", "-"), **fields)
    sections = "".join(SECTION.format(key=p["key"], title=p["title"], letter=letter) for p in papers)
    cards = "\n".join(CARD.format(key=p["key"], kind=p["kind"], title=yaml_string(p["title"])) for p in papers)
    files = {
        package / "__init__.py": PACKAGE.format(papers="\n\n".join(f"# {p['title']}" for p in papers), **fields),
        package / "papers.yml": cards,
        Path("notebooks", f"{name}.py"): head + sections + TAIL,
        tests / f"test_{slug}.py": TESTS.format(**fields),
        tests / "broken.yml": BROKEN.format(key=papers[0]["key"], file=f"{package}/method.py", **fields),
    }
    init = Path("labcode", part, "__init__.py")
    if not (ROOT / init).exists():
        plan = yaml.safe_load((ROOT / "book" / "plan.yml").read_text(encoding="utf-8"))
        titles = {p["slug"]: p["title"] for p in plan["parts"]}
        files = {init: f'"""The part {titles[part]}: a package a chapter."""\n'} | files
    return files


def yaml_string(text: str) -> str:
    """A text as YAML writes it on one line."""
    return yaml.safe_dump(text, allow_unicode=True, width=10_000, default_style='"').strip()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("make chapter wants one name: make chapter NAME=part/chapter", file=sys.stderr)
        return 2
    try:
        files = skeleton(arguments[0])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for file, text in files.items():
        (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / file).write_text(text, encoding="utf-8")
        print(f"wrote {file}")
    print("Next: its line in _toc.yml, under its part's page, and what CONTRIBUTING.md asks of a chapter")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
