"""The queue of full scale: which papers and rows of the leaderboard lack a full-scale run, and running them."""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from . import leaderboard
from .cards import keys
from .ledger import read
from .provenance import fingerprint, root


class Waiting(NamedTuple):
    """What wants a full-scale run, a chapter's paper or a row of the leaderboard: why, the minutes it will take by what
    is known, and its worth.
    """

    chapter: str
    paper: str
    why: str
    minutes: float
    worth: float

    @property
    def command(self) -> list[str]:
        if self.chapter == "leaderboard":
            method, seed = self.paper.split()
            return [sys.executable, "-m", "labcode.leaderboard", "--method", method, "--seed", seed]
        found = read(root() / "book" / "results" / "full" / f"{self.chapter}.json")["claims"]
        seeds = max((len(c.seeds) for c in found if c.paper == self.paper), default=1)  # as many as there were
        given = [self.chapter, "--paper", self.paper, "--scale", "full", "--seeds", str(seeds)]
        return [sys.executable, "-m", "labcode.run", *given]


def queue() -> list[Waiting]:
    """Papers whose full-scale results are missing or older than their code, most worth first.

    The worth of a run is the number of the paper's claims that get a full-scale result, an outdated one counting half,
    over the minutes it will take: those of its last full-scale run, else a minute for each second at quick scale.
    """
    wanted = []
    for twin in sorted((root() / "notebooks").glob("*/*.py")):
        chapter = f"{twin.parent.name}/{twin.stem}"
        full, quick = (read(root() / "book" / "results" / s / f"{chapter}.json")["claims"] for s in ("full", "quick"))
        code = fingerprint(chapter, "full")
        for key in keys(chapter):
            records, small = ([c for c in found if c.paper == key] for found in (full, quick))
            seconds = sum(c.seconds for c in records) or 60 * sum(c.seconds for c in small)
            minutes = max(1.0, seconds / 60)
            worth = max(1, len(small)) / minutes
            if not records:
                wanted.append(Waiting(chapter, key, "missing", minutes, worth))
            elif any(c.code != code for c in records):
                wanted.append(Waiting(chapter, key, "older than its code", minutes, worth / 2))
    return sorted(wanted, key=lambda w: -w.worth)


def rows() -> list[Waiting]:
    """Missing rows of the leaderboard: a row is two figures, one of older code counts half, and takes as long as the
    method's last, or seven minutes.
    """
    took = {row["method"]: row["seconds"] / 60 for row in leaderboard.read() if row["seconds"]}
    old = {(row["method"], row["seed"]) for row in leaderboard.read()}
    found = []
    for wanted in leaderboard.missing():
        minutes = max(1.0, took.get(wanted[0], 1.0 if wanted[0] == "untrained" else 7.0))
        why, figures = ("older than its code", 1) if wanted in old else ("missing", 2)
        found.append(Waiting("leaderboard", "{} {}".format(*wanted), why, minutes, figures / minutes))
    return found


def run_queue(budget: float | None) -> int:
    """List the queue, papers and rows of the leaderboard, and, where there is a GPU, run it in processes of their own.

    budget  seconds. The run of most worth that fits into what is left comes next; where none does, the first one,
            which is stopped at the end and goes on from its checkpoints another time

    Each process writes its results in one piece at its end, so whatever is killed, what was finished stays, and the
    next queue goes on with the rest. Returns how many failed.
    """
    import torch

    waiting = sorted(queue() + rows(), key=lambda w: -w.worth)
    for paper in waiting:
        print(f"{paper.chapter:36} {paper.paper:28} {paper.why:20} about {paper.minutes:4.0f} min")
    total = sum(paper.minutes for paper in waiting)
    print(f"{len(waiting)} runs at full scale wait, about {total / 60:.1f} h in all")
    if not torch.cuda.is_available():
        print(
            "no GPU here: nothing is run. LABCODE_SCALE=full python -m labcode.run CHAPTER --paper KEY tries one anyway"
        )
        return 0
    began, failed, count = time.perf_counter(), 0, len(waiting)
    while waiting:
        left = None if budget is None else budget - (time.perf_counter() - began)
        if left is not None and left < 60:
            print(f"the time budget is spent; {len(waiting)} still wait")
            break
        paper = next((w for w in waiting if left is None or 60 * w.minutes <= left), waiting[0])
        waiting.remove(paper)
        print(f"{count - len(waiting)} of {count}: {paper.paper}", flush=True)
        try:
            code = subprocess.run(paper.command, timeout=left, check=False).returncode
            if code:
                failed += 1
                print(f"{paper.paper}: failed with exit status {code}; it stays in the queue")
        except subprocess.TimeoutExpired:
            print(f"{paper.paper}: stopped at the end of the time budget; its checkpoints stay")
    return failed


def long_queue() -> list[str]:
    """Chapters whose long results are missing or older than their code."""
    wanted = []
    for twin in sorted((root() / "notebooks").glob("*/*.py")):
        chapter = f"{twin.parent.name}/{twin.stem}"
        claims = read(root() / "book" / "results" / "long" / f"{chapter}.json")["claims"]
        if not claims or any(c.code != fingerprint(chapter, "long") for c in claims):
            wanted.append(chapter)
    return wanted


def run_long(only: Sequence[str] = (), seeds: int = 3, at_once: int = 2) -> int:
    """Run chapters at long scale, ``at_once`` of them, each in a process of its own: those named, or the long queue.

    A chapter that was stopped goes on from the trainings that it finished. Returns how many failed.
    """
    waiting, running, failed = list(only) or long_queue(), {}, 0
    print(f"{len(waiting)} chapters at long scale, {seeds} seeds each: {', '.join(waiting) or 'nothing has changed'}")
    while waiting or running:
        while waiting and len(running) < at_once:
            options = ["--scale", "long", "--seeds", str(seeds), "--write"]
            chapter = waiting.pop(0)
            running[chapter] = time.perf_counter(), subprocess.Popen(
                [sys.executable, "-m", "labcode.run", chapter, *options], stdout=subprocess.DEVNULL
            )
        for chapter, (began, process) in list(running.items()):
            if process.poll() is not None:
                del running[chapter]
                failed += process.returncode != 0
                end = f"failed with status {process.returncode}" if process.returncode else "done"
                print(f"{chapter}: {end} after {(time.perf_counter() - began) / 60:.1f} min", flush=True)
        time.sleep(0.5)
    return failed
