"""Ten methods at the size that others publish: CIFAR-10, ResNet-18, 200 epochs at batch 512, last epoch.

    python -m labcode.leaderboard                            what is missing, one method after another
    python -m labcode.leaderboard --method simclr --seed 0   one of them; --again although it was measured
    python -m labcode.leaderboard --dry 3                    a few steps each: tries the code, writes nothing

Every method has the chapters' stage: the same images on the device, the same views, one fused forward, the same number
of updates; learning rate and optimiser are those of its chapter. Measured are the weighted kNN vote (k = 200) and an
offline linear probe of the encoder after the last epoch. ``make full`` runs the table with everything else.

Results stand in ``book/results/leaderboard.json``, written aside and renamed after each method, so that whatever is
killed, what was finished stays; a method that was interrupted goes on from its checkpoint. A row carries a hash of the
code that trained it: one of other code counts as missing.
"""

import argparse
import datetime
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import nn

from ..data import DataError
from ..train import History
from .ledger import alone, put
from .provenance import commit, device_name, root, sources, versions
from .run import start
from .stage import Stage

EPOCHS, SEEDS = 200, 3
CHAPTERS = ("self_supervision/contrastive", "self_supervision/redundancy")  # where the methods come from
ADAM = dict(lr=1e-3, optimizer="adamw", weight_decay=1e-6)  # what the chapter on redundancy trains with


@dataclass(frozen=True)
class Entry:
    """How a method is trained. Titles and published figures stand in ``book/leaderboard.yml``."""

    make: Callable[[nn.Module, Stage], nn.Module] | None = None  # the method of an encoder
    options: dict = field(default_factory=dict)  # where its training departs from the stage's
    one_view: bool = False


def entries() -> dict[str, Entry]:
    """The methods by name, with their chapters' settings at full scale, and two references."""
    from ..self_supervision import contrastive as C
    from ..self_supervision import redundancy as R

    def two(loss):
        return lambda e, _: R.TwoViews(e, loss, 2048, "mlp")

    moco = dict(queue=4096, momentum=0.99, splits=8, head="mlp", tau=0.2)
    all4one = dict(dim=64, queue=4096, momentum=0.99, hidden=1024, layers=3)
    debiased = partial(C.debiased_nt_xent, tau_plus=0.1, tau=0.5)
    return {
        "untrained": Entry(),
        "supervised": Entry(),
        "simclr": Entry(lambda e, _: C.SimCLR(e, tau=0.5, head="mlp")),
        "moco_v2": Entry(lambda e, _: C.MoCo(e, **moco)),
        "npid": Entry(lambda e, stage: C.NPID(e, len(stage.train_images), tau=0.1), dict(lr=0.03), one_view=True),
        "byol": Entry(lambda e, _: R.LinearBYOL(e, 64, "stiefel"), ADAM),
        "barlow_twins": Entry(two(partial(R.barlow_twins, lam=0.0051)), ADAM),
        "mixed_barlow": Entry(lambda e, _: R.MixedBarlow(e, 2048, 0.0051, 4.0), ADAM),
        "ssl_ey": Entry(two(R.ssl_ey), ADAM),
        "debiased": Entry(lambda e, _: C.SimCLR(e, head="mlp", loss=debiased)),
        "decoupled_uniformity": Entry(lambda e, _: C.DecoupledUniformity(e)),
        "all4one": Entry(lambda e, _: C.All4One(e, **all4one)),
    }


def file() -> Path:
    return root() / "book" / "results" / "leaderboard.json"


def read() -> list[dict]:
    """The rows that were measured: method, seed, epochs, knn, probe and where they come from."""
    return json.loads(file().read_text(encoding="utf-8")) if file().exists() else []


def code() -> str:
    """A hash of what trains the methods: this module and the chapters' that they come from."""
    modules = [Path(__file__), *(m for c in CHAPTERS for m in sources(c))]
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()[:12]


def missing() -> list[tuple[str, int]]:
    """(method, seed) without a row of today's code: all methods with the first seed, then with the next."""
    now = code()
    have = {(row["method"], row["seed"]) for row in read() if row["code"] == now}
    return [(name, seed) for seed in range(SEEDS) for name in entries() if (name, seed) not in have]


def measure(name: str, seed: int, stage: Stage) -> dict:
    """Train one method on the stage and evaluate its last state: a row."""
    entry = entries()[name]
    steps = EPOCHS * (len(stage.train_images) // stage.budget.batch_size)
    if name == "untrained":
        model = None
    elif name == "supervised":
        model = stage.taught(seed, steps=steps)
    else:
        views = partial(stage.views, views=1) if entry.one_view else None
        model = stage.pretrain(name, lambda e: entry.make(e, stage), seed, views=views, steps=steps, **entry.options)
    encoder = model.encoder if model else stage.untrained(seed)
    device, today = device_name(stage.run.device), datetime.date.today().isoformat()
    return dict(
        method=name, seed=seed, epochs=EPOCHS if model else 0, knn=round(stage.knn(encoder), 4),
        probe=round(stage.probe(encoder), 4), seconds=_whole(model.history) if model else 0.0, data=stage.source,
        device=device, versions=versions(), commit=commit(), code=code(), date=today,
    )  # fmt: skip


def _whole(history: History) -> float | None:
    """Seconds of the whole training, at the pace of what was left of it after an interruption; None if nothing was."""
    done = history.steps - history.resumed_at
    return round(history.seconds * history.steps / done, 1) if done else None


def write(row: dict) -> None:
    """Put a row into the file, in the place of an older one, in one piece."""
    order = list(entries())
    with alone(file()):
        rows = [old for old in read() if (old["method"], old["seed"]) != (row["method"], row["seed"])] + [row]
        rows.sort(key=lambda r: (order.index(r["method"]) if r["method"] in order else len(order), r["seed"]))
        put(file(), rows)


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m labcode.leaderboard", description=__doc__.split("\n\n")[0])
    options.add_argument("--method", choices=tuple(entries()), help="only this one")
    options.add_argument("--seed", type=int, help="only this seed")
    options.add_argument("--again", action="store_true", help="also what was measured: the new row takes its place")
    options.add_argument("--dry", type=int, metavar="STEPS", help="a few steps a training; nothing is written")
    given = options.parse_args(arguments)
    if given.dry is not None and given.dry < 1:
        options.error(f"--dry must be at least 1, got {given.dry}")
    if given.seed is not None and not 0 <= given.seed < SEEDS:
        options.error(f"--seed must be in 0 … {SEEDS - 1}, got {given.seed}")
    os.environ["LABCODE_SCALE"] = "full"
    if given.dry:
        os.environ["LABCODE_MAX_STEPS"] = str(given.dry)
    seeds = range(1 if given.dry else SEEDS) if given.seed is None else [given.seed]
    listed = [(m, s) for s in seeds for m in entries()] if given.dry or given.again else missing()
    wanted = [(m, s) for m, s in listed if given.method in (None, m) and s in seeds]
    try:
        stage = Stage(start("leaderboard/cifar10")) if wanted else None
    except DataError as error:
        options.exit(2, f"{options.prog}: {error}\n")
    for method, seed in wanted:
        row = measure(method, seed, stage)
        took = "" if row["seconds"] is None else f", {row['seconds']:.0f} s of training"
        print(f"{method:22} seed {seed}: kNN {row['knn']:.4f}, linear probe {row['probe']:.4f}{took}")
        if not (stage.run.dry or stage.run.tuning):
            write(row)
            stage.checkpoint(method, seed).unlink(missing_ok=True)
    if not wanted:
        print("nothing is missing")
    return 0
