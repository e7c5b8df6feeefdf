"""The tiled softmax sums against plain matrices in float64, and the memory they take."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import logsumexp

from labcode.pairwise import logsumexp_others, off_diagonal


def rows(n, d=5, seed=0):
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(z, dim=1)


def plain(z, tau):
    """Sums and their gradient for weights 1, 2, …: matrices in NumPy."""
    z = z.numpy()
    s = z @ z.T / tau
    np.fill_diagonal(s, -np.inf)
    sums = logsumexp(s, axis=1)
    w = np.exp(s - sums[:, None]) * np.arange(1, len(z) + 1)[:, None]
    return sums, (w + w.T) @ z / tau


@pytest.mark.parametrize("n", [2, 7, 512, 1100])
@pytest.mark.parametrize("tau", [0.0005, 0.01, 0.1, 2.0])
@pytest.mark.parametrize("keep", [2**28, 0])
def test_sums_and_gradient_are_those_of_the_matrix(n, tau, keep):
    wanted, slope = plain(rows(n), tau)
    for dtype, eps in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        z = rows(n).to(dtype).requires_grad_()
        sums = logsumexp_others(z, tau, keep)
        (got,) = torch.autograd.grad(sums, z, torch.arange(1.0, n + 1, dtype=dtype))
        scale = max(1, 0.1 / tau)  # scores of 1/τ have that many digits less
        assert np.abs(sums.detach().numpy() - wanted).max() < eps * scale * max(1, np.abs(wanted).max() * 0.1)
        assert np.abs(got.numpy() - slope).max() < eps * scale * np.abs(slope).max()


@pytest.mark.parametrize("tau", [0.0005, 0.3])
def test_gradient_by_finite_differences(tau):
    z = (rows(5, 3) * 0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: logsumexp_others(z, tau), (z,), eps=1e-7 * tau**0.5, atol=1e-3 / tau**0.5)


def test_what_is_kept_serves_two_backward_passes():
    z = rows(600).requires_grad_()
    total = logsumexp_others(z, 0.2).sum()
    first, second = (torch.autograd.grad(total, z, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("tau", [0.1, 0.001])
def test_no_matrix_is_made_where_it_would_not_fit(tau):
    """16,384 rows: the matrix has 1 GB, and the exact answer for equal rows is log(n - 1) + 1/τ."""
    code = (
        "import re, torch; from labcode.pairwise import logsumexp_others\n"
        f"z = torch.zeros(16384, 4); z[:, 0] = 1; z.requires_grad_(); tau = {tau}\n"
        "logsumexp_others(z[:600], tau).sum().backward()\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "before = peak()\n"
        "out = logsumexp_others(z, tau); out.sum().backward()\n"
        "grown = peak() - before\n"
        "print(grown, float(out.detach().max() - 1 / tau))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    megabytes, value = map(float, done.stdout.split())
    assert megabytes < 100 and value == pytest.approx(np.log(16383), rel=1e-4)


def test_what_the_softmax_sums_refuse():
    z = torch.nn.functional.normalize(torch.randn(6, 4), dim=1)
    for bad, word in (((z, 0.0), "tau"), ((z, -1.0), "tau"), ((z[:1], 0.5), "z"), ((z[0], 0.5), "z")):
        with pytest.raises(ValueError, match=word):
            logsumexp_others(*bad)
    half = logsumexp_others(z.half(), 0.03)
    assert half.dtype == torch.float32 and half.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 5), (2, 3, 4, 4), (0, 3, 3)])
def test_off_diagonal_is_what_a_mask_selects(shape):
    n = shape[-1]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(off_diagonal(x), x[..., ~torch.eye(n, dtype=torch.bool)].view(*shape[:-1], n - 1))


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_rows_longer_than_the_sphere_do_not_overflow(tau):
    wanted, slope = plain(4 * rows(40), tau)
    z = (4 * rows(40)).float().requires_grad_()
    sums = logsumexp_others(z, tau)
    (got,) = torch.autograd.grad(sums, z, torch.arange(1.0, 41))
    np.testing.assert_allclose(sums.detach().numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(got.numpy(), slope, rtol=1e-3, atol=1e-4 * np.abs(slope).max())


@pytest.mark.parametrize("tau", [0.001, 0.2])
def test_autocast_does_not_reach_the_sums(tau):
    z = rows(30).float()
    wanted = logsumexp_others(z, tau)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logsumexp_others(z, tau), wanted)
    assert torch.equal(logsumexp_others(z.T.contiguous().T, tau), wanted)  # strided


@pytest.mark.parametrize("tau", [1e-20, 1e-6, 1e6, 1e30])
def test_extreme_temperatures_are_finite(tau):
    z = rows(12).float().requires_grad_()
    sums = logsumexp_others(z, tau)
    sums.sum().backward()
    s = z.detach().double() @ z.detach().double().T
    largest = s.fill_diagonal_(-np.inf).amax(1) / tau
    assert sums.isfinite().all() and z.grad.isfinite().all()
    wanted = largest if tau < 1 else torch.full((12,), np.log(11.0), dtype=torch.float64)
    torch.testing.assert_close(sums.detach().double(), wanted, rtol=1e-4, atol=1e-4)
