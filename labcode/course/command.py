"""A run of a chapter: its scale, device and seeds, and the ledger that it fills.

    python -m labcode.run self_supervision/contrastive                     the chapter, without Jupyter
    python -m labcode.run self_supervision/contrastive --paper moco        one paper of it
    python -m labcode.run self_supervision/contrastive --scale full --seeds 3
    python -m labcode.run self_supervision/contrastive --tune              choose settings: seeds and data of their own
    python -m labcode.run --long-queue                                     what is missing or stale at long scale
    python -m labcode.run --full-queue --budget 25m                        what is missing or stale at full scale

Results are written where none stand, or some of no more seeds; where more seeds stand, the run is compared with them.
``--write`` replaces those too, ``--compare`` writes nothing.

Environment: LABCODE_SCALE (quick, long or full; default by device), LABCODE_SEEDS (how many), LABCODE_WRITE (1: write
the results, fill: unless some of more seeds stand; else ``close`` only compares), LABCODE_TUNE=1 (seeds from 100 on and
a validation split in place of the test split, nothing is compared or written), LABCODE_MAX_STEPS (a dry run: so many
steps a training, nothing is judged or written), LABCODE_PROGRESS=0 (no bars).
"""

import argparse
import os
import re
from collections.abc import Sequence

from .ledger import SCALES
from .provenance import root
from .queue import run_long, run_queue
from .twin import script


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


def _minutes(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"a duration like 90s, 25m or 2h is wanted, got {text!r}")
    return float(match.group(1)) * {"s": 1, "m": 60, "h": 3600}[match.group(2)]


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m labcode.run", description=__doc__.split("\n\n")[0])
    options.add_argument("chapter", nargs="?", help="part/chapter, such as self_supervision/contrastive")
    options.add_argument("--paper", help="one paper's key")
    options.add_argument("--scale", choices=SCALES)
    options.add_argument("--seeds", type=int, metavar="N")
    options.add_argument("--write", action="store_true", help="write the results, even over some of more seeds")
    options.add_argument("--compare", action="store_true", help="compare with the committed results, write nothing")
    options.add_argument("--tune", action="store_true", help="seeds and data for choosing settings; write nothing")
    options.add_argument(
        "--dry", type=int, metavar="STEPS", help="a few steps a training: tries the code, judges nothing"
    )
    options.add_argument("--full-queue", action="store_true", help="what full scale lacks; run where there is a GPU")
    options.add_argument("--long-queue", action="store_true", help="chapters that changed since their long run; or one")
    options.add_argument("--budget", type=_minutes, metavar="25m", help="time for the queue")
    given = options.parse_args(arguments)
    if given.full_queue:
        if alone := [k for k, v in vars(given).items() if v and k not in ("full_queue", "budget")]:
            options.error(f"--full-queue goes with --budget only, got {', '.join(alone)}")
        return run_queue(given.budget)
    if given.long_queue:
        if more := [k for k, v in vars(given).items() if v and k not in ("long_queue", "chapter", "seeds")]:
            options.error(f"--long-queue goes with a chapter and --seeds only, got {', '.join(more)}")
        return run_long([given.chapter] if given.chapter else [], given.seeds or 3)
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
