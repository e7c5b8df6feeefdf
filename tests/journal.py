"""A plugin of pytest: writes down at once what begins and what ends, and keeps to what ``ONLY`` names.

    pytest -p journal …      with tests/ on the path, as run_all.py starts it

LABCODE_JOURNAL is a file; each line is JSON: ``{"begins": id}`` or ``{"ends": id, "outcome": …, "seconds": …}``.
Whatever happens to the run, its lines stand, so that a run that was killed can still say what it was at. LABCODE_ONLY
names parts, chapters or ``shared``, which is all that belongs to no chapter; without it everything is kept.
"""

import json
import os
import re
import sys
from pathlib import Path

# jsonschema, which reads notebooks, would build a grammar of web addresses at its import: four seconds in every process
sys.modules.setdefault("rfc3987_syntax", None)

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(p.relative_to(ROOT / "notebooks").with_suffix("").as_posix() for p in ROOT.glob("notebooks/*/*.py"))


def chapter_of(nodeid: str) -> str | None:
    """The chapter whose cells, tests or page a test's id names; None for what is shared by all."""
    named = (c for c in CHAPTERS if re.search(rf"(?:^|[^\w]){re.escape(c)}(?!\w)", nodeid))
    return next(named, None)


def part_of(nodeid: str) -> list[str]:
    """The part whose shared code a test's id names, such as tests/clustering/test_transport.py; none, or one."""
    return [p for p in {c.split("/")[0] for c in CHAPTERS} if nodeid.startswith(f"tests/{p}/test_")]


def wanted(nodeid: str, only: list[str]) -> bool:
    """Whether one of ``only``, parts, chapters or "shared", holds the test; all do where nothing is named."""
    chapter = chapter_of(nodeid)
    places = ["shared", *part_of(nodeid)] if chapter is None else [chapter, chapter.split("/")[0]]
    return not only or any(place in only for place in places)


class Journal:
    """Ends are written by the process that reports; with xdist that is the one that gives out the work."""

    def __init__(self, file: Path):
        self.file, self.outcome, self.seconds = file, {}, {}

    def write(self, **line) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def pytest_runtest_logstart(self, nodeid, location):
        self.write(begins=nodeid)

    def pytest_runtest_logreport(self, report):
        worse = {"passed": 0, "skipped": 1, "failed": 2}
        before = self.outcome.get(report.nodeid, "passed")
        self.outcome[report.nodeid] = max(before, report.outcome, key=worse.get)
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.when == "???":  # its worker died, and nothing more will come
            self.pytest_runtest_logfinish(report.nodeid, None)

    def pytest_runtest_logfinish(self, nodeid, location):
        if nodeid in self.outcome:
            self.write(ends=nodeid, outcome=self.outcome.pop(nodeid), seconds=round(self.seconds.pop(nodeid), 3))

    def pytest_collectreport(self, report):
        if report.failed:
            self.write(ends=report.nodeid or "collection", outcome="failed", seconds=0.0)


def pytest_configure(config):
    if os.environ.get("LABCODE_JOURNAL") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Journal(Path(os.environ["LABCODE_JOURNAL"])), "labcode-journal")


def pytest_collection_modifyitems(config, items):
    only = os.environ.get("LABCODE_ONLY", "").split()
    kept = [item for item in items if wanted(item.nodeid, only)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
