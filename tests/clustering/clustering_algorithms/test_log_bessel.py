"""log I and log K against mpmath's values, SciPy and closed forms; gradients; von Mises–Fisher mixtures."""

import math

import numpy as np
import pytest
import scipy.special as sp
import torch

from labcode.clustering.clustering_algorithms import (
    bessel_ratio,
    fit_kappa,
    log_iv,
    log_kv,
    log_vmf_constant,
    many_kmeans,
    regions,
    sample_vmf,
    vmf_mixture,
)  # fmt: skip
from labcode.clustering.clustering_algorithms import log_bessel as module
from labcode.clustering.clustering_algorithms.tables import bessel_table

# [v, x, log I, x d/dx log I, log K, x d/dx log K], 40 digits of mpmath rounded to double
TABLE = bessel_table()
EPS = 2.0**-52
f64 = dict(dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("function, at", [(log_iv, 2), (log_kv, 4)])
def test_values_and_gradients_are_right_to_the_last_bits(function, at):
    v, x = TABLE[:, 0], TABLE[:, 1].clone().requires_grad_()
    found = function(v, x)
    slope = torch.autograd.grad(found.sum(), x)[0] * x.detach()
    # an argument that is off by one rounding moves the value by this much: nothing more can be asked
    unit = EPS * torch.maximum(TABLE[:, at].abs(), TABLE[:, at + 1].abs())
    assert float(((found.detach() - TABLE[:, at]).abs() / unit).max()) < 6
    assert float(((slope - TABLE[:, at + 1]).abs() / (EPS * TABLE[:, at + 1].abs())).max()) < 12
    assert {name: bool(mask.any()) for name, mask in regions(v, TABLE[:, 1]).items()} == dict.fromkeys(
        ("argument", "order", "series"), True)  # fmt: skip


def test_scipy_agrees_where_it_has_a_value():
    v, x = torch.meshgrid(torch.linspace(0, 60, 25, **f64), torch.logspace(-3, 2.5, 30, **f64), indexing="ij")
    order, at = v.numpy(), x.numpy()
    for ours, theirs in (
        (log_iv(v, x), np.log(sp.ive(order, at)) + at),
        (log_kv(v, x), np.log(sp.kve(order, at)) - at),
    ):
        fine = np.isfinite(theirs)
        assert fine.mean() > 0.9
        np.testing.assert_allclose(ours.numpy()[fine], theirs[fine], rtol=1e-12, atol=1e-12)


def test_closed_forms_and_the_wronskian():
    x = torch.logspace(-6, 5, 60, **f64)
    half = 0.5 * torch.log(2 / (math.pi * x)) + torch.where(
        x > 300, x - math.log(2), torch.sinh(x.clamp(max=300)).log()
    )
    torch.testing.assert_close(log_iv(0.5, x), half, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_kv(0.5, x), 0.5 * torch.log(math.pi / (2 * x)) - x, rtol=1e-14, atol=1e-14)
    v = torch.linspace(0, 90, 60, **f64)  # I_v K_{v+1} + I_{v+1} K_v = 1/x
    both = torch.logaddexp(log_iv(v, x) + log_kv(v + 1, x), log_iv(v + 1, x) + log_kv(v, x))
    torch.testing.assert_close(both, -x.log(), rtol=0, atol=1e-10)


def test_gradients_of_both_orders_in_both_arguments():
    v, x = (
        torch.tensor([2.7, 25.0, 0.2, 3.0], **f64),
        torch.tensor([7.0, 3.0, 60.0, 0.2], **f64),
    )
    v.requires_grad_(), x.requires_grad_()
    for function in (log_iv, log_kv):
        assert torch.autograd.gradcheck(function, (v, x), atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda x: log_kv(v.detach()[2:], x), (x[2:],), atol=1e-6)


def test_expressions_agree_where_two_of_them_are_good():
    v, x = torch.full((5,), 25.0, **f64), torch.linspace(330, 900, 5, **f64)
    for function in (log_iv, log_kv):
        torch.testing.assert_close(function(v, x, "order"), function(v, x, "argument"), rtol=1e-14, atol=0)
    v, x = torch.linspace(16, 20, 9, **f64), torch.linspace(5, 29, 9, **f64)
    for function in (log_iv, log_kv):
        torch.testing.assert_close(function(v, x, "order"), function(v, x, "series"), rtol=2e-14, atol=2e-14)


def test_debye_coefficients_are_those_of_the_tables():
    u = module.debye_polynomials(2)
    assert u[1] == pytest.approx((3 / 24, -5 / 24)) and u[2] == pytest.approx((81 / 1152, -462 / 1152, 385 / 1152))


def test_the_whole_range():
    far = torch.tensor([1e-300, 1e-100, 1e-5, 1.0, 1e5, 1e100, 1e300], **f64)
    v = torch.tensor([0.0, 0.4, 12.9, 13.0, 1e3, 1e8], **f64)[:, None]
    assert torch.isfinite(log_iv(v, far)).all() and torch.isfinite(log_kv(v, far)).all()
    assert log_iv(0.0, 0.0) == 0 and log_iv(2.0, 0.0) == -math.inf and log_kv(0.0, 0.0) == math.inf
    assert log_iv(torch.zeros(0), torch.zeros(0)).shape == (0,)
    assert log_iv(torch.tensor(1.0), torch.ones(2, 3, dtype=torch.float16)).dtype == torch.float64
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="x must"):
            log_iv(1.0, bad)
        with pytest.raises(ValueError, match="v must"):
            log_kv(bad, 1.0)
    with pytest.raises(ValueError, match="expression"):
        log_iv(1.0, 1.0, "exact")


