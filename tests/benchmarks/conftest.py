"""Speed comparisons run on their own (``make bench``), never as part of the tests: one table at the end, and the file
that the book's page of speeds is made from.

Why not pytest-benchmark: it times one function after the other, and a machine that slows down between two of them
changes their ratio. Here the arms of a comparison take turns round by round, in one process on one thread, and what
counts is processor time, so other programs on the machine disturb it little: ratios stay within a few per cent where
wall-clock medians wander by a third.
"""

import datetime
import json
import math
import os
import statistics
import time
from importlib import metadata
from pathlib import Path

import jaxtyping
import pytest
import torch

from labcode.course import provenance as running

FOUND = pytest.StashKey[dict]()
PACKAGES = ("torch", "lightly", "pytorch-metric-learning", "kornia", "faiss-cpu", "scikit-learn", "POT", "hdbscan")


def pytest_addoption(parser):
    parser.addoption("--bench-json", type=Path, help="write the figures into this file")


def pytest_ignore_collect(collection_path, config):
    asked = any("benchmarks" in str(argument) for argument in config.invocation_params.args)
    return None if asked else True


def pytest_configure(config):
    config.stash[FOUND] = {"speed": [], "scaling": [], "memory": [], "processes": []}
    config.benchmarks_began = time.perf_counter()


@pytest.fixture(autouse=True)
def as_users_run_it():
    """One thread, no annotation checks."""
    torch.set_num_threads(1)
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def medians(arms: dict, rounds: int) -> dict[str, float]:
    """Milliseconds of processor time of each arm, the arms in turn.

    Before each timed call the arm runs once untimed: caches and memory are then as a loop of it leaves them, not as the
    other arm did. Arms of more than two seconds do so in the first round alone.
    """
    seconds = {name: [] for name in arms}
    for i in range(rounds):
        for name, arm in arms.items():
            if i == 0 or seconds[name][0] < 2:
                arm()
            start = time.process_time()
            arm()
            seconds[name].append(time.process_time() - start)
    return {name: round(1000 * statistics.median(s), 3) for name, s in seconds.items()}


@pytest.fixture
def compare(request):
    """compare(work, ours, rounds, at_most, aim, **peers): our time over the best peer's, which must be ``at_most``.

    Peers that are None are not installed and are left out. ``aim`` is what was asked for, where that is another number.
    """

    def run(work, ours, rounds=5, at_most=1.0, aim=None, **peers):
        there = {name: arm for name, arm in peers.items() if arm is not None}
        found = medians({"labcode": ours, **there}, rounds)
        aim = at_most if aim is None else aim
        request.config.stash[FOUND]["speed"].append(dict(work=work, aim=aim, milliseconds=found))
        if there:
            best = min(there, key=found.get)
            ratio = found["labcode"] / found[best]
            assert ratio <= at_most, f"{work}: {ratio:.2f} of {best}'s time, at most {at_most} wanted"

    return run


@pytest.fixture
def scale(request):
    """scale(work, axis, sizes, make, rounds): times over sizes and the slope of their logarithms.

    ``make(size)`` gives the arms, a dictionary of functions with labcode among them; peers that cannot do all sizes are
    left out.
    """

    def run(work, axis, sizes, make, rounds=3):
        each = [medians(make(size), rounds) for size in sizes]
        times = {name: [found[name] for found in each] for name in each[0] if all(name in found for found in each)}
        slope = {name: round(log_slope(sizes, t), 2) for name, t in times.items()}
        entry = dict(work=work, axis=axis, sizes=list(sizes), milliseconds=times, slope=slope)
        request.config.stash[FOUND]["scaling"].append(entry)
        return slope

    return run


def log_slope(sizes, times) -> float:
    x, y = [math.log(s) for s in sizes], [math.log(t) for t in times]
    return statistics.linear_regression(x, y).slope


@pytest.fixture
def keep(request):
    """keep(kind, entry) puts an entry into the file."""
    return lambda kind, **entry: request.config.stash[FOUND][kind].append(entry)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def pytest_terminal_summary(terminalreporter, config):
    found, say = config.stash.get(FOUND, {}), terminalreporter.write_line
    if not any(found.values()):
        return
    installed = versions()
    terminalreporter.section(f"speed, one CPU thread, torch {torch.__version__}")
    for row in found["speed"]:
        times = dict(row["milliseconds"])
        ours = times.pop("labcode")
        peers = ", ".join(f"{name} {ms:.1f} ({ours / ms:.2f})" for name, ms in times.items())
        say(f"{row['work']:<44} labcode {ours:8.1f} ms   {peers or 'no peer here'}   [aim {row['aim']:g}]")
    for row in found["scaling"]:
        slopes = ", ".join(f"{name} {value:.2f}" for name, value in row["slope"].items())
        say(f"{row['work']:<44} time ~ {row['axis']}^slope over {row['sizes'][0]} … {row['sizes'][-1]}: {slopes}")
    for row in found["memory"]:
        peers = ", ".join(f"{name} {mb:.0f} MB" for name, mb in row["megabytes"].items())
        say(f"{row['work']:<44} {peers}")
    for row in found["processes"]:
        peers = ", ".join(f"{name} {v['length']:.4f} (error {v['error']:.1e})" for name, v in row["gradient"].items())
        say(f"{row['work']:<44} gradient of two processes over that of one: {peers}")
    for name in PACKAGES:
        if name not in installed:
            say(f"{name} is not installed: left out")
    if file := config.getoption("--bench-json", None):
        write(file, found, installed, time.perf_counter() - config.benchmarks_began)
        say(f"wrote {file}")


def write(file: Path, found: dict, installed: dict, seconds: float) -> None:
    """The figures and where they come from, in one piece."""
    about = dict(
        device=running.device_name(torch.device("cpu")),
        threads=1,
        versions=running.versions() | installed,
        missing=[name for name in PACKAGES if name not in installed],
        commit=running.commit(),
        date=datetime.date.today().isoformat(),
        seconds=round(seconds, 1),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(about | found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(aside, file)
