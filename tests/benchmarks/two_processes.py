"""The gradient that two processes with half a batch each average, over that of one process with the whole batch.

``python -m torch.distributed.run --nproc_per_node 2 two_processes.py`` prints JSON: for every loss and library the
length of the first along the second and the relative error. Each library is held against its own one-process loss.
"""

import json
import sys

import torch
import torch.distributed as dist
from torch import nn

from labcode.parallel import gather, sharing
from labcode.self_supervision import contrastive, redundancy
from labcode.self_supervision.data_curation import swapped_prediction


def ours(loss):
    """The same function for one process and for several; the gather is the methods' own."""
    return loss, lambda a, b: loss(*gather(torch.cat([a, b]), views=2).chunk(2))


def libraries():
    """{loss: {library: (loss of one process, loss of several)}} of two views' projections."""
    classes = torch.arange(32) % 5  # of the images, in the order of one process
    centres = torch.randn(10, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {
        "NT-Xent": {"labcode": ours(lambda a, b: contrastive.nt_xent(torch.cat([a, b]), 0.5))},
        "SupCon": {
            "labcode": ours(lambda a, b: contrastive.sup_con(torch.cat([a, b]), classes[: len(a)].repeat(2), 0.1))
        },
        "Barlow Twins": {"labcode": ours(redundancy.barlow_twins)},
        "VICReg": {"labcode": ours(redundancy.vicreg)},
        "SwAV": {"labcode": ours(lambda a, b: swapped_prediction(torch.cat([a, b]), centres))},
    }
    try:
        from pytorch_metric_learning.losses import SupConLoss
        from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

        theirs = SupConLoss(temperature=0.1)
        wrapped = DistributedLossWrapper(theirs)
        found["SupCon"]["pytorch-metric-learning"] = (
            lambda a, b: theirs(torch.cat([a, b]), classes.repeat(2)),
            lambda a, b: wrapped(torch.cat([a, b]), classes.chunk(2)[dist.get_rank()].repeat(2)),
        )
    except ImportError:
        pass
    try:
        from lightly import loss as peers
    except ImportError:
        return found
    normalise = nn.functional.normalize
    for name, make in {
        "NT-Xent": lambda **more: peers.NTXentLoss(temperature=0.5, **more),
        "Barlow Twins": lambda **more: peers.BarlowTwinsLoss(**more),
        "VICReg": lambda **more: peers.VICRegLoss(**more),
    }.items():
        found[name]["lightly"] = make(), make(gather_distributed=True)
    one, several = peers.SwaVLoss(), peers.SwaVLoss(sinkhorn_gather_distributed=True)
    scores = lambda z: normalise(z, dim=1) @ normalise(centres, dim=1).T  # noqa: E731
    found["SwAV"]["lightly"] = (
        lambda a, b: one([scores(a), scores(b)], []),
        lambda a, b: several([scores(a), scores(b)], []),
    )
    return found


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    views = torch.randn(2, 32, 24, dtype=torch.float64, generator=draw)
    start = torch.randn(24, 16, dtype=torch.float64, generator=draw) / 5
    table = {}
    for loss, arms in libraries().items():
        for library, (one, several) in arms.items():
            whole, weight = start.clone().requires_grad_(), start.clone().requires_grad_()
            wanted = torch.autograd.grad(one(*(views @ whole)), whole)[0]
            with sharing():
                mine = views.chunk(2, dim=1)[dist.get_rank()]
                got = torch.autograd.grad(several(*(mine @ weight)), weight)[0]
            dist.all_reduce(got)
            got /= 2
            length, error = (got * wanted).sum() / wanted.square().sum(), (got - wanted).norm() / wanted.norm()
            table.setdefault(loss, {})[library] = dict(length=float(length), error=float(error))
    if dist.get_rank() == 0:
        print(json.dumps(table))
    dist.destroy_process_group()
    sys.exit()
