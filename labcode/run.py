"""A run of a chapter: its scale, device and seeds, and the ledger that it fills.

    python -m labcode.run self_supervision/contrastive                     the chapter, without Jupyter
    python -m labcode.run self_supervision/contrastive --paper moco        one paper of it
    python -m labcode.run self_supervision/contrastive --scale full --seeds 3
    python -m labcode.run self_supervision/contrastive --tune              choose settings: seeds and data of their own
    python -m labcode.run --full-queue --budget 25m                        what is missing or stale at full scale

Results are written where none stand, or some of no more seeds; where more seeds stand, the run is compared with them.
``--write`` replaces those too, ``--compare`` writes nothing.

Environment: LABCODE_SCALE (quick or full; default by device), LABCODE_SEEDS (how many), LABCODE_WRITE (1: write the
results, fill: unless some of more seeds stand; else ``close`` only compares), LABCODE_TUNE=1 (seeds from 100 on and a
validation split in place of the test split, nothing is compared or written), LABCODE_MAX_STEPS (a dry run: so many
steps a training, nothing is judged or written), LABCODE_PROGRESS=0 (no bars).
"""

import argparse
import datetime
import hashlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import __version__
from .ledger import Record, Summary, Table, alone, compare, interval, read, write

PACKAGE = Path(__file__).parent
SETUP_CELL = r'(?ms)^# %% tags=\[[^\]]*"setup"[^\]]*\].*?(?=^# %%|\Z)'


def root() -> Path:
    """The course's folder: the nearest one above the working directory, or above the package, that has notebooks/."""
    for folder in (Path.cwd(), *Path.cwd().parents, PACKAGE.parent):
        if (folder / "_toc.yml").exists() and (folder / "notebooks").is_dir():
            return folder
    return Path.cwd()


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
            device=_device(self.device),
            versions=_versions(),
            commit=_commit(),
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
            f"{key}: a paper with no claim" for key in _keys(self.chapter) if key not in have and only in (None, key)
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


def _keys(chapter: str) -> list[str]:
    from .cards import papers

    try:
        return [card.key for card in papers(chapter)]
    except ValueError:
        return []


def _device(device) -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        model = platform.processor() or platform.machine()
    return f"CPU ({model.strip()})"


def _versions() -> dict[str, str]:
    import torch

    return {"labcode": __version__, "python": platform.python_version(), "torch": torch.__version__}


