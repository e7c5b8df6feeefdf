"""Peak memory of one loss, forward and backward: ``python peak.py LIBRARY LOSS`` prints MB above its inputs.

A process of its own, as memory that an allocator has once had is not given back. Linux only.
"""

import re
import sys
from pathlib import Path

import torch


def peak() -> float:
    """MB, of this process's memory alone (``getrusage`` counts the parent's too)."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024


def loss(library: str, name: str):
    """(function of two views, images, features)"""
    if library == "labcode":
        from labcode.self_supervision import contrastive, redundancy
        from labcode.self_supervision.data_curation import swapped_prediction

        return {
            "nt_xent": (lambda a, b: contrastive.nt_xent(torch.cat([a, b]), 0.5), 8192, 128),
            "nt_xent_32768": (lambda a, b: contrastive.nt_xent(torch.cat([a, b]), 0.5), 32768, 128),
            "sup_con": (lambda a, b: contrastive.sup_con(torch.cat([a, b]), labels(a), 0.1), 8192, 128),
            "barlow": (redundancy.barlow_twins, 256, 8192),
            "vicreg": (redundancy.vicreg, 256, 8192),
            "swav": (lambda a, b: swapped_prediction(torch.cat([a, b]), prototypes(a)), 8192, 128),
        }[name]
    if library == "lightly":
        from lightly import loss as peers

        swav = peers.SwaVLoss()
        return {
            "nt_xent": (peers.NTXentLoss(temperature=0.5), 8192, 128),
            "barlow": (peers.BarlowTwinsLoss(lambda_param=0.0051), 256, 8192),
            "vicreg": (peers.VICRegLoss(), 256, 8192),
            "swav": (lambda a, b: swav([scores(a), scores(b)], []), 8192, 128),
        }[name]
    from pytorch_metric_learning import losses as peers

    sup_con = peers.SupConLoss(temperature=0.1)
    return {"sup_con": (lambda a, b: sup_con(torch.cat([a, b]), labels(a)), 8192, 128)}[name]


def labels(a):
    return torch.arange(len(a)).remainder(100).repeat(2)


def prototypes(a):
    return torch.randn(3000, a.shape[1], generator=torch.Generator().manual_seed(1))


def scores(a):
    normalise = torch.nn.functional.normalize
    return normalise(a, dim=1) @ normalise(prototypes(a), dim=1).T


if __name__ == "__main__":
    torch.set_num_threads(1)
    function, n, d = loss(*sys.argv[1:])
    small, views = torch.randn(2, 8, 16), torch.randn(2, n, d)
    function(*(view.requires_grad_() for view in small)).backward()  # whatever is loaded at first use
    before = peak()
    function(*(view.requires_grad_() for view in views)).backward()
    print(peak() - before)
