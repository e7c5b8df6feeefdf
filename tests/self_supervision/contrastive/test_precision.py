"""Half precision, in the losses with more positives than an image's own views."""


import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labcode.self_supervision import contrastive as C


def rows(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Tiny(nn.Module):
    features = 6

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, x):
        return self.layer(x.flatten(1))


def pictures(n, seed=0):
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(dtype):
    z, bank = rows(8, 4).to(dtype), F.normalize(rows(9, 4, 1), dim=1).float()
    index, reached = torch.arange(8), torch.randint(9, (8, 5), generator=torch.Generator().manual_seed(0))
    pairs = [
        (C.decoupled_uniformity(z), C.decoupled_uniformity(z.float())),
        (C.feature_contrast(z, z), C.feature_contrast(z.float(), z.float())),
        (C.neighbour_contrast(z, z.flip(0)), C.neighbour_contrast(z.float(), z.float().flip(0))),
        (sum(C.invariance_propagation(z, index, bank, reached, background=4)),
         sum(C.invariance_propagation(z.float(), index, bank, reached, background=4))),
    ]  # fmt: skip
    for half, single in pairs:
        assert half.dtype == torch.float32 and torch.equal(half, single)


@pytest.mark.parametrize("name", ["propagation", "uniformity", "all4one"])
def test_methods_train_under_bf16_autocast(name):
    torch.manual_seed(0)
    make = dict(propagation=lambda: C.InvariancePropagation(Tiny(), 12, dim=4, background=5, select="hard"),
                uniformity=lambda: C.DecoupledUniformity(Tiny(), rows(12, 3, dtype=torch.float32), dim=4),
                all4one=lambda: C.All4One(Tiny(), dim=4, queue=8, hidden=8))  # fmt: skip
    model, x = make[name](), pictures(4 if name == "propagation" else 8)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x, torch.arange(4))
        loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
