"""Lint, every notebook executed again, every test; seconds by chapter; one line at the end says what passed and failed.

    python tests/run_all.py                                 everything
    python tests/run_all.py self_supervision/redundancy     a chapter's cells, tests and page; or a part; or shared

The notebooks run by themselves: the tests check types at run time, which the notebooks shall not.

The run always ends and says why. A test may take LIMIT seconds, then it fails; one that does not listen, or a worker
that dies, ends its stage with the test's name; a stage in which nothing begins or ends, or a run that is longer than
LABCODE_TEST_MINUTES (85), is stopped, and what was going on counts as failed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from journal import CHAPTERS, chapter_of  # noqa: E402

QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT / "tests")}
FIRST_SEED = {"LABCODE_SCALE": "quick", "LABCODE_SEEDS": "1", "LABCODE_WRITE": "0", "LABCODE_PROGRESS": "0"}
WORKERS = 2
LIMIT = 900  # seconds for a test; some with a dear fixture say more themselves
HARD = 1900  # then its process is ended, whatever it does; tests of the pages wait for the book to be built
STALL = 2000  # seconds in which no test begins or ends
PLANNED = 62  # chapters of the whole course


def options(limit: int = LIMIT, hard: int = HARD) -> list[str]:
    """What every stage's pytest is told."""
    workers = ["-n", str(WORKERS), "--dist", "loadscope", "--max-worker-restart=0"]
    ends = [f"--timeout={limit}", "-o", f"faulthandler_timeout={hard}", "-o", "faulthandler_exit_on_timeout=true"]
    return ["-q", "--durations=12", "--durations-min=10", "-p", "no:cacheprovider", "-p", "journal", *workers, *ends]


class Stage:
    """A run of pytest and what its journal says."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], only: list[str]):
        self.name, self.arguments, self.environment, self.only = name, arguments, environment, only
        self.seconds: dict[str, float] = {}
        self.outcome: dict[str, str] = {}
        self.wall = 0.0

    def run(self, until: float) -> None:
        """Start pytest and wait for its end, or end it at ``until`` or when it stands still."""
        print(f"— {self.name}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "journal.jsonl"
            journal.touch()
            more = {"LABCODE_JOURNAL": str(journal), "LABCODE_ONLY": " ".join(self.only)}
            pytest = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options(), *self.arguments],
                env={**os.environ, **QUIET, **self.environment, **more}, start_new_session=True,
            )  # fmt: skip
            why = self._wait(pytest, journal, until)
            lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        self.wall = time.monotonic() - began
        for line in lines:
            if "ends" in line:
                self.outcome[line["ends"]], self.seconds[line["ends"]] = line["outcome"], line["seconds"]
        begun = dict.fromkeys(line["begins"] for line in lines if "begins" in line)
        open_ = [nodeid for nodeid in begun if nodeid not in self.outcome]
        if why or pytest.returncode not in (0, 1):
            self.outcome |= dict.fromkeys(open_, "failed")
            was = "; it was at " + ", ".join(open_) if open_ else ""
            print(f"{self.name}: {why or f'pytest ended with status {pytest.returncode}'}{was}", flush=True)
        if (why or pytest.returncode) and "failed" not in self.outcome.values():
            self.outcome[self.name] = "failed"  # pytest stopped before it could count, or after

    def _wait(self, pytest: subprocess.Popen, journal: Path, until: float) -> str:
        size, moved = -1, time.monotonic()
        while pytest.poll() is None:
            now = time.monotonic()
            if journal.stat().st_size != size:
                size, moved = journal.stat().st_size, now
            if now > until or now - moved > STALL:
                _end(pytest)
                return "its time is over" if now > until else f"nothing has moved for {STALL} s"
            time.sleep(0.2)
        _end(pytest)  # whatever it left running
        return ""


def _end(process: subprocess.Popen) -> None:
    """End a process and all that it started: politely, then at once."""
    for word in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, word)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue


def stages(only: list[str]) -> list[Stage]:
    """Notebooks and tests, all or those of ``only``."""
    chapters = [c for c in CHAPTERS if not only or c in only or c.split("/")[0] in only]
    notebooks = ["notebooks"] if not only else [f"notebooks/{chapter}.ipynb" for chapter in chapters]
    nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", *notebooks]
    found = [Stage("notebooks", nbval, FIRST_SEED, [])] if notebooks else []
    own = [f"tests/{place}" for place in only if (ROOT / "tests" / place).is_dir()]
    tests = ["tests"] if not only or "shared" in only else [*own, "tests/book"]
    return [*found, Stage("tests", ["--ignore=tests/benchmarks", *tests], {}, only)]


def table(ran: list[Stage]) -> str:
    """Seconds by chapter, and what sixty-two such chapters would take."""
    seconds = {place: dict.fromkeys(("cells", "tests", "pages"), 0.0) for place in (*CHAPTERS, "shared")}
    for stage in ran:
        for nodeid, took in stage.seconds.items():
            kind = "cells" if ".ipynb::" in nodeid else "pages" if nodeid.startswith("tests/book") else "tests"
            seconds[chapter_of(nodeid) or "shared"][kind] += took
    lines = [f"{'seconds':40}{'cells':>8}{'tests':>8}{'pages':>8}{'all':>8}"]
    for place, took in seconds.items():
        if sum(took.values()):
            lines.append(f"{place:40}" + "".join(f"{t:8.0f}" for t in (*took.values(), sum(took.values()))))
    counted = [sum(seconds[c].values()) for c in CHAPTERS if seconds[c]["cells"]]
    shared, wall = sum(seconds["shared"].values()), sum(stage.wall for stage in ran)
    if counted and shared:
        spent = sum(counted) + shared  # by the workers together; the wall clock holds their start and their idling too
        planned = (PLANNED * sum(counted) / len(counted) + shared) * wall / spent / 60
        lines.append(f"{wall / 60:.1f} min for {len(counted)} chapters; {PLANNED} such chapters: {planned:.0f} min")
    return "\n".join(lines)


def main(only: list[str]) -> int:
    os.chdir(ROOT)
    known = {*CHAPTERS, *(c.split("/")[0] for c in CHAPTERS), "shared"}
    if unknown := [name for name in only if name not in known]:
        there = ", ".join(sorted(known))
        print(f"ONLY names no part or chapter: {', '.join(unknown)}; there are {there}", file=sys.stderr)
        return 2
    until = time.monotonic() + 60 * float(os.environ.get("LABCODE_TEST_MINUTES", 85))
    print("— lint", flush=True)
    lint = subprocess.run([sys.executable, "-m", "ruff", "check", "."]).returncode
    ran = stages(only)
    for stage in ran:
        stage.run(until)
    print("\n" + table(ran))
    outcomes = ["failed" if lint else "passed", *(outcome for stage in ran for outcome in stage.outcome.values())]
    failed = [nodeid for stage in ran for nodeid, outcome in stage.outcome.items() if outcome == "failed"]
    print("\n" + "".join(f"failed: {nodeid}\n" for nodeid in failed[:20]), end="")
    passed, bad, skipped = (outcomes.count(word) for word in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {bad} failed" + f", {skipped} skipped" * bool(skipped))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
