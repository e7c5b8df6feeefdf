"""The ledger: a notebook measures, the ledger judges, the pages read the ledger."""

import json
import math
import statistics
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from .curves import Curve
from .judging import SCALES, VERDICTS, above, interval, judge  # noqa: F401


@dataclass
class Record:
    """One measured statement about one paper, with its provenance."""

    paper: str
    statement: str
    kind: str  # "claim" (two arms over seeds) or "exact" (a value against a bound)
    verdict: str
    seeds: list[int]
    seconds: float
    device: str
    data: str
    versions: dict[str, str]
    commit: str
    code: str  # fingerprint of the chapter's code that measured it
    date: str
    ours: list[float] | None = None
    baseline: list[float] | None = None
    margin: float | None = None
    higher_is_better: bool | None = None
    interval: list[float] | None = None
    tolerance: float | None = None
    floor: list[float] | None = None  # what an untrained network, or the trivial answer, reaches with each seed
    value: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self):
        optional = {"interval", "tolerance", "higher_is_better", "floor"}
        needed = {"ours", "baseline", "margin"} if self.kind == "claim" else {"value"}
        own = {"ours", "baseline", "margin", "value", "at_most", "at_least"}
        for name, value in asdict(self).items():
            if name in optional or (name in own and name not in needed):
                continue
            if value is None or value == "" or value == [] or value == {}:
                raise ValueError(f"{self.paper}: a record needs {name}, got {value!r}")
        if self.kind not in ("claim", "exact"):
            raise ValueError(f"{self.paper}: kind must be 'claim' or 'exact', got {self.kind!r}")
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.paper}: verdict must be one of {VERDICTS}, got {self.verdict!r}")
        if self.kind == "exact" and (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"{self.paper}: an exact statement needs one bound, at_most or at_least")

    @property
    def differences(self) -> list[float]:
        sign = 1 if self.higher_is_better else -1
        return [sign * (a - b) for a, b in zip(self.ours, self.baseline, strict=True)]

    def judged(self) -> str:
        """The verdict its own numbers give."""
        if self.kind == "claim":
            taught = self.floor is None or any(
                above(arm, self.floor, self.higher_is_better) for arm in (self.ours, self.baseline)
            )
            return judge(self.differences, self.margin) if taught else "untaught"
        held = self.value <= self.at_most if self.at_most is not None else self.value >= self.at_least
        return "supported" if held else "reversed"

    def allowed(self) -> float:
        """How far a re-run's value may lie from this record's value of the same seed."""
        if self.tolerance is not None:
            return self.tolerance
        arms = [self.ours, self.baseline]
        sd = max((statistics.stdev(a) for a in arms if len(a) > 1), default=0.0)
        return max(3 * sd, 0.02 * max(1.0, *(abs(v) for a in arms for v in a)))

    def allowed_difference(self) -> float:
        """How far a re-run's paired difference may lie from this record's: seeds that share data differ in both arms
        alike, so a method that does nothing can hide in the arms' tolerance and not in this one. Four standard
        deviations: five seeds know theirs to about a third, and another processor's rounding can redraw a seed."""
        if self.tolerance is not None:
            return self.tolerance
        spread = statistics.stdev(self.differences) if len(self.differences) > 1 else 0.0
        return max(4 * spread, 0.01 * max(1.0, *(abs(v) for v in (*self.ours, *self.baseline))))

    def evidence(self) -> str:
        """The numbers in one line."""
        if self.kind == "exact":
            bound = f"at most {self.at_most:.3g}" if self.at_most is not None else f"at least {self.at_least:.3g}"
            return f"{self.value:.3g}, {bound} wanted"
        text = f"{_arm(self.ours)} against {_arm(self.baseline)}, at least {self.margin:+g} wanted"
        if self.interval:
            low, high = self.interval
            text += f", difference {statistics.fmean(self.differences):+.3g} [{low:+.3g}, {high:+.3g}]"
        if self.floor:
            text += f", floor {_arm(self.floor)}"
        return text + f", {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"

    def __repr__(self) -> str:
        return f"{self.verdict}: {self.statement} ({self.evidence()})"

    def _repr_html_(self) -> str:
        """The statement with its verdict drawn. The book puts the other scales beside it, found by the comment."""
        from .drawn import block

        return f"<!-- claim {self.paper}: {escape(self.statement)} -->" + block({"this run": self})


