"""Reading a twin: the py:percent script beside every notebook, its cells, its papers' sections, and how to run it."""

import re

SETUP_CELL = r'(?ms)^# %% tags=\[[^\]]*"setup"[^\]]*\].*?(?=^# %%|\Z)'


def without_setup(text: str) -> str:
    """The twin without the cell tagged ``setup``, which installs labcode and measures nothing."""
    return re.sub(SETUP_CELL, "", text)


def cells(text: str) -> list[tuple[str, int, str]]:
    """The cells of a py:percent script: ("code" or "markdown", first line, text)."""
    found, kind, first, lines = [], None, 0, []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.startswith("# %%"):
            if kind:
                found.append((kind, first, "".join(lines)))
            kind, first, lines = ("markdown" if "[markdown]" in line else "code"), number + 1, []
        else:
            lines.append(line)
    return found + ([(kind, first, "".join(lines))] if kind else [])


def sections(text: str) -> list[tuple[str | None, str, int, str]]:
    """The cells of a twin with the section each belongs to: (key, kind, first line, text).

    A paper's section begins at its target ``(key)=`` and ends at the next heading of its level or above, which is
    another target or a heading without one. Cells outside the papers' sections are shared by all and have the key None,
    but for the exercises, which belong to no paper: theirs is "".
    """
    key, found = None, []
    for kind, first, body in cells(text):
        if kind == "markdown":
            for line in body.splitlines():
                target = re.match(r"#\s*\(([a-z0-9-]+)\)=\s*$", line)
                if target:
                    key = target.group(1)
                elif re.match(r"#\s*#{1,2} ", line) and not _targeted(body, line):
                    key = "" if line.endswith("# Exercises") else None
        found.append((key, kind, first, body))
    return found


def _targeted(body: str, heading: str) -> bool:
    """Whether the heading stands right under a target."""
    above = body[: body.index(heading)].rstrip().splitlines()
    return bool(above) and re.match(r"#\s*\([a-z0-9-]+\)=\s*$", above[-1]) is not None


def script(text: str, paper: str | None = None) -> str:
    """The twin as a script: all of it, or the shared cells and one paper's section without exercises; lines keep their
    numbers.

    Raises ValueError for a paper that has no section.
    """
    listed = sections(text)
    keys = [k for k in dict.fromkeys(k for k, *_ in listed) if k]
    if paper and paper not in keys:
        raise ValueError(f"no section for paper {paper!r}; the sections are {', '.join(keys)}")
    lines = [""] * (text.count("\n") + 1)
    for key, kind, first, body in listed:
        if kind == "code" and (paper is None or key in (None, paper) or "run.close()" in body):
            for i, line in enumerate(body.splitlines()):
                lines[first - 1 + i] = line
    return "\n".join(lines)
