"""The project's address, set in one place: ``make repository URL=https://github.com/OWNER/NAME``.

    python book/repository.py            which address is set
    python book/repository.py URL        set it
    python book/repository.py ""         unset it

``_config.yml`` holds it, under ``repository``. This script writes what has to agree with it: the addresses of Colab
and Binder that give every chapter its launch buttons, the links to the source and its issues, and the line
``REPOSITORY = …`` in each chapter's setup cell, because a notebook that was opened alone on Colab has nothing beside
it to look the address up in. The setup cell measures nothing: stored outputs and results stay valid.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLAB, BINDER = "https://colab.research.google.com", "https://mybinder.org"
LINE = re.compile(r'^REPOSITORY = "([^"\n]*)"', re.M)
# Colab opens notebooks from GitHub alone
ADDRESS = re.compile(r"https://github\.com/[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/[A-Za-z0-9_.-]*[A-Za-z0-9_-]")


def valid(url: str) -> str:
    """The address as it is, or as nothing.

    Raises ValueError for anything but https://github.com/OWNER/NAME.
    """
    if url and (not ADDRESS.fullmatch(url) or url.endswith(".git")):
        hint = f"; did you mean {guess}?" if ADDRESS.fullmatch(guess := re.sub(r"(\.git)?/*$", "", url)) else ""
        raise ValueError(f"URL must be https://github.com/OWNER/NAME with nothing behind the name, got {url!r}{hint}")
    return url


def current() -> str:
    """The address that is set, empty for none.

    Raises ValueError where _config.yml has no such line.
    """
    return _value(_read(ROOT / "_config.yml"), "url")


def config(text: str, url: str) -> str:
    """_config.yml with the address and what hangs on it; comments and order stay.

    Raises ValueError for a setting that is missing or stands there twice.
    """
    bools = {f"use_{what}_button": "true" if url else "false" for what in ("repository", "issues")}
    for key, value in {
        "url": f'"{url}"',
        "colab_url": f'"{COLAB if url else ""}"',
        "binderhub_url": f'"{BINDER if url else ""}"',
        **bools,
    }.items():
        _value(text, key)
        text = re.sub(rf"(?m)^(  {key}: )\S+", lambda m, value=value: m[1] + value, text)
    return text


def cell(source: str, url: str, where: str) -> str:
    """A setup cell, or a twin that holds one, with the address in its line.

    Raises ValueError where there is not exactly one such line.
    """
    if (found := len(LINE.findall(source))) != 1:
        raise ValueError(f'{where}: one line REPOSITORY = "…" is wanted, in the setup cell, got {found}')
    return LINE.sub(lambda _: f'REPOSITORY = "{url}"', source)


def notebook(text: str, url: str, where: str) -> str:
    """A stored notebook with the address in its setup cell; every other byte stays."""
    book = json.loads(text)
    setup = [c for c in book["cells"] if "setup" in c["metadata"].get("tags", [])]
    if len(setup) != 1:
        raise ValueError(f"{where}: one cell with the tag setup is wanted, got {len(setup)}")
    setup[0]["source"] = cell("".join(setup[0]["source"]), url, where).splitlines(keepends=True)
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": ")) + "\n"


def write(url: str) -> list[Path]:
    """Set the address everywhere, or nowhere: every file is read and checked before the first is replaced.

    Returns the files that changed.
    """
    new = {ROOT / "_config.yml": config(_read(ROOT / "_config.yml"), valid(url))}
    for twin in sorted((ROOT / "notebooks").glob("*/*.py")):
        stored = twin.with_suffix(".ipynb")
        if stored.exists():  # before its twin: JupyterLab opens no notebook newer than that
            new[stored] = notebook(_read(stored), url, stored.name)
        new[twin] = cell(_read(twin), url, twin.name)
    changed = [path for path, text in new.items() if text != _read(path)]
    for path in changed:
        part = path.with_name(f".{path.name}.tmp")
        part.write_text(new[path], encoding="utf-8")
        os.replace(part, path)
    return changed


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _value(text: str, key: str) -> str:
    found = re.findall(rf'(?m)^  {key}: "?([^"\s]*)', text)
    if len(found) != 1:
        raise ValueError(f"_config.yml: one line “{key}: …” is wanted, got {len(found)}")
    return found[0]


def main() -> int:
    try:
        changed = write(sys.argv[1]) if len(sys.argv) > 1 else []
        url = current()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"The repository is {url}" if url else "No repository is set: the book has no launch buttons.")
    if changed:
        then = ": Colab and Binder read the branch main" if url else ""
        print(f"{len(changed)} files changed. Commit and push them{then}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
