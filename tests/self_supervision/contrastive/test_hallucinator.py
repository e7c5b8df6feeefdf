"""Harder positives in feature space."""

import torch
import torch.nn.functional as F
from torch import nn

from labcode.self_supervision import contrastive as C


def rows(n, d=5, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Flat(nn.Module):
    """A linear encoder of 2×2 images, with BatchNorm if asked for."""

    def __init__(self, norm=False):
        super().__init__()
        self.features = 6
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), *[nn.BatchNorm1d(6)] * norm)

    def forward(self, x):
        return self.body(x)


def pictures(n, seed=0):
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_extrapolation_widens_the_angle_and_interpolation_narrows_it():
    z1, z2 = rows(20), rows(20, seed=1)
    before = F.cosine_similarity(z1, z2)
    assert torch.allclose(C.hallucinate(z1, z2, torch.zeros(20)), F.normalize(z2, dim=1))
    assert (F.cosine_similarity(z1, C.hallucinate(z1, z2, torch.full((20,), 0.5))) < before).all()
    assert (F.cosine_similarity(z1, C.hallucinate(z1, z2, torch.full((20,), -0.5))) > before).all()
    assert torch.allclose(C.hallucinate(7 * z1, 2 * z2, torch.ones(20)), C.hallucinate(z1, z2, torch.ones(20)))


def test_the_hallucinator_without_hallucination_is_simclr():
    torch.manual_seed(0)
    encoder = Flat()
    model = C.Hallucinator(encoder, dim=4, mode="none", nonlinear=False)
    views = pictures(8)
    wanted = C.nt_xent(model.head(encoder(views)), model.tau)
    normalised = C.nt_xent(F.normalize(model.head(encoder(views)), dim=1), model.tau)
    assert torch.allclose(model(views, torch.arange(4)), wanted) and torch.allclose(wanted, normalised)
    model.sign, drawn = 1.0, [model.positive(rows(4), rows(4, seed=1)) for _ in range(2)]
    assert torch.equal(*drawn)  # the sign was none when these were drawn
    assert not torch.equal(model.positive(rows(4), rows(4, seed=1)), model.positive(rows(4), rows(4, seed=1)))
