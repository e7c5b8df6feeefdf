"""Speed comparisons run on their own (``make bench``), never as part of the tests, and print one table at the end."""

import statistics
import time

import jaxtyping
import pytest
import torch

ROWS = pytest.StashKey[list]()


def pytest_ignore_collect(collection_path, config):
    asked = any("benchmarks" in str(argument) for argument in config.invocation_params.args)
    return None if asked else True


def pytest_configure(config):
    config.stash[ROWS] = []


@pytest.fixture(autouse=True)
def as_users_run_it():
    """One thread, no annotation checks."""
    torch.set_num_threads(1)
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compare(request):
    """compare(work, ours, rounds, at_least, **peers): medians of interleaved rounds; ours that many times faster.

    Processor time, not wall time: with one thread it is the same, but other programs on the machine disturb it less.
    """

    def run(work, ours, rounds=5, at_least=1.0, **peers):
        arms = {"labcode": ours, **peers}
        seconds = {name: [] for name in arms}
        for arm in arms.values():
            arm()  # warm up
        for _ in range(rounds):
            for name, arm in arms.items():
                start = time.process_time()
                arm()
                seconds[name].append(time.process_time() - start)
        median = {name: 1000 * statistics.median(s) for name, s in seconds.items()}
        request.config.stash[ROWS].append((work, median))
        for name in peers:
            ratio = median[name] / median["labcode"]
            assert ratio >= at_least, f"{work}: {ratio:.2f} times as fast as {name}, wanted {at_least}"

    return run


def pytest_terminal_summary(terminalreporter, config):
    if not config.stash.get(ROWS, None):
        return
    terminalreporter.section(f"speed, one CPU thread, torch {torch.__version__}")
    for work, median in config.stash[ROWS]:
        ours = median.pop("labcode")
        peers = ", ".join(f"{name} {ms:.1f} ({ms / ours:.1f}×)" for name, ms in median.items())
        terminalreporter.write_line(f"{work:<42} labcode {ours:8.1f} ms   {peers}")
