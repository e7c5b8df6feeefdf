"""Estimators of mutual information against plain loops, densities and the truth."""

import math

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive as C
from labcode.self_supervision import contrastive_theory as T


@pytest.mark.parametrize("n", [2, 3, 7])
def test_bounds_are_the_loops(n):
    s = randn(n, n)
    v = s.tolist()
    diagonal = sum(v[i][i] for i in range(n)) / n
    off = [math.exp(v[i][j]) for i in range(n) for j in range(n) if i != j]
    nce = math.log(n) + sum(v[i][i] - math.log(sum(math.exp(u) for u in v[i])) for i in range(n)) / n
    assert float(T.nce_bound(s)) == pytest.approx(nce, rel=1e-9)
    assert float(T.nwj_bound(s)) == pytest.approx(1 + diagonal - 1 - sum(off) / len(off) / math.e, rel=1e-9)
    assert float(T.dv_bound(s)) == pytest.approx(diagonal - math.log(sum(off) / len(off)), rel=1e-9)
    logistic = sum(math.log1p(math.exp(-v[i][i])) for i in range(n)) / n
    logistic += sum(math.log1p(math.exp(v[i][j])) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    assert float(T.logistic_nce(s)) == pytest.approx(logistic, rel=1e-9)


def test_nce_bound_is_that_of_cpc_and_ends_at_log_n():
    x, y = randn(6, 4), randn(6, 4, seed=1)
    assert torch.allclose(T.nce_bound(x @ y.T), C.mi_bound(x, y))
    assert float(T.nce_bound(100 * torch.eye(8))) == pytest.approx(math.log(8))


def test_nce_and_dv_ignore_a_constant_and_nwj_does_not():
    s = randn(5, 5)
    for same in (T.nce_bound, T.dv_bound):
        assert torch.allclose(same(s + 3), same(s))
    assert not torch.allclose(T.nwj_bound(s + 3), T.nwj_bound(s))
    assert torch.isfinite(T.nwj_bound(300 * s.float()))


@pytest.mark.parametrize("loss", [T.nce_bound, T.nwj_bound, T.dv_bound, T.logistic_nce])
def test_gradients_of_estimators(loss):
    assert torch.autograd.gradcheck(loss, randn(4, 4).requires_grad_())


@pytest.mark.bad_input
@pytest.mark.parametrize("loss", [T.nce_bound, T.nwj_bound, T.dv_bound, T.logistic_nce])
def test_scores_must_be_square(loss):
    with pytest.raises(ValueError, match="scores"):
        loss(randn(3, 4))
    with pytest.raises(ValueError, match="scores"):
        loss(randn(1, 1))


def test_the_gaussian_ratio_is_the_ratio_of_densities():
    x, z, rho = randn(3, 2), randn(4, 2, seed=1), 0.7
    found = T.gaussian_log_ratio(x, z, rho)
    cov = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    joint = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), cov)
    one = torch.distributions.Normal(0.0, 1.0)
    for i in range(3):
        for j in range(4):
            want = sum(
                joint.log_prob(torch.stack([x[i, k], z[j, k]])) - one.log_prob(x[i, k]) - one.log_prob(z[j, k])
                for k in range(2)
            )
            assert float(found[i, j]) == pytest.approx(float(want), rel=1e-6)


def test_ksg_finds_the_information_of_one_gaussian_pair():
    x, e = torch.randn(2, 1500, 1, generator=gen())
    y = 0.9 * x + math.sqrt(1 - 0.81) * e
    assert T.ksg(x, y) == pytest.approx(C.gaussian_mi(0.9, 1), abs=0.08)
    assert T.ksg(x, e) == pytest.approx(0, abs=0.08)
    with pytest.raises(ValueError, match="k must"):
        T.ksg(x, y, k=1500)


def test_the_joint_critic_is_a_perceptron_on_the_concatenation():
    torch.manual_seed(0)
    critic, x, y = T.Joint(3, 2, 5), torch.randn(4, 3), torch.randn(6, 2)
    weight = torch.cat([critic.left.weight, critic.right.weight], 1)
    for i in range(4):
        for j in range(6):
            hidden = torch.relu(weight @ torch.cat([x[i], y[j]]) + critic.left.bias)
            assert torch.allclose(critic(x, y)[i, j], critic.out(hidden)[0], atol=1e-6)


def test_a_cut_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="clip"):
        T.nwj_bound(randn(3, 3), clip=math.nan)


def test_estimators_are_tried_on_gaussians_of_the_information_asked_for():
    found = T.try_estimators(1.0, 4, 40, seed=0)
    assert all(values.shape == (40,) for values in found.values())
    assert float(found["NWJ"].mean()) == pytest.approx(1.0, abs=0.15)  # unbiased with the best critic
    assert T.try_estimators(8.0, 4, 5, seed=0)["InfoNCE"].max() <= math.log(64) + 1e-5
    assert not torch.equal(found["kNN"], T.try_estimators(1.0, 4, 40, seed=1)["kNN"])
