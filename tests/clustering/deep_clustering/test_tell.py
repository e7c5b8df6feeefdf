"""TELL's layer against k-means, its limit, and what its steps do."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from labcode.clustering import deep_clustering as D


def draw(n=30, d=5, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g).double(), torch.randn(k, d, generator=g).double()


@pytest.mark.parametrize("tau", [None, 0.5])
def test_loss_is_the_loop(tau):
    z, centres = draw()
    total = 0.0
    for row in F.normalize(z, dim=1):
        apart = [float((row - c).square().sum()) for c in F.normalize(centres, dim=1)]
        weight = [math.exp(-a / tau) for a in apart] if tau else [float(a == min(apart)) for a in apart]
        total += sum(w * a for w, a in zip(weight, apart, strict=True)) / sum(weight)
    assert float(D.tell_loss(z, centres, tau)) == pytest.approx(total / len(z), rel=1e-10)


def test_it_is_a_linear_layer_and_does_not_see_lengths():
    z, centres = (F.normalize(t, dim=1) for t in draw())
    layer = (z @ (2 * centres).T).max(1).values  # weights 2 μ, no bias
    assert float(D.tell_loss(z, centres)) == pytest.approx(float((2 - layer).mean()))
    assert float(D.tell_loss(7 * z, 0.1 * centres)) == pytest.approx(float(D.tell_loss(z, centres)))


def test_the_limit_is_reached_monotonically_and_the_gradient_is_right():
    z, centres = draw()
    values = [float(D.tell_loss(z, centres, tau)) for tau in (1.0, 0.1, 0.01, 1e-6)]
    assert values == sorted(values, reverse=True) and values[-1] == pytest.approx(float(D.tell_loss(z, centres)))
    assert gradcheck(D.tell_loss, (z.requires_grad_(), centres.requires_grad_()))


def test_spherical_kmeans_lowers_the_loss_and_ends_where_a_step_changes_nothing():
    z, centres = draw(200)
    values = [float(D.tell_loss(z, D.spherical_kmeans(z, centres, i)[0])) for i in (1, 2, 5, 50)]
    assert values == sorted(values, reverse=True)
    end, which = D.spherical_kmeans(z, centres, 100)
    again, same = D.spherical_kmeans(z, end, 1)
    assert torch.allclose(end, again) and torch.equal(which, same)
    rows = F.normalize(z, dim=1)
    for j in which.unique():
        assert torch.allclose(end[j], F.normalize(rows[which == j].sum(0), dim=0))


def test_a_step_has_its_length_and_a_dead_centre_stays():
    _, centres = draw()
    centres = F.normalize(centres, dim=1)
    slope = torch.randn(4, 5).double()
    slope[2] = 0
    moved = D.move_centres(centres, slope, 0.1)
    assert torch.allclose(moved[2], centres[2]) and torch.allclose(moved.norm(dim=1), torch.ones(4).double())
    assert torch.allclose(moved, D.move_centres(centres, 100 * slope, 0.1))
    assert torch.equal(D.move_centres(centres, slope, 0.0), F.normalize(centres, dim=1))


def test_online_training_reaches_lloyd_on_clumps_and_dead_centres_stay_dead():
    g = torch.Generator().manual_seed(0)
    x = F.normalize(0.1 * torch.randn(300, 6, generator=g) + torch.eye(6)[torch.arange(300) % 3], dim=1)
    end, losses = D.tell(x, x[:3], generator=g, steps=120, batch_size=50)
    best, _ = D.spherical_kmeans(x, x[:3])
    assert float(D.tell_loss(x, end)) == pytest.approx(float(D.tell_loss(x, best)), rel=0.02) and len(losses) == 120
    dead = torch.cat([x[:3], -torch.ones(1, 6)])
    end, _ = D.tell(x, dead, generator=g, steps=20, batch_size=50)
    assert torch.allclose(end[3], F.normalize(dead[3], dim=0), atol=1e-6)


def test_edges_and_from_end_to_end():
    z, centres = draw()
    assert float(D.tell_loss(z[:1], z[:1])) == pytest.approx(0, abs=1e-12)
    assert bool(torch.isfinite(D.tell_loss(torch.zeros(2, 5), centres.float())))
    for bad in (dict(tau=-1.0), dict(tau=math.nan), dict(tau=0.0)):
        with pytest.raises(ValueError, match="tau"):
            D.tell_loss(z, centres, **bad)
    with pytest.raises(ValueError, match="centres"):
        D.tell_loss(z, centres[:, :3])
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    x = torch.randn(240, 8, generator=g) + 5 * torch.eye(8)[labels]
    clusters = D.tell_clusters(x, 3, generator=torch.Generator().manual_seed(0), steps=60)
    assert D.measures(clusters, labels, 3)["ACC"] > 0.9
