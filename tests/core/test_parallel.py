"""Two processes with half the batch each against one process with all of it, plain BatchNorm and no gathering."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from labcode import parallel
from labcode.parallel import SyncBatchNorm, gather, sharing, synchronise_norms

ROOT = Path(__file__).parents[2]

# Every method in float64: encoder with BatchNorm after a convolution, head with BatchNorm; three steps of plain
# descent, of which losses, the last gradient and the running statistics are kept.
SCRIPT = """
import os, sys
import torch
from torch import nn
from labcode import parallel
from labcode.nets import mlp
from labcode.self_supervision import contrastive, redundancy
from labcode.self_supervision.data_curation import SwAV
from labcode.train import fit

rank = int(os.environ.get("RANK", "0"))
draw = torch.Generator().manual_seed(0)
x, y = torch.randn(2, 48, 3, 6, 6, generator=draw, dtype=torch.float64)
labels = torch.randint(4, (48,), generator=draw)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = 12
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                                  nn.Flatten())

    def forward(self, x):
        return self.body(x)


class Model(nn.Module):  # any loss of the gathered projections
    def __init__(self, loss):
        super().__init__()
        self.encoder, self.head, self.loss = Encoder(), mlp([12, 16, 8]), loss

    def forward(self, views, index):
        return self.loss(self, self.head(self.encoder(views)), index)


def naive(model, z, index):  # what is often done: the others' rows without a gradient
    everyone = parallel.gather(z.detach(), views=2)
    if len(everyone) == len(z):
        return contrastive.nt_xent(z, 0.2)
    shape = (2, 2, len(index), z.shape[1])
    parts = list(everyone.view(shape).unbind(1))
    parts[rank] = z.view(2, len(index), -1)
    return contrastive.nt_xent(torch.stack(parts, 1).flatten(0, 2), 0.2)


def mixed(model, z, index):
    n, guard = len(index), redundancy.MixedBarlow(Encoder(), 8).double()
    order = torch.arange(n).view(-1, 6).flip(1).flatten()  # within the shares of one process or two
    guard.encoder, guard.head = model.encoder, model.head
    views = torch.cat([x[index], y[index]])
    return guard.guard(*views.chunk(2), *parallel.gather(z, views=2).chunk(2), 0.3, order)


METHODS = {
    "nt_xent": lambda: contrastive.SimCLR(Encoder(), 8, head="mlp"),
    "oracle": lambda: contrastive.Oracle(Encoder(), labels),
    "uniformity": lambda: contrastive.DecoupledUniformity(Encoder(), x.flatten(1)[:, :3], 8),
    "sup_con": lambda: Model(lambda m, z, i: contrastive.sup_con(parallel.gather(z, 2),
                                                                 parallel.gather(labels[i]).repeat(2))),
    "barlow": lambda: redundancy.TwoViews(Encoder(), redundancy.barlow_twins, 16),
    "vicreg": lambda: redundancy.TwoViews(Encoder(), redundancy.vicreg, 16),
    "mixed": lambda: Model(mixed),
    "byol": lambda: redundancy.LinearBYOL(Encoder(), 8, predictor="trained"),
    "closed form": lambda: redundancy.LinearBYOL(Encoder(), 8, predictor="ne"),
    "swav": lambda: SwAV(Encoder(), prototypes=5, dim=8),
    "naive": lambda: Model(naive),
}
found = {}
for name, make in METHODS.items():
    torch.manual_seed(rank)  # the first process's weights must win
    dtype = torch.float32 if name == "closed form" else torch.float64  # which is computed in float32
    model = make().to(dtype)
    step = lambda i: {"loss": model(torch.cat([x[i], y[i]]).to(dtype), i)}
    history = fit(model, step, lambda s: torch.arange(12) + 12 * s, steps=1 if name == "naive" else 3, lr=0.05,
                  warmup=1, weight_decay=0.0, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05))
    found[name] = dict(loss=history.losses, gradient={k: p.grad for k, p in model.named_parameters()},
                       state={k: v for k, v in model.state_dict().items() if v.is_floating_point()})
