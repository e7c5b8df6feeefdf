"""How the book will stand with every planned chapter: copies of the written ones stand in for the others.

    python book/simulate.py FOLDER [--build]      62 chapters and about 500 papers in FOLDER, built and measured there

A copy has keys, labels, titles and some words of its own, so that anchors are unique and the search has as much to look
through as it will have. Nothing in the project is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PLAIN = re.compile(r"^[A-Za-z][A-Za-z ,.;'-]+$", re.M)  # lines of nothing but words


def files() -> list[str]:
    """What git knows and what it would: the working tree without what is built."""
    line = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in found if name and (ROOT / name).is_file()]


def written(plan: dict) -> list[str]:
    names = [f"{part['slug']}/{c['slug']}" for part in plan["parts"] for c in part["chapters"]]
    return [name for name in names if (ROOT / "notebooks" / f"{name}.ipynb").exists()]


def cards(chapter: str) -> list[dict]:
    return yaml.safe_load((ROOT / "labcode" / chapter / "papers.yml").read_text(encoding="utf-8"))


def renamer(chapter: str, mark: str):
    """A function that gives keys and labels of a chapter another ending wherever they are names."""
    book = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    prose = "\n".join("".join(c["source"]) for c in book["cells"] if c["cell_type"] == "markdown")
    labels = set(re.findall(r"(?m)^\(([\w-]+)\)=", prose)) | set(re.findall(r":label:\s*(\S+)", prose))
    labels |= {n for c in book["cells"] if (n := c["metadata"].get("mystnb", {}).get("figure", {}).get("name"))}
    any_of = "|".join(sorted(map(re.escape, labels), key=len, reverse=True))
    name = re.compile(rf"(\((?=[\w-]+\)=)|#|:label: |-start\}} |solution\}} |`)({any_of})(?![\w-])")
    task = re.compile(r"(task(?:-\w+)?:[a-z0-9-]+)")
    return lambda text: task.sub(rf"\1-{mark}", name.sub(rf"\1\2-{mark}", text))


def copy(source: str, chapter: str, title: str, rare: set[str], folder: Path) -> int:
    """One chapter under another name; says how many papers it has."""
    mark = chapter.split("/")[1].replace("_", "-")
    renamed = renamer(source, mark)
    syllable = mark[:3]

    def own(match: re.Match) -> str:
        return " ".join(w + syllable if w.lower() in rare else w for w in match[0].split(" "))

    book = json.loads((ROOT / "notebooks" / f"{source}.ipynb").read_text(encoding="utf-8"))
    for i, cell in enumerate(book["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = PLAIN.sub(own, renamed(text))
            text = re.sub(r"\]\((?=\w+\.ipynb)", f"](../{source.split('/')[0]}/", text)  # a sister elsewhere
            if i == 0:
                text = re.sub(r"(?m)^# .*$", f"# {title}", text, count=1)
        cell["source"] = text
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if figure.get("name"):
            figure["name"] += f"-{mark}"
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind in ("text/markdown", "text/html"):
                    output["data"][kind] = renamed("".join(data))
    put(folder / "notebooks" / f"{chapter}.ipynb", json.dumps(book))

    found = cards(source)
    keys = {c["key"] for c in found}
    for card in found:
        card["name"] = f"{card.get('name', card['key'])} {mark}"
        card["key"] += f"-{mark}"
        card["title"] = f"{card['title']} ({title})"
        card["needs"] = [f"{k}-{mark}" if k in keys else k for k in card.get("needs", [])]
        card["exercises"] = [f"{e}-{mark}" for e in card.get("exercises", [])]
    put(folder / "labcode" / chapter / "papers.yml", yaml.safe_dump(found, allow_unicode=True, sort_keys=False))
    for module in (ROOT / "labcode" / source).glob("*.py"):
        put(folder / "labcode" / chapter / module.name, module.read_text(encoding="utf-8"))
    for results in (ROOT / "book" / "results").glob(f"*/{source}.json"):
        ledger = json.loads(results.read_text(encoding="utf-8")) | {"chapter": chapter}
        for claim in ledger["claims"]:
            claim["paper"] += f"-{mark}"
        put(folder / "book" / "results" / results.parts[-3] / f"{chapter}.json", json.dumps(ledger))
    twin = renamed((ROOT / "notebooks" / f"{source}.py").read_text(encoding="utf-8"))
    put(folder / "notebooks" / f"{chapter}.py", twin)
    return len(found)


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def simulate(folder: Path) -> tuple[int, int]:
    """Write the whole book's sources; says how many chapters and papers it has."""
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    plan = yaml.safe_load((ROOT / "book" / "plan.yml").read_text(encoding="utf-8"))
    sources, words, papers = written(plan), {}, 0
    for source in sources:
        text = (ROOT / "notebooks" / f"{source}.py").read_text(encoding="utf-8")
        for word in set(re.findall(r"[a-z]{6,}", text.lower())):
            words.setdefault(word, []).append(source)
    rare = {word for word, of in words.items() if len(of) == 1}  # as every chapter has words of its own
    chapters = [(part, c) for part in plan["parts"] for c in part["chapters"]]
    for i, (part, c) in enumerate(chapters):
        name = f"{part['slug']}/{c['slug']}"
        if name in sources:
            papers += len(cards(name))
        else:
            papers += copy(sources[i % len(sources)], name, c["title"], rare, folder)
    heads = (("The chapters", "map"), ("What was found", "verdicts"), ("What was reached", "results"))
    listed = []
    for part in plan["parts"]:
        page = f"book/parts/{part['slug']}"
        if not (ROOT / f"{page}.md").exists():
            blocks = [f"## {head}\n\n```{{course-{what}}} {part['slug']}\n```" for head, what in heads]
            put(folder / f"{page}.md", "\n\n".join([f"# {part['title']}", part["line"], *blocks]) + "\n")
        sections = [dict(file=f"notebooks/{part['slug']}/{c['slug']}") for c in part["chapters"]]
        listed.append(dict(file=page, sections=sections))
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    own = [p for p in contents["parts"] if "notebooks/" not in json.dumps(p)]
    contents["parts"] = [own[0], dict(caption="The course", chapters=listed), *own[1:]]
    put(folder / "_toc.yml", yaml.safe_dump(contents, sort_keys=False))
    return len(chapters), papers


def build(folder: Path) -> dict:
    """Build the book there; seconds, pages, the largest page and the search's index."""
    tool, began = str(Path(sys.executable).with_name("jupyter-book")), time.monotonic()
    here = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([tool, "build", "-W", "-n", "--keep-going", "."], cwd=folder, env=here)
    html = folder / "_build" / "html"
    pages = sorted(((p.stat().st_size, p.relative_to(html).as_posix()) for p in html.rglob("*.html")), reverse=True)
    return dict(
        failed=done.returncode, seconds=round(time.monotonic() - began), pages=len(pages), largest=pages[:8],
        search_index=(html / "searchindex.js").stat().st_size, all_pages=sum(size for size, _ in pages),
    )  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--build", action="store_true")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    chapters, papers = simulate(given.folder)
    print(f"{chapters} chapters, {papers} papers")
    if given.build:
        found = build(given.folder.resolve())
        print(json.dumps(found, indent=1))
        return found["failed"]
    return 0


if __name__ == "__main__":
    sys.exit(main())
