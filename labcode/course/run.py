"""A run of a chapter: its scale, device and seeds, and the ledger that it fills."""

import datetime
import os
import re
import sys
import time
from collections.abc import Sequence

from .cards import keys
from .ledger import Record, Summary, Table, alone, compare, interval, read, write
from .provenance import commit, device_name, fingerprint, root, versions


def start(chapter: str) -> "Run":
    """Begin a chapter's run: ``run = lab.start("self_supervision/contrastive")``.

    At quick scale on a CPU it sets one thread, so that numbers do not depend on the machine's cores.

    Raises ValueError for a name that is not part/chapter, an unknown scale, or a number of seeds below one.
    """
    return Run(chapter)


class Run:
    """One run of one chapter. ``pick`` chooses by scale; ``claim`` and ``exact`` record; ``close`` compares."""

    def __init__(self, chapter: str):
        import torch

        if not re.fullmatch(r"[a-z0-9_]+/[a-z0-9_]+", chapter):
            raise ValueError(f"chapter must look like 'part/chapter', got {chapter!r}")
        gpu = torch.cuda.is_available()
        self.chapter = chapter
        self.scale = os.environ.get("LABCODE_SCALE") or ("full" if gpu else "quick")
        if self.scale not in ("quick", "full"):
            raise ValueError(f"LABCODE_SCALE must be 'quick' or 'full', got {self.scale!r}")
        count = int(os.environ.get("LABCODE_SEEDS") or 1)
        if count < 1:
            raise ValueError(f"LABCODE_SEEDS must be at least 1, got {count}")
        self.tuning = os.environ.get("LABCODE_TUNE") == "1"
        self.seeds = tuple(range(100, 100 + count) if self.tuning else range(count))
        # names of the training and test split: what is reported never takes part in a choice
        self.splits = ("fit", "validation") if self.tuning else ("train", "test")
        self.device = torch.device("cuda" if gpu and self.scale == "full" else "cpu")
        self.precision = "bf16" if self.device.type == "cuda" else "no"
        self.dry = "LABCODE_MAX_STEPS" in os.environ
        self.data: str | None = None  # where the numbers come from; every record carries it
        self.records = Table()
        self.file = root() / "book" / "results" / self.scale / f"{chapter}.json"
        self.committed = {"claims": [], "summary": None} if self.tuning else read(self.file)
        self.summary: Summary | None = None
        self._held: dict = {}
        # one thread on a CPU: processor time is the wall clock of an idle machine, and other programs do not count
        self._clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        self._started = self._last = self._clock()
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        torch.backends.cuda.matmul.allow_tf32 = True

    def __repr__(self) -> str:
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        return f"{self.chapter} at {self.scale} scale on {self.device}, {seeds}" + ", tuning" * self.tuning

    def pick(self, *, quick, full):
        """The value for this run's scale."""
        return full if self.scale == "full" else quick

    def once(self, key, make):
        """``make()`` the first time a key is asked for, and what it gave ever after: trainings that papers share."""
        if key not in self._held:
            self._held[key] = make()
        return self._held[key]

    def generator(self, seed: int):
        """A random generator on the run's device."""
        import torch

        return torch.Generator(self.device).manual_seed(seed)

    def claim(
        self,
        paper: str,
        statement: str,
        ours: Sequence[float],
        baseline: Sequence[float],
        margin: float,
        higher_is_better: bool = True,
        tolerance: float | None = None,
        data: str | None = None,
    ) -> Record:
        """Record that ``ours`` exceeds ``baseline`` by at least ``margin`` (falls below it, with
        ``higher_is_better=False``), one value per seed of the run, the same seeds for both arms.

        margin     decided before looking; negative for "not worse by more than"
        tolerance  how far a re-run may lie from the committed value; see ``ledger.Record.allowed``
        data       where the numbers come from, if not ``run.data``

        Raises ValueError for arms that have not one finite value per seed, and for a missing field.
        """
        ours, baseline = [float(v) for v in ours], [float(v) for v in baseline]
        for name, arm in (("ours", ours), ("baseline", baseline)):
            if len(arm) != len(self.seeds):
                raise ValueError(f"{name} must have one value per seed, {len(self.seeds)}, got {len(arm)}")
            if not all(abs(v) < float("inf") for v in arm):
                raise ValueError(f"{name} must be finite, got {arm}")
        sign = 1 if higher_is_better else -1
        bounds = interval([sign * (a - b) for a, b in zip(ours, baseline, strict=True)])
        ours, baseline = [round(v, 6) for v in ours], [round(v, 6) for v in baseline]
        return self._record(
            Record,
            paper=paper,
            statement=statement,
            kind="claim",
            ours=ours,
            baseline=baseline,
            margin=float(margin),
            higher_is_better=higher_is_better,
            interval=bounds and [round(b, 6) for b in bounds],
            tolerance=tolerance,
            data=data or self.data,
        )

    def exact(
        self,
        paper: str,
        statement: str,
        value: float,
        at_most: float | None = None,
        at_least: float | None = None,
        data: str | None = None,
    ) -> Record:
        """Record an identity, theorem or equality: ``value`` against one bound."""
        return self._record(
            Record,
            paper=paper,
            statement=statement,
            kind="exact",
            value=float(f"{float(value):.6g}"),
            at_most=at_most,
            at_least=at_least,
            data=data or self.data,
        )

    def summarise(
        self, measure: str, rows: dict[str, Sequence[float]], floor: str | None = None, ceiling: str | None = None,
        data: str | None = None,
    ) -> Summary:  # fmt: skip
        """The chapter's lines in the part's table of results: one measure, one value a seed for every method.

        floor, ceiling  rows that count as 0 and 1 of the way: the untrained network and the one taught with all labels

        Raises ValueError for rows that have not one finite value a seed, and for a floor or ceiling that is no row.
        """
        rounded = {name: [round(float(v), 6) for v in values] for name, values in rows.items()}
        self.summary = Summary(measure, data or self.data, list(self.seeds), rounded, floor, ceiling)
        return self.summary

    def _record(self, make, **fields) -> Record:
        now = self._clock()
        record = make(
            verdict="inconclusive",
            seeds=list(self.seeds),
            seconds=round(now - self._last, 1),
            device=device_name(self.device),
            versions=versions(),
            commit=commit(),
            code=fingerprint(self.chapter),
            date=datetime.date.today().isoformat(),
            **fields,
        )
        record.verdict = record.judged()
        self._last = now
        key = (record.paper, record.statement)
        if any((r.paper, r.statement) == key for r in self.records):
            raise ValueError(f"{record.paper}: this statement is already recorded: {record.statement!r}")
        committed = self._committed(record)
        if committed and not self._writes and not self.dry and not compare(record, committed):
            record.verdict = committed.verdict  # reproduced: the verdict over all committed seeds stands
        self.records.append(record)
        if "ipykernel" not in sys.modules:
            print(f"{record.paper:24} {record!r}", flush=True)
        return record

    @property
    def _before(self) -> list[Record]:
        """The committed records of the papers that this run measures."""
        only = os.environ.get("LABCODE_PAPER")
        return [c for c in self.committed["claims"] if not only or c.paper == only]

    @property
    def _writes(self) -> bool:
        wanted = os.environ.get("LABCODE_WRITE")
        more = any(len(c.seeds) > len(self.seeds) for c in self._before)
        return wanted == "1" or (wanted == "fill" and not more)

    def _committed(self, record: Record) -> Record | None:
        same = (c for c in self.committed["claims"] if (c.paper, c.statement) == (record.paper, record.statement))
        return next(same, None)

    def table(self, *papers: str) -> Table:
        """The records so far, of all papers or of those named, as a table."""
        return Table(r for r in self.records if not papers or r.paper in papers)

    def verdicts(self, *papers: str) -> None:
        """Print one line a record: paper, verdict, statement. A re-run that reproduces the committed values within
        their tolerance prints the same lines."""
        for record in self.table(*papers):
            print(f"{record.paper:24} {record.verdict:13} {record.statement}")

    def close(self) -> None:
        """End the run: compare with the committed results, or write them, as LABCODE_WRITE says.

        Raises AssertionError, listing all of it, for a value outside its tolerance, a verdict that turned from
        supported to contradicted or back, a committed claim that was not measured, and a paper without a claim.
        """
        if self.dry or self.tuning:
            what = "dry run" if self.dry else "tuning"
            print(f"{what}: {len(self.records)} records made, none compared, nothing written")
            return
        only = os.environ.get("LABCODE_PAPER")
        seconds = self._clock() - self._started
        before = self._before
        amiss = [line for r in self.records if (old := self._committed(r)) for line in compare(r, old)]
        made = {(r.paper, r.statement) for r in self.records}
        amiss += [f"{c.paper}: “{c.statement}” was not measured" for c in before if (c.paper, c.statement) not in made]
        was = None if only else self.committed["summary"]
        if was:
            amiss += self.summary.differs(was) if self.summary else [f"{was.measure}: the summary was not made"]
        have = {r.paper for r in self.records}
        amiss += [
            f"{key}: a paper with no claim" for key in keys(self.chapter) if key not in have and only in (None, key)
        ]
        if self._writes:
            with alone(self.file):
                now = read(self.file)  # another paper's process may have written since this run began
                kept = [c for c in now["claims"] if only and c.paper != only]
                if kept:
                    seconds = now.get("seconds", 0) or seconds
                claims, summary = kept + list(self.records), now["summary"] if only else self.summary
                seeds = now.get("seeds") if kept else None  # the file's own stay those of the chapter as a whole
                write(self.file, self.chapter, self.scale, seeds or list(self.seeds), seconds, claims, summary)
            print(f"wrote {len(self.records)} records")
            for line in amiss if "ipykernel" not in sys.modules else ():  # a page tells what is, git what it was
                print("changed:", line)
            return
        if os.environ.get("LABCODE_WRITE") == "fill":
            most = max(len(c.seeds) for c in before)
            print(f"nothing is written: the results that stand have {most} seeds, this run {len(self.seeds)}. "
                  f"--seeds {most} replaces them, --write in any case")  # fmt: skip
        if amiss:
            raise AssertionError("this run differs from the committed results:\n  " + "\n  ".join(amiss))
        elif before:
            print(f"all {len(before)} committed records reproduced")
        else:
            print("no committed results to compare with")
