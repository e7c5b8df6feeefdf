"""How a verdict follows from numbers: intervals, margins and floors."""

import math
import statistics

VERDICTS = ("supported", "smaller", "reversed", "inconclusive", "untaught")
SCALES = ("quick", "long", "full")  # the longest speaks first

# Student's t, two-sided 95 %, for 1 … 30 degrees of freedom.
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def interval(values: list[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None for a single value."""
    if len(values) < 2:
        return None
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = (T95[len(values) - 2] if len(values) <= 31 else 1.96) * sd / math.sqrt(len(values))
    return mean - half, mean + half


def judge(differences: list[float], margin: float) -> str:
    """The verdict on "ours exceeds the baseline by at least ``margin``" from paired differences.

    With several seeds the 95 % interval decides. *Supported*: wholly at or above the margin. *Smaller*: wholly below
    the margin, not wholly below zero. *Reversed*: wholly below zero, or, for a negative margin, below what it allows.
    *Inconclusive*: anything else. A single seed is its own interval.
    """
    low, high = interval(differences) or (differences[0], differences[0])
    if low >= margin:
        return "supported"
    if high < min(margin, 0):
        return "reversed"
    return "smaller" if high < margin else "inconclusive"


def above(values: list[float], floor: list[float], higher_is_better: bool = True) -> bool:
    """Whether an arm lies clearly on the better side of a floor, seed by seed; a single seed needs only be better."""
    sign = 1 if higher_is_better else -1
    gains = [sign * (value - below) for value, below in zip(values, floor, strict=True)]
    return judge(gains, 1e-9) == "supported"
