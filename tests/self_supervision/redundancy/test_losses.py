"""What all losses of the chapter have in common: gradients, closed values, edges, errors."""

import math

import pytest
import torch

from labcode import nets
from labcode.self_supervision import redundancy as R


def pair(n, d, seed=0):
    z = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z[0], z[0] * 0.6 + 0.8 * z[1]


@pytest.mark.parametrize(
    "name", ["barlow", "barlow gram", "mixed", "vicreg", "ey", "halves", "white", "e2mc", "uniformity"]
)
def test_gradients(name):
    z1, z2 = (z.requires_grad_() for z in pair(8, 3))
    order = torch.randperm(8)
    loss = {
        "barlow": lambda a, b: R.barlow_twins(a, b, 0.1, gram=False),
        "barlow gram": lambda a, b: R.barlow_twins(a, b, 0.1, gram=True),
        "mixed": lambda a, b: R.mixed_barlow(a * 0.5 + b, a, b, 0.4, order),
        "vicreg": R.vicreg, "ey": R.ssl_ey, "halves": R.ey_halves, "white": R.whitened_correlation, "e2mc": R.e2mc,
        "uniformity": lambda a, b: R.uniformity_loss(a) + R.uniformity_loss(b),
    }[name]  # fmt: skip
    z1, z2 = z1.detach().requires_grad_(), z2.detach().requires_grad_()
    assert torch.autograd.gradcheck(loss, (z1, z2), atol=1e-5)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss(z1, z2), (z1, z2)))  # both views, targets included


def test_closed_values():
    z = torch.linalg.qr(torch.randn(16, 4, dtype=torch.float64))[0]
    z = torch.linalg.qr(z - z.mean(0))[0]  # centred, orthogonal columns
    assert float(R.barlow_twins(1e3 * z, 1e3 * z)) == pytest.approx(0, abs=1e-8)
    assert float(R.barlow_twins(1e3 * z, -1e3 * z)) == pytest.approx(16, rel=1e-6)
    two = z * math.sqrt(15 / 2)  # V = I, C = tr I = 4: the minimum, minus the number of perfect correlations
    assert float(R.ssl_ey(two, two)) == pytest.approx(-4, rel=1e-9)
    assert float(R.whitened_correlation(z, z, ridge=0)) == pytest.approx(-4, rel=1e-9)
    assert float(R.vicreg(z * 100, z * 100)) == pytest.approx(0, abs=1e-8)


LOSSES = {"barlow_twins": R.barlow_twins, "vicreg": R.vicreg, "ssl_ey": R.ssl_ey, "e2mc": R.e2mc,
          "whitened": R.whitened_correlation}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_edges(name):
    loss, z = LOSSES[name], torch.randn(6, 3)
    for dtype in (torch.bfloat16, torch.float16):
        value = loss(z.to(dtype), z.to(dtype))
        assert value.dtype == torch.float32 and value.isfinite()
    constant = torch.ones(6, 3, requires_grad=True)
    value = loss(constant, constant)
    assert value.isfinite() and torch.autograd.grad(value, constant)[0].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(loss(z, z), loss(z, z).float()) and loss(z, z).dtype == torch.float32


@pytest.mark.bad_input
@pytest.mark.parametrize("name", LOSSES)
def test_bad_arguments_are_named(name):
    loss, z = LOSSES[name], torch.randn(6, 3)
    for bad in (z[:1], z[:0], z.long(), z[0]):
        with pytest.raises(ValueError, match="z1"):
            loss(bad, bad)
    with pytest.raises(ValueError, match="finite"):
        loss(z.where(z != z[0, 0], torch.nan), z)
    with pytest.raises(ValueError, match="z2"):
        loss(z, z[:, :2])


@pytest.mark.bad_input
def test_other_errors():
    z = torch.randn(6, 3)
    with pytest.raises(ValueError, match="lam"):
        R.barlow_twins(z, z, -1)
    with pytest.raises(ValueError, match="m must"):
        R.m_spacing_entropy(z, m=6)
    with pytest.raises(ValueError, match="momentum"):
        R.LinearBYOL(nets.SmallNet(), momentum=1.0)
    assert R.uniformity_loss(torch.ones(5, 2)).isfinite()
