"""The paper cards: one entry per paper in ``<part>/<chapter>/papers.yml``, in the chapter's package."""

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote_plus

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Card:
    """What the course knows about one paper."""

    key: str  # the section target in the chapter's notebook
    title: str
    kind: str  # method, theory, survey, benchmark, dataset, application
    idea: str  # one or two sentences of our own
    reported: str  # the paper's claim, with its figures
    differs: str  # what is different here
    name: str = ""  # what it is called for short
    code: tuple[str, ...] = ()  # public symbols of the chapter's package
    needs: tuple[str, ...] = ()  # keys of the papers that a reader should know first
    exercises: tuple[str, ...] = ()  # labels of the chapter's exercises about it
    shows: tuple[tuple[str, str], ...] = ()  # what the paper shows, item by item: (what, the answer)
    part: str = ""
    chapter: str = ""

    @property
    def link(self) -> str:
        """An arXiv search for the title."""
        return search_link(self.title)

    def __repr__(self) -> str:
        return f"{self.key}: {self.title}"


def search_link(title: str) -> str:
    """The address of an arXiv search for a title."""
    return f"https://arxiv.org/search/?searchtype=title&query={quote_plus(title)}"


class Papers(list):
    """A list of cards that a notebook renders as a table."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no papers"

    def _repr_markdown_(self) -> str:
        rows = [f"| [{c.key}](#{c.key}) | [{c.title}]({c.link}) | {c.idea.strip()} |" for c in self]
        return "\n".join(["| key | paper | idea |", "|---|---|---|", *rows])


def papers(chapter: str | None = None) -> Papers:
    """The cards of one chapter ("self_supervision/contrastive") or part, or of the whole course.

    Raises ValueError for a chapter without cards and for a card with a missing or unknown field.
    """
    found = Papers(card for file in sorted(PACKAGE.glob("*/*/papers.yml")) for card in _read(file))
    if chapter is None:
        return found
    kept = Papers(c for c in found if chapter in (c.part, f"{c.part}/{c.chapter}"))
    if not kept:
        known = sorted({f"{c.part}/{c.chapter}" for c in found})
        raise ValueError(f"chapter {chapter!r} has no cards; those that have: {', '.join(known) or 'none'}")
    return kept


def keys(chapter: str) -> list[str]:
    """The keys of a chapter's papers; none for a chapter without cards."""
    return [c.key for c in papers() if f"{c.part}/{c.chapter}" == chapter]


def card(key: str) -> Card:
    """The card of one paper. Raises ValueError for an unknown key."""
    for found in papers():
        if found.key == key:
            return found
    raise ValueError(f"no paper has the key {key!r}; lab.papers() lists them")


@lru_cache
def _read(file: Path) -> tuple[Card, ...]:
    import yaml

    names = {f.name for f in fields(Card)} - {"part", "chapter"}
    optional = {"name", "needs", "exercises", "shows"}
    part, chapter = file.parts[-3:-1]
    cards = []
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")) or []:
        if missing := sorted(names - optional - entry.keys()):
            raise ValueError(f"{file.name}: card {entry.get('key')!r} lacks {', '.join(missing)}")
        if unknown := sorted(entry.keys() - names):
            raise ValueError(f"{file.name}: card {entry['key']!r} has unknown fields {', '.join(unknown)}")
        lists = {name: tuple(entry.get(name, ())) for name in ("code", "needs", "exercises")}
        lists["shows"] = tuple(_item(entry["key"], item) for item in entry.get("shows", ()))
        cards.append(Card(**entry | lists, part=part, chapter=chapter))
    return tuple(cards)


def _item(key: str, item: dict) -> tuple[str, str]:
    if not isinstance(item, dict) or len(item) != 1:
        raise ValueError(f"card {key!r}: an item of shows is one pair, what: answer, got {item!r}")
    (what, answer), = item.items()
    return str(what), str(answer)