torch.save(found, sys.argv[1] + str(rank))
"""


def launch(script, processes, *arguments):
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] * (processes > 1)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *start, str(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, timeout=180, capture_output=True, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "train.py").write_text(SCRIPT)
    for processes in (1, 2):
        launch(folder / "train.py", processes, folder / f"of{processes}-")
    return {name: torch.load(folder / name, weights_only=True) for name in ("of1-0", "of2-0", "of2-1")}


METHODS = ["nt_xent", "oracle", "uniformity", "sup_con", "barlow", "vicreg", "mixed", "byol", "closed form", "swav"]


def apart(a, b):
    """The largest difference of a tensor, relative to its largest value; a bias before BatchNorm has gradient 0."""
    floor = {torch.float32: 1e-2, torch.float64: 1e-6}
    there = [k for k in a if a[k] is not None]
    return max(float((a[k] - b[k]).abs().max() / a[k].abs().max().clamp_min(floor[a[k].dtype])) for k in there)


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_are_those_of_one_process(runs, method):
    one, two, other = (runs[name][method] for name in ("of1-0", "of2-0", "of2-1"))
    assert torch.allclose(one["loss"], two["loss"], rtol=1e-6) and torch.equal(two["loss"], other["loss"])
    eps = 1e-4 if method == "closed form" else 1e-6
    assert apart(one["gradient"], two["gradient"]) < eps
    assert apart(one["state"], two["state"]) < eps  # weights after three steps, running means and variances
    assert all(torch.equal(two["state"][k], other["state"][k]) for k in two["state"])


def test_a_gather_without_gradient_is_seen(runs):
    """The loss is right, the gradient half of what it should be: one over the number of processes."""
    one, two = runs["of1-0"]["naive"], runs["of2-0"]["naive"]
    assert torch.allclose(one["loss"], two["loss"], rtol=1e-6)
    halves = {k: g / 2 for k, g in one["gradient"].items() if k.startswith("head") and g is not None}
    assert apart(halves, two["gradient"]) < 1e-6 and apart(one["gradient"], two["gradient"]) > 0.1


def test_one_process_gathers_nothing_and_keeps_its_norms():
    z = torch.randn(6, 3)
    with sharing():
        assert gather(z, views=2) is z
    with pytest.raises(ValueError, match="x must hold 4 views of its images, got 6 rows"):
        gather(z, views=4)
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    norm = plain[1]
    wanted, state = plain(z), {k: v.clone() for k, v in plain.state_dict().items()}
    assert synchronise_norms(plain)[1] is norm and isinstance(norm, SyncBatchNorm)
    assert plain.state_dict().keys() == state.keys() and torch.equal(plain(z), wanted)


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 7), (12, 5, 3, 2)])
@pytest.mark.parametrize("momentum, affine", [(0.1, True), (None, False)])
def test_synchronised_statistics_are_the_whole_batchs(monkeypatch, shape, momentum, affine):
    """Shares of one process: the gather is replaced by one that has seen the other share's statistics."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.arange(1.0, 13).view(-1, *len(shape[1:]) * [1])
    x = 3 + spread * torch.randn(shape, generator=draw, dtype=torch.float64)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    plain, ours = (kind(5, momentum=momentum, affine=affine).double() for _ in range(2))
    synchronise_norms(ours)
    wanted = plain(x)
    axes = [0, *range(2, len(shape))]
    both = torch.stack([torch.stack(torch.var_mean(half, axes, correction=0)) for half in x.chunk(2)])
    monkeypatch.setattr(parallel, "_sharing", True)
    monkeypatch.setattr(parallel._AllGather, "apply", lambda stats: both)
    assert torch.allclose(ours(x[:6]), wanted[:6])
    for name, value in plain.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value), name


RESUMED = """
import os, sys, warnings
import torch
from torch import nn
from labcode.train import fit

file, out, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
rank = os.environ.get("RANK", "0")
x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
model, generator = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), torch.Generator().manual_seed(1)
noise, drawn = float(sys.argv[4]), []


def step(index):
    if stop and len(drawn) == stop:
        raise KeyboardInterrupt
    drawn.append(torch.rand((), generator=generator) + torch.rand(()))
    return {"loss": (model(x[index] + noise * drawn[-1])[:, 0] - x[index].sum(1)).square().mean()}


try:
    fit(model, step, lambda s: torch.arange(16) + 16 * (s % 4), steps=20, generators=[generator], checkpoint=file,
        optimizer="sgd", checkpoint_seconds=0.0)
except KeyboardInterrupt:
    sys.exit()
torch.save([model.state_dict(), torch.stack(drawn), torch.rand(())], out + rank)
"""


@pytest.fixture
def resumed(tmp_path):
    (tmp_path / "train.py").write_text(RESUMED)

    def run(name, processes, stop=0, noise=0.0):
        done = launch(tmp_path / "train.py", processes, tmp_path / f"{name}.pt", tmp_path / f"{name}-", stop, noise)
        files = [tmp_path / f"{name}-{rank}" for rank in range(processes)]
        return None if stop else [torch.load(f, weights_only=True) for f in files], done.stderr

    return run


def test_another_number_of_processes_goes_on(resumed):
    (whole,), _ = resumed("whole", 1)
    resumed("from-two", 2, stop=9)
    (ours,), said = resumed("from-two", 1)
    assert len(ours[1]) == 11 and "is of 2 processes, this is 1: random numbers differ" in said
    assert all(torch.allclose(whole[0][k], ours[0][k], atol=1e-6) for k in whole[0])


def test_two_processes_draw_apart_and_resume_to_the_bit(resumed):
    whole, _ = resumed("whole", 2, noise=1.0)
    resumed("killed", 2, stop=9, noise=1.0)
    ours, said = resumed("killed", 2, noise=1.0)
    assert not (whole[0][1] == whole[1][1]).any() and "random numbers differ" not in said
    for a, b in zip(whole, ours, strict=True):
        assert all(torch.equal(a[0][k], b[0][k]) for k in a[0]) and torch.equal(a[1][-len(b[1]) :], b[1])
    assert torch.equal(whole[0][2], whole[1][2])  # afterwards all draw alike