def test_the_ratio_is_that_of_neighbouring_orders_and_keeps_its_digits():
    v, x = TABLE[:, 0], TABLE[:, 1]
    ratio = (TABLE[:, 3] - v) / x  # x I'/I = v + x I_{v+1}/I_v
    keep = TABLE[:, 3] > 2 * v  # elsewhere the table's difference loses digits
    torch.testing.assert_close(bessel_ratio(v, x)[keep], ratio[keep], rtol=1e-14, atol=0)
    small = torch.tensor([1e-8], **f64)  # I_{v+1}/I_v → x/(2v + 2)
    torch.testing.assert_close(bessel_ratio(16383.0, small), small / 32768, rtol=1e-14, atol=0)


@pytest.mark.parametrize("p", [2, 3, 10, 2048, 32768])
def test_kappa_of_its_own_resultant_length(p):
    kappa = torch.tensor([0.01, 0.1, 1.0, 4.0], **f64) * p
    torch.testing.assert_close(fit_kappa(bessel_ratio(p / 2 - 1, kappa), p, steps=4), kappa, rtol=1e-9, atol=0)
    assert fit_kappa(torch.tensor(0.0), p) == 0 and torch.isfinite(fit_kappa(torch.tensor(1.0), p))


def test_the_constant_on_the_circle_and_the_sphere():
    kappa = torch.tensor([0.0, 0.5, 3.0, 40.0], **f64)
    circle = [-math.log(2 * math.pi * sp.i0(k)) for k in kappa.tolist()]
    assert log_vmf_constant(2, kappa).tolist() == pytest.approx(circle, rel=1e-12)
    sphere = [math.log(k / (4 * math.pi * math.sinh(k))) for k in kappa.tolist()[1:]]
    assert log_vmf_constant(3, kappa).tolist() == pytest.approx([-math.log(4 * math.pi), *sphere], rel=1e-12)


def test_samples_have_the_mean_length_that_theory_says():
    mu = torch.nn.functional.normalize(torch.ones(20, **f64), dim=0)
    x = sample_vmf(4000, mu, 30.0, draw())
    torch.testing.assert_close(x.norm(dim=1), torch.ones(4000, **f64))
    assert float((x @ mu).mean()) == pytest.approx(float(bessel_ratio(9.0, 30.0)), abs=0.01)
    assert float(fit_kappa(x.mean(0).norm(), 20)) == pytest.approx(30, rel=0.03)


def test_the_mixture_finds_two_concentrations_around_two_means_and_turns_with_the_sphere():
    a, b = torch.eye(8, **f64)[:2]
    x = torch.cat([sample_vmf(300, a, 60.0, draw(1)), sample_vmf(300, b, 10.0, draw(2))])
    turn = torch.linalg.qr(torch.randn(8, 8, generator=draw(), **f64))[0]
    for rows in (x, x @ turn):
        fitted = vmf_mixture(rows, 2, restarts=3, generator=draw())
        assert sorted(fitted.kappa[fitted.best].tolist()) == pytest.approx([10, 60], rel=0.15)
    direct = float(fitted.log_joint(x @ turn).logsumexp(2)[fitted.best].mean())
    assert direct == pytest.approx(float(fitted.score[fitted.best]), abs=1e-3)
    assert torch.isfinite(vmf_mixture(torch.eye(3), 3, restarts=1, generator=draw()).score).all()
    with pytest.raises(ValueError, match="zeros"):
        vmf_mixture(torch.zeros(3, 2), 1, restarts=1, generator=draw())
    assert many_kmeans(x, 2, restarts=1, generator=draw()).labels.shape == (1, 600)
