"""Marginal likelihood by numerical integration and by the chain rule; splits, merges and concentrations."""

import math

import pytest
import torch

from labcode.clustering import category_discovery as C


def test_marginal_likelihood_by_numerical_integration():
    """One dimension: the inverse-Wishart is an inverse gamma, and the integral a sum over a grid."""
    x, centre, psi, kappa, nu = torch.tensor([[0.3], [-0.5], [1.1]]).double(), torch.zeros(1).double(), 0.7, 0.5, 3.0
    mu, var = torch.linspace(-12, 12, 1501).double(), torch.logspace(-3, 4, 2001).double()
    m, v = mu[:, None], var[None]
    prior = (nu / 2) * math.log(psi / 2) - math.lgamma(nu / 2) - (nu / 2 + 1) * v.log() - psi / (2 * v)
    prior = prior + 0.5 * (math.log(kappa) - (2 * math.pi * v).log()) - kappa * m**2 / (2 * v)
    like = sum(-0.5 * (2 * math.pi * v).log() - (xi - m) ** 2 / (2 * v) for xi in x[:, 0])
    inside = (prior + like).exp()
    total = torch.trapezoid(torch.trapezoid(inside, mu, dim=0), var)
    assert C.niw_marginal(x, centre, psi, kappa, nu) == pytest.approx(math.log(float(total)), abs=2e-3)


def test_marginal_likelihood_knows_no_order_and_no_turn():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 4, dtype=torch.float64, generator=g)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=g))[0]
    value = C.niw_marginal(x, x.mean(0))
    assert C.niw_marginal(x.flip(0), x.mean(0)) == pytest.approx(value, rel=1e-12)
    assert C.niw_marginal(x @ turn, x.mean(0) @ turn) == pytest.approx(value, rel=1e-9)
    assert C.niw_marginal(x[:0], x.mean(0)) == 0
    with pytest.raises(ValueError, match="nu"):
        C.niw_marginal(x, x.mean(0), nu=2.0)


def test_far_groups_split_and_one_group_does_not():
    g = torch.Generator().manual_seed(0)
    a, b = 0.1 * torch.randn(40, 2, generator=g), 0.1 * torch.randn(40, 2, generator=g)
    centre = torch.zeros(2)
    assert C.log_split_ratio(torch.cat([a, b + 3]), a, b + 3, centre, 0.01) > 10
    assert C.log_split_ratio(torch.cat([a, b]), a, b, centre, 0.01) < -5


def test_split_and_merge_finds_planted_groups_from_either_side():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(6).repeat(40)
    x = torch.nn.functional.one_hot(y, 6).float() * 4 + 0.2 * torch.randn(240, 6, generator=g)
    known = torch.where(y < 3, y, -1)
    for start in (6, 12):
        labels, centroids, counts = C.split_and_merge(x, known, start, generator=g, psi=0.04, rounds=6)
        assert counts[-1] == len(centroids) == 6
        assert C.discovery_accuracy(labels, y, 3)["All"] == 1
    stays = C.split_and_merge(x, known, 12, generator=g, rounds=2, moves=())[2]
    assert stays == [12, 12]
    with pytest.raises(ValueError, match="rule"):
        C.split_and_merge(x, known, 6, generator=g, rule="never")


def test_concentrations_and_the_prototypes_loss():
    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(30, 3, generator=g), torch.arange(30) % 3
    protos = torch.stack([x[labels == c].mean(0) for c in range(3)])
    raw = [float((x[labels == c] - protos[c]).norm(dim=1).mean()) / math.log(20) for c in range(3)]
    found = C.concentrations(x, labels, protos, 0.2)
    assert float(found.mean()) == pytest.approx(0.2, rel=1e-5)
    assert found.argsort().tolist() == torch.tensor(raw).argsort().tolist()
    z = x.double().requires_grad_()
    u, c = torch.nn.functional.normalize(x.double(), dim=1), torch.nn.functional.normalize(protos.double(), dim=1)
    wanted = 0.0
    for i in range(30):
        scores = [float(u[i] @ c[j]) / float(found[j]) for j in range(3)]
        wanted += (math.log(sum(map(math.exp, scores))) - scores[int(labels[i])]) / 30
    assert float(C.prototype_contrast(z, labels, protos.double(), found.double())) == pytest.approx(wanted, rel=1e-6)
    assert torch.autograd.gradcheck(lambda a: C.prototype_contrast(a, labels, protos.double(), found.double()), z)
    assert torch.isfinite(C.prototype_contrast(torch.zeros(1, 3), labels[:1], protos, 0 * found))


def test_principal_components_are_scikit_learns():
    from sklearn.decomposition import PCA

    x = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = torch.from_numpy(PCA(3).fit_transform(x.numpy()))
    torch.testing.assert_close(C.principal(x, 3).abs(), wanted.abs())