def _commit() -> str:
    """The commit of the course that is running, with "-dirty" for changes outside the results and notebooks."""

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=PACKAGE, capture_output=True, text=True, timeout=20, check=True
        ).stdout

    try:
        git("ls-files", "--error-unmatch", "run.py")  # installed, labcode may lie inside another project's repository
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/labcode", ":/notebooks/**/*.py")
        return git("rev-parse", "--short=12", "HEAD").strip() + ("-dirty" if changed.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return f"labcode {__version__}"


def sources(chapter: str) -> list[Path]:
    """The chapter's module and, behind it, its siblings of the same part that it imports."""
    found = [PACKAGE / f"{chapter}.py"]
    for module in found:  # grows while it is read
        text = module.read_text(encoding="utf-8") if module.exists() else ""
        names = re.findall(r"^from \.(\w+) import", text, re.M) + re.findall(r"^from \. import (.+)", text, re.M)
        siblings = [module.with_name(f"{name.split(' as ')[0].strip()}.py") for n in names for name in n.split(",")]
        found += [s for s in siblings if s.exists() and s not in found]
    return found[:1] + sorted(found[1:])


def fingerprint(chapter: str) -> str:
    """A hash of what measures: the chapter's modules and the code cells of its notebook's twin.

    The cell tagged ``setup`` only installs labcode: results stay valid when it changes, as with the project's address.
    """
    twin = root() / "notebooks" / f"{chapter}.py"
    text = "".join(module.read_text(encoding="utf-8") for module in sources(chapter) if module.exists())
    if twin.exists():
        cells = re.sub(SETUP_CELL, "", twin.read_text(encoding="utf-8"))
        text += "".join(code for kind, _, code in _cells(cells) if kind == "code")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def checkpoints(chapter: str) -> Path:
    """The folder of a chapter's trainings at full scale, one for each state of the code, the package's and the twin's:
    a training never goes on, and is never taken for finished, with the weights of other code. Old folders can go.
    """
    package = b"".join(module.read_bytes() for module in sorted(PACKAGE.rglob("*.py")))
    code = hashlib.sha256(package + fingerprint(chapter).encode()).hexdigest()[:12]
    return root() / ".checkpoints" / chapter / code


def _cells(text: str) -> list[tuple[str, int, str]]:
    """The cells of a py:percent script: ("code" or "markdown", first line, text)."""
    cells, kind, first, lines = [], None, 0, []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.startswith("# %%"):
            if kind:
                cells.append((kind, first, "".join(lines)))
            kind, first, lines = ("markdown" if "[markdown]" in line else "code"), number + 1, []
        else:
            lines.append(line)
    return cells + ([(kind, first, "".join(lines))] if kind else [])


def sections(text: str) -> list[tuple[str | None, str, int, str]]:
    """The cells of a twin with the section each belongs to: (key, kind, first line, text).

    A paper's section begins at its target ``(key)=`` and ends at the next heading of its level or above, which is
    another target or a heading without one. Cells outside the papers' sections are shared by all and have the key None,
    but for the exercises, which belong to no paper: theirs is "".
    """
    key, found = None, []
    for kind, first, body in _cells(text):
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


def execute(chapter: str, paper: str | None = None) -> None:
    """Run a chapter's twin in this process."""
    twin = root() / "notebooks" / f"{chapter}.py"
    if not twin.exists():
        raise FileNotFoundError(f"no chapter {chapter!r}: {twin} does not exist")
    if paper:
        os.environ["LABCODE_PAPER"] = paper
    import matplotlib

    matplotlib.use("Agg")
    code = compile(script(twin.read_text(encoding="utf-8"), paper), str(twin), "exec")
    exec(code, {"__name__": "__main__", "__file__": str(twin)})


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
        code = fingerprint(chapter)
        for key in _keys(chapter):
            records, small = ([c for c in found if c.paper == key] for found in (full, quick))
            seconds = sum(c.seconds for c in records) or 60 * sum(c.seconds for c in small)
            minutes = max(1.0, seconds / 60)
            worth = max(1, len(small)) / minutes
            if not records:
                wanted.append(Waiting(chapter, key, "missing", minutes, worth))
            elif any(c.code != code for c in records):
                wanted.append(Waiting(chapter, key, "older than its code", minutes, worth / 2))
    return sorted(wanted, key=lambda w: -w.worth)


def run_queue(budget: float | None) -> int:
    """List the queue, papers and rows of the leaderboard, and, where there is a GPU, run it in processes of their own.

    budget  seconds. The run of most worth that fits into what is left comes next; where none does, the first one,
            which is stopped at the end and goes on from its checkpoints another time

    Each process writes its results in one piece at its end, so whatever is killed, what was finished stays, and the
    next queue goes on with the rest. Returns how many failed.
    """
    import torch

    from . import leaderboard

    waiting = sorted(queue() + leaderboard.waiting(), key=lambda w: -w.worth)
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


def _minutes(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"a duration like 90s, 25m or 2h is wanted, got {text!r}")
    return float(match.group(1)) * {"s": 1, "m": 60, "h": 3600}[match.group(2)]


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m labcode.run", description=__doc__.split("\n\n")[0])
    options.add_argument("chapter", nargs="?", help="part/chapter, such as self_supervision/contrastive")
    options.add_argument("--paper", help="one paper's key")
    options.add_argument("--scale", choices=("quick", "full"))
    options.add_argument("--seeds", type=int, metavar="N")
    options.add_argument("--write", action="store_true", help="write the results, even over some of more seeds")
    options.add_argument("--compare", action="store_true", help="compare with the committed results, write nothing")
    options.add_argument("--tune", action="store_true", help="seeds and data for choosing settings; write nothing")
    options.add_argument(
        "--dry", type=int, metavar="STEPS", help="a few steps a training: tries the code, judges nothing"
    )
    options.add_argument("--full-queue", action="store_true", help="what full scale lacks; run where there is a GPU")
    options.add_argument("--budget", type=_minutes, metavar="25m", help="time for the queue")
    given = options.parse_args(arguments)
    if given.full_queue:
        if alone := [k for k, v in vars(given).items() if v and k not in ("full_queue", "budget")]:
            options.error(f"--full-queue goes with --budget only, got {', '.join(alone)}")
        return run_queue(given.budget)
    if not given.chapter:
        options.error("name a chapter, such as self_supervision/contrastive")
    if given.write and given.compare:
        options.error("--write and --compare exclude each other")
    for name in ("seeds", "dry"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            options.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    twin = root() / "notebooks" / f"{given.chapter}.py"
    if not twin.exists():
        options.error(f"no chapter {given.chapter!r}: {twin} does not exist")
    try:
        script(twin.read_text(encoding="utf-8"), given.paper)
    except ValueError as error:
        options.error(f"--paper: {error}")
    settings = dict(LABCODE_SCALE=given.scale, LABCODE_SEEDS=given.seeds, LABCODE_MAX_STEPS=given.dry)
    settings["LABCODE_TUNE"] = 1 if given.tune else None
    os.environ.update({k: str(v) for k, v in settings.items() if v is not None})
    reads = given.compare or given.dry or given.tune
    os.environ["LABCODE_WRITE"] = "0" if reads else "1" if given.write else "fill"
    execute(given.chapter, given.paper)
    return 0


if __name__ == "__main__":
    sys.exit(main())
