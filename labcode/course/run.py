"""A run of a chapter: its scale, device and seeds, and the ledger that it fills."""

import datetime
import os
import re
import sys
import time
from collections.abc import Sequence

from .cards import keys, papers
from .curves import Curve, Pictures, picture_file, sheet
from .ledger import SCALES, Record, Summary, Table, alone, compare, interval, put_bytes, read, write
from .provenance import commit, device_name, fingerprint, root, versions

TUNING_SEED = 100  # settings are chosen on seeds from here on, results come from those before


def start(chapter: str, first_seed: int = 0) -> "Run":
    """Begin a chapter's run: ``run = lab.start("self_supervision/contrastive")``.

    first_seed  of the run's seeds, which follow it; 0 to 99, from 100 on they are for tuning. A chapter whose
                statements were changed after a look at seeds 0 to 4 is measured on those from 5 on: a statement that
                was chosen by its outcome is judged by seeds that took no part in the choice

    At quick scale on a CPU it sets one thread, so that numbers do not depend on the machine's cores.

    Raises ValueError for a name that is not part/chapter, an unknown scale, a number of seeds below one, and seeds
    that are not below 100.
    """
    return Run(chapter, first_seed)


class Run:
    """One run of one chapter. ``pick`` chooses by scale; ``claim`` and ``exact`` record; ``close`` compares."""

    def __init__(self, chapter: str, first_seed: int = 0):
        import torch

        if not re.fullmatch(r"[a-z0-9_]+/[a-z0-9_]+", chapter):
            raise ValueError(f"chapter must look like 'part/chapter', got {chapter!r}")
        gpu = torch.cuda.is_available()
        self.chapter = chapter
        self.scale = os.environ.get("LABCODE_SCALE") or ("full" if gpu else "quick")
        if self.scale not in SCALES:
            raise ValueError(f"LABCODE_SCALE must be 'quick', 'long' or 'full', got {self.scale!r}")
        count = int(os.environ.get("LABCODE_SEEDS") or 1)
        if count < 1:
            raise ValueError(f"LABCODE_SEEDS must be at least 1, got {count}")
        if not 0 <= first_seed <= TUNING_SEED - count:
            raise ValueError(f"first_seed must be 0 to {TUNING_SEED - count} for {count} seeds, got {first_seed}")
        self.tuning = os.environ.get("LABCODE_TUNE") == "1"
        first = TUNING_SEED if self.tuning else first_seed
        self.seeds = tuple(range(first, first + count))
        # names of the training and test split: what is reported never takes part in a choice
        self.splits = ("fit", "validation") if self.tuning else ("train", "test")
        # what a minute teaches may not last: at long scale every training takes four times as many steps
        os.environ["LABCODE_STRETCH"] = "4" if self.scale == "long" else "1"
        self.device = torch.device("cuda" if gpu and self.scale == "full" else "cpu")
        self.precision = "bf16" if self.device.type == "cuda" else "no"
        self.dry = "LABCODE_MAX_STEPS" in os.environ
        self.data: str | None = None  # where the numbers come from; every record carries it
        self.records = Table()
        self.file = root() / "book" / "results" / self.scale / f"{chapter}.json"
        self.curves: list[Curve] = []
        self.committed = {"claims": [], "curves": [], "summary": None} if self.tuning else read(self.file)
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
        seeds += f" from {self.seeds[0]} on" * (self.seeds[0] > 0)
        return f"{self.chapter} at {self.scale} scale on {self.device}, {seeds}" + ", tuning" * self.tuning

    def pick(self, *, quick, full, **long):
        """The value for this run's scale; at long scale ``long=``, or quick's where none is given."""
        if unknown := long.keys() - {"long"}:
            raise TypeError(f"pick takes quick, long and full, got {', '.join(unknown)}")
        return {"quick": quick, "long": long.get("long", quick), "full": full}[self.scale]

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
        floor: Sequence[float] | None = None,
        tolerance: float | None = None,
        data: str | None = None,
    ) -> Record:
        """Record that ``ours`` exceeds ``baseline`` by at least ``margin`` (falls below it, with
        ``higher_is_better=False``), one value per seed of the run, the same seeds for both arms.

        margin     decided before looking; negative for "not worse by more than"
        floor      for representations: what the untrained encoder reaches, one value a seed. Where no arm lies clearly
                   above it the verdict is *untaught*: a run of this length says nothing
        tolerance  how far a re-run may lie from the committed value; see ``ledger.Record.allowed``
        data       where the numbers come from, if not ``run.data``

        Raises ValueError for arms that have not one finite value per seed, and for a missing field.
        """
        ours, baseline = [float(v) for v in ours], [float(v) for v in baseline]
        floor = floor and [float(v) for v in floor]
        for name, arm in (("ours", ours), ("baseline", baseline), *([("floor", floor)] if floor else [])):
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
            floor=floor and [round(v, 6) for v in floor],
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

    def curve(
        self, paper: str, name: str, x: Sequence, arms: dict[str, Sequence[Sequence[float]]], xlabel: str, ylabel: str,
        log: bool = False, data: str | None = None,
    ) -> Curve:  # fmt: skip
        """Record what a paper shows along an axis, at least two points: for every arm, at each point one value a seed.

        ``lab.plots.curve`` draws it, with the committed longer runs over it.

        Raises ValueError for arms that have not one finite value a seed at each point, and for a name used before.
        """
        if any((c.paper, c.name) == (paper, name) for c in self.curves):
            raise ValueError(f"{paper}: this curve is already recorded: {name!r}")
        rounded = {arm: [[round(float(v), 6) for v in values] for values in points] for arm, points in arms.items()}
        told = dict(seeds=list(self.seeds), data=data or self.data, log=log) | self._provenance()
        made = Curve(paper, name, list(x), rounded, xlabel, ylabel, **told)
        for scale, file in self._longer_files():
            if same := [c for c in read(file)["curves"] if (c.paper, c.name) == (paper, name)]:
                made.longer = made.longer | {scale: same[0]}
        self.curves.append(made)
        return made

    def picture(self, paper: str, name: str, images, caption: str, columns: int = 8) -> Pictures:
        """A contact sheet of what was learnt: this run's, and beside it the committed one of the longest run.

        images  (n, c, h, w) or (n, h, w), uint8 or floats in [0, 1]

        Long and full runs keep theirs beside the results, at most 40 KB, when the results are written.
        """
        sheets = {self.scale: sheet(images, columns)}
        if self.scale != "quick":
            self._held["pictures", paper, name] = sheets[self.scale]
        for scale, file in self._longer_files():
            if (kept := picture_file(file, paper, name)).exists():
                sheets[scale] = kept.read_bytes()
        return Pictures(sheets, caption)

    def _longer_files(self):
        """The results files of longer runs of the chapter: scale and file."""
        for scale in SCALES[SCALES.index(self.scale) + 1 :]:
            yield scale, root() / "book" / "results" / scale / f"{self.chapter}.json"

    def _provenance(self) -> dict:
        """Of all that this run records: looked up once, since reading the code takes most of a second."""
        return self.once(
            "provenance",
            lambda: dict(
                device=device_name(self.device), versions=versions(), commit=commit(),
                code=fingerprint(self.chapter, self.scale), date=datetime.date.today().isoformat(),
            ),
        )  # fmt: skip

    def _record(self, make, **fields) -> Record:
        now = self._clock()
        record = make(
            verdict="inconclusive",
            seeds=list(self.seeds),
            seconds=round(now - self._last, 1),
            **self._provenance() | fields,
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

    def carry_over(self) -> "CarryOver":
        """What carries over: each claim at every scale that measured it, under what its paper reports."""
        return CarryOver(self)

    def verdicts(self, *papers: str) -> None:
        """Print one line a record: paper, verdict, statement. A re-run that reproduces the committed values within
        their tolerance prints the same lines."""
        for record in self.table(*papers):
            print(f"{record.paper:24} {record.verdict:13} {record.statement}")

    def close(self) -> None:
        """End the run: compare with the committed results, or write them, as LABCODE_WRITE says.

        Raises AssertionError, listing all of it, for a value outside its tolerance, a verdict that turned from
        supported to smaller or reversed, or back, a committed claim that was not measured, and a paper without a claim.
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
        drawn = {(c.paper, c.name): c for c in self.curves}
        for old in (c for c in self.committed["curves"] if only in (None, c.paper)):
            new = drawn.get((old.paper, old.name))
            amiss += new.differs(old) if new else [f"{old.paper}: curve “{old.name}” was not measured"]
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
                curves = [c for c in now["curves"] if only and c.paper != only] + self.curves
                seeds = now.get("seeds") if kept else None  # the file's own stay those of the chapter as a whole
                write(self.file, self.chapter, self.scale, seeds or list(self.seeds), seconds, claims, summary, curves)
                for key, png in self._held.items():
                    if isinstance(key, tuple) and key[0] == "pictures":
                        put_bytes(picture_file(self.file, *key[1:]), png)
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


class CarryOver:
    """The chapter's last table; the book makes it anew from the ledger, found by the comment."""

    def __init__(self, run: Run):
        self.run = run

    def __repr__(self) -> str:
        return f"what carries over of {len(self.run.records)} claims"

    def _repr_html_(self) -> str:
        from .drawn import carry_over

        told = [(c.key, c.name or c.key, c.reported) for c in papers(self.run.chapter)]
        longer = {scale: read(file)["claims"] for scale, file in self.run._longer_files()}
        return f"<!-- carry-over {self.run.chapter} -->" + carry_over(told, {self.run.scale: self.run.records} | longer)
