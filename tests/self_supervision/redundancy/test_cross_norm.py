"""The Frobenius norm of a product that is not made."""

import numpy as np
import pytest
import torch

from labcode.self_supervision import redundancy as R


def pair(n, d, seed=0):
    z = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z[0], z[0] * 0.6 + 0.8 * z[1]


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
    for loss in (R.barlow_twins, R.vicreg):
        sizes.clear()
        with Watch():
            loss(z1, z2).backward()
        assert max(sizes) <= 8 * 400
    with Watch():
        R.barlow_twins(z1, z2, gram=False)
    assert max(sizes) == 400 * 400
