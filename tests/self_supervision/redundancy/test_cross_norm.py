"""The Frobenius norm of a product that is not made."""

import numpy as np
import pytest
import torch
from self_supervision.redundancy.helpers import pair

from labcode.self_supervision import redundancy as R


@pytest.mark.parametrize("n, d", [(1, 3), (128, 3), (300, 7)])
@pytest.mark.parametrize("gram", [False, True])
def test_cross_norm2_and_its_gradients(n, d, gram):
    """The Gram matrix is made in strips from 128 rows on."""
    a, b = (z.requires_grad_() for z in pair(n, d))
    c = a.detach().numpy().T @ b.detach().numpy()
    value = R.cross_norm2(a, b, gram)
    assert value.item() == pytest.approx((c**2).sum(), rel=1e-12)
    to_a, to_b = torch.autograd.grad(3 * value, (a, b))
    assert np.allclose(to_a, 6 * b.detach().numpy() @ c.T) and np.allclose(to_b, 6 * a.detach().numpy() @ c)
    c, value = a.detach().numpy().T @ a.detach().numpy(), R.cross_norm2(a, a, gram)
    assert value.item() == pytest.approx((c**2).sum(), rel=1e-12)
    assert np.allclose(torch.autograd.grad(value, a)[0], 4 * a.detach().numpy() @ c)


def test_gram_is_chosen_and_makes_no_wide_matrix(monkeypatch):
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                sizes.append(out.numel())
            return out

    z1, z2 = (z.float().requires_grad_() for z in pair(8, 400))
    for loss in (R.barlow_twins, R.vicreg, R.ssl_ey):
        sizes.clear()
        with Watch():
            loss(z1, z2).backward()
        assert max(sizes) <= 16 * 400
    with Watch():
        R.barlow_twins(z1, z2, gram=False)
    assert max(sizes) == 400 * 400


def wild(kind, n, d):
    """Float32 features whose off-diagonal sum is small beside the whole, or whose scales are far apart."""
    z = pair(n, d)[0]
    if kind == "white":
        z = torch.linalg.qr(z - z.mean(0))[0] if d < n else z
    elif kind == "one is large":
        z = z * torch.where(torch.arange(d) == d // 2, 1e5, 1.0)
    elif kind == "large and by itself":
        z[:, 0] = 0
        z[0] = 0
        z[0, 0] = 1e6
    elif kind == "scales":
        z = z * torch.logspace(-6, 6, d, dtype=torch.float64)
    return z.float()


@pytest.mark.parametrize("kind", ["white", "one is large", "large and by itself", "scales"])
@pytest.mark.parametrize("n, d", [(8, 1), (8, 8), (64, 5), (5, 64), (16, 40)])
@pytest.mark.parametrize("gram", [None, False, True])
def test_off_diagonal2_keeps_its_digits(kind, n, d, gram):
    """Against float64 on the same numbers; the whole sum less its diagonal has no right digit here."""
    a = wild(kind, n, d).requires_grad_()
    b = (wild(kind, n, d).flip(0) if kind == "scales" else wild(kind, n, d)).clone().requires_grad_()
    x, y = (z.detach().double().numpy() for z in (a, b))
    floor = 1e-12 * (x**2).sum() * (y**2).sum() if kind == "white" else 0
    for value, (p, q) in ((R.off_diagonal2(a, b, gram), (x, y)), (R.off_diagonal2(a, a, gram), (x, x))):
        c = p.T @ q
        np.fill_diagonal(c, 0)
        assert value >= 0 and value.item() == pytest.approx((c**2).sum(), rel=1e-4, abs=floor)
        to_a = 2 * q @ c.T + (2 * p @ c if p is q else 0)
        found = torch.autograd.grad(value, a)[0].numpy()
        assert kind == "white" or np.abs(found - to_a).max() <= 1e-4 * np.abs(to_a).max()


@pytest.mark.parametrize("n, d", [(3, 2), (2, 7), (5, 5), (4, 11)])
@pytest.mark.parametrize("gram", [False, True])
def test_off_diagonal2_has_its_gradients(n, d, gram):
    a, b = (z.requires_grad_() for z in pair(n, d))
    assert torch.autograd.gradcheck(lambda a, b: R.off_diagonal2(a, b, gram), (a, b))
    assert torch.autograd.gradcheck(lambda a: R.off_diagonal2(a, a, gram), (a,))


def test_cross_norm2_is_never_below_zero():
    a = torch.zeros(6, 40)
    b = torch.zeros(6, 40)
    a[:3], b[3:] = 100 * torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    assert R.cross_norm2(a, b) >= 0 and R.cross_norm2(a @ a.T @ a, b @ b.T @ b) >= 0
