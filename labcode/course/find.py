"""Where a paper is: ``make find PAPER=odc`` prints its page, code, tests and results.

A paper is found by its key, its short name, words of its title, a symbol of its code or the name of its file.
"""

import re
import sys
from pathlib import Path

from .cards import Card, papers
from .provenance import PACKAGE, root


def plain(text: str) -> str:
    """Letters and digits alone, in lower case: “Sort & Search”, sort_and_search and SortSearch are one."""
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("&", "").replace("_and_", "").replace(" and ", ""))


def files(card: Card) -> list[Path]:
    """The files of the chapter's package in which the card's symbols are written."""
    symbols = "|".join(re.escape(symbol.split(".")[0]) for symbol in card.code) or r"(?!)"
    written = re.compile(rf"^(?:def|class) (?:{symbols})\b|^(?:{symbols})\b.* = ", re.M)
    package = PACKAGE / card.part / card.chapter
    return [f for f in sorted(package.glob("*.py")) if f.name != "__init__.py" and written.search(f.read_text("utf-8"))]


def find(words: str) -> list[Card]:
    """The cards that words name: by key or short name, else by symbol, file or title, else by a part of these."""
    wanted, cards = plain(words), papers()
    called = {c.key: [c.key, c.name] for c in cards}
    names = {c.key: [*called[c.key], c.title, *c.code, *(f.stem for f in files(c))] for c in cards}
    for told, fits in ((called, str.__eq__), (names, str.__eq__), (names, str.__contains__)):
        if found := [c for c in cards if any(fits(plain(name), wanted) for name in told[c.key])]:
            return found
    return []


def places(card: Card) -> str:
    """Page, code, tests and results of a paper, as paths from the course's folder."""
    chapter = f"{card.part}/{card.chapter}"
    code = [f.relative_to(PACKAGE.parent).as_posix() for f in files(card)]
    tests = [f"tests/{chapter}/test_{Path(name).stem}.py" for name in code]
    results = [f"book/results/{scale}/{chapter}.json" for scale in ("quick", "long", "full")]
    there = lambda paths: ", ".join(p for p in paths if (root() / p).exists()) or "none yet"  # noqa: E731
    lines = [f"{card.name or card.key}: {card.title}", f"  page     notebooks/{chapter}.ipynb#{card.key}"]
    lines += [f"  code     {', '.join(code)}", f"  tests    {there(tests)}"]
    return "\n".join([*lines, f"  results  {there(results)}, under {card.key!r}"])


def main(arguments: list[str]) -> int:
    found = find(" ".join(arguments)) if arguments else []
    print("\n".join(map(places, found)) or "no paper is called that; make find PAPER=moco, or words of its title")
    return int(not found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
