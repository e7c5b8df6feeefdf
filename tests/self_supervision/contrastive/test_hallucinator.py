"""Harder positives in feature space."""

import torch
import torch.nn.functional as F
from self_supervision.contrastive.helpers import Flat, pictures, rows

from labcode.self_supervision import contrastive as C


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
    model.reach, drawn = 1.0, [model.positive(rows(4), rows(4, seed=1)) for _ in range(2)]
    assert torch.equal(*drawn)  # the reach was none when these were drawn
    assert not torch.equal(model.positive(rows(4), rows(4, seed=1)), model.positive(rows(4), rows(4, seed=1)))


def test_the_reach_is_the_largest_step_away():
    torch.manual_seed(0)
    z1, z2 = rows(400), rows(400, seed=1)
    for mode, sign in (("extrapolate", 1), ("interpolate", -1)):
        made = C.Hallucinator(Flat(), dim=5, mode=mode, nonlinear=False, reach=0.5).positive(z1, z2)
        u1, u2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
        amount = ((made - u2) * (u2 - u1)).sum(1) / (u2 - u1).square().sum(1)
        assert 0 <= (sign * amount).min() < 0.02 and 0.48 < (sign * amount).max() <= 0.5 + 1e-9
