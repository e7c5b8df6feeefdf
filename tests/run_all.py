"""Lint, every notebook executed again, every test; one line at the end says how many passed and failed.

    python tests/run_all.py [pytest options]

The notebooks run by themselves: the tests check types at run time, which the notebooks shall not.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUTF8": "1"}
FIRST_SEED = {"LABCODE_SCALE": "quick", "LABCODE_SEEDS": "1", "LABCODE_WRITE": "0", "LABCODE_PROGRESS": "0"}
WORKERS = ["-n", "2", "--dist", "loadscope"]
NOTEBOOKS = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "notebooks"]
TESTS = ["--ignore=tests/benchmarks", "tests"]


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped in a JUnit report."""
    passed = failed = skipped = 0
    for suite in ET.parse(report).getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed, skipped = failed + bad, skipped + int(suite.get("skipped", 0))
        passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return passed, failed, skipped


def main() -> int:
    os.chdir(ROOT)
    total = [0, 0, 0]

    def add(*more: int) -> None:
        total[:] = [a + b for a, b in zip(total, more, strict=True)]

    print("— lint", flush=True)
    lint = subprocess.run([sys.executable, "-m", "ruff", "check", "."]).returncode
    add(not lint, bool(lint), 0)
    for name, arguments, more in (("notebooks", NOTEBOOKS, FIRST_SEED), ("tests", TESTS, {})):
        print(f"— {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            status = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    *WORKERS,
                    *arguments,
                    f"--junitxml={report}",
                    *sys.argv[1:],
                ],
                env={**os.environ, **QUIET, **more},
            ).returncode
            found = counts(report) if report.exists() else (0, 0, 0)
        add(*found)
        if status and not found[1]:  # pytest stopped before it could count: nothing collected, a broken conftest
            add(0, 1, 0)
    passed, failed, skipped = total
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