def _arm(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.3g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean


class Table(list):
    """Records as a table."""

    def __repr__(self) -> str:
        return "\n".join(f"{r.paper:26} {r!r}" for r in self) or "no records yet"

    def _repr_markdown_(self) -> str:
        rows = [f"| [{r.paper}](#{r.paper}) | {r.statement} | {r.evidence()} | **{r.verdict}** |" for r in self]
        return "\n".join(["| paper | statement | measured | verdict |", "|---|---|---|---|", *rows])


@dataclass
class Summary:
    """A chapter's methods in one measure, beside what an untrained network and all labels give."""

    measure: str
    data: str
    seeds: list[int]
    rows: dict[str, list[float]]  # method -> one value a seed
    floor: str | None = None  # the row that counts as 0 of the way
    ceiling: str | None = None  # the row that counts as 1

    def __post_init__(self):
        if not self.rows:
            raise ValueError("rows must hold at least one method")
        for name, values in self.rows.items():
            if len(values) != len(self.seeds) or not all(math.isfinite(v) for v in values):
                raise ValueError(f"rows[{name!r}] must be {len(self.seeds)} finite values, one a seed, got {values}")
        for end in (self.floor, self.ceiling):
            if end is not None and end not in self.rows:
                raise ValueError(f"floor and ceiling must be rows, got {end!r}")

    def way(self, name: str) -> float | None:
        """Share of the way from floor to ceiling, from the means over the seeds; None without both."""
        if self.floor is None or self.ceiling is None:
            return None
        low, high, value = (statistics.fmean(self.rows[n]) for n in (self.floor, self.ceiling, name))
        return (value - low) / (high - low) if high != low else None

    def differs(self, old: "Summary") -> list[str]:
        """What of it lies outside the committed summary's tolerance, in words; seeds that both have are compared."""
        amiss = [f"{self.measure}: {name} was not measured" for name in old.rows if name not in self.rows]
        for name, values in self.rows.items():
            was = dict(zip(old.seeds, old.rows.get(name, [None] * len(old.seeds)), strict=True))
            known = [v for v in was.values() if v is not None]
            sd = statistics.stdev(known) if len(known) > 1 else 0.0
            allowed = max(3 * sd, 0.02 * max([1.0, *map(abs, known)]))
            for seed, value in zip(self.seeds, values, strict=True):
                if was.get(seed) is not None and not abs(value - was[seed]) <= allowed:
                    amiss.append(
                        f"{self.measure}: {name} is {value:.4g} for seed {seed}, committed {was[seed]:.4g}, "
                        f"tolerance {allowed:.2g}"
                    )
        return amiss

    def _repr_markdown_(self) -> str:
        lines = [f"| | {self.measure} | share of the way |", "|---|---|---|"]
        for name, values in self.rows.items():
            way = self.way(name)
            lines.append(f"| {name} | {_arm(values)} | {'' if way is None else f'{way:.2f}'} |")
        return "\n".join(lines)


def compare(new: Record, old: Record) -> list[str]:
    """What a re-run did that the committed record does not allow, in words; empty when they agree.

    Values and paired differences are compared seed by seed, over the seeds that both have.
    """
    where, amiss = f"{new.paper}: “{new.statement}”", []
    if new.kind != old.kind:
        return [f"{where} was {old.kind}, is {new.kind}"]
    if new.kind == "claim":
        for arm in ("ours", "baseline", *(["floor"] if new.floor and old.floor else [])):
            was = dict(zip(old.seeds, getattr(old, arm), strict=True))
            for seed, value in zip(new.seeds, getattr(new, arm), strict=True):
                if seed in was and not abs(value - was[seed]) <= old.allowed():
                    amiss.append(
                        f"{where}: {arm} is {value:.4g} for seed {seed}, committed {was[seed]:.4g}, "
                        f"tolerance {old.allowed():.2g}"
                    )
        gap = dict(zip(old.seeds, old.differences, strict=True))
        for seed, value in zip(new.seeds, new.differences, strict=True):
            if not amiss and seed in gap and not abs(value - gap[seed]) <= old.allowed_difference():
                amiss.append(
                    f"{where}: the difference is {value:+.4g} for seed {seed}, committed {gap[seed]:+.4g}, "
                    f"tolerance {old.allowed_difference():.2g}"
                )
    if amiss or new.kind == "exact" or new.seeds == old.seeds:
        if "supported" in (both := {new.judged(), old.verdict}) and both & {"smaller", "reversed"}:
            amiss.append(f"{where}: the verdict turned from {old.verdict} to {new.judged()}")
    return amiss


def read(file: Path) -> dict:
    """A results file: its fields, with ``claims`` as records. An absent file gives an empty one."""
    if not file.exists():
        return {"claims": [], "curves": [], "summary": None}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        summary = Summary(**found["summary"]) if found.get("summary") else None
        claims, curves = [Record(**c) for c in found["claims"]], [Curve(**c) for c in found.get("curves", ())]
        return found | {"claims": claims, "curves": curves, "summary": summary}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): restore it with git, or delete it and run the chapter"
        ) from error


def write(
    file: Path, chapter: str, scale: str, seeds: list[int], seconds: float, claims: list[Record],
    summary: Summary | None = None, curves: list | None = None,
) -> None:  # fmt: skip
    """Write a results file in one piece, sorted, so that a diff shows what changed."""
    body = [{k: v for k, v in asdict(c).items() if v is not None} for c in claims]
    body.sort(key=lambda c: (c["paper"], c["statement"]))
    found = dict(chapter=chapter, scale=scale, seeds=seeds, seconds=round(seconds, 1), claims=body)
    if curves:
        found["curves"] = sorted((asdict(c) for c in curves), key=lambda c: (c["paper"], c["name"]))
    if summary:
        found["summary"] = asdict(summary)
    put(file, found)


def put(file: Path, found: dict | list) -> None:
    """Write JSON in one piece, aside and then renamed: whoever reads finds the old file or the new one, whole."""
    put_bytes(file, (json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def put_bytes(file: Path, content: bytes) -> None:
    """Write a file in one piece, aside and then renamed; its folder is made."""
    from ..data.files import write_aside

    file.parent.mkdir(parents=True, exist_ok=True)
    write_aside(file, content)


def alone(file: Path):
    """A context in which no other process is between reading a results file and writing it; a killed one lets go.

    >>> with alone(file):
    ...     put(file, [*json.loads(file.read_text()), row])
    """
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file.with_name(f".{file.name}.lock"))
