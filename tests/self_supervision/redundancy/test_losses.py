"""What all losses of the chapter have in common: gradients, closed values, edges, errors."""

import math

import numpy as np
import pytest
import torch
from self_supervision.redundancy.helpers import pair

from labcode import nets
from labcode.self_supervision import redundancy as R


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


def slow(name, z1, z2):
    """The losses in float64 from NumPy's covariances; the loops of the other files hold their formulas."""
    a, b = (np.asarray(z.detach().double()) for z in (z1, z2))
    n, d = a.shape
    a0, b0 = a - a.mean(0), b - b.mean(0)
    cov = [x.T @ x / (n - 1) for x in (a0, b0)]
    if name == "covariance":
        return sum((c**2 * (1 - np.eye(d))).sum() for c in cov) / d
    if name == "ssl_ey":
        return -4 * (a0 * b0).sum() / (n - 1) + ((cov[0] + cov[1]) ** 2).sum()
    s, t = (x / np.sqrt((x**2).mean(0) + 1e-5) for x in (a0, b0))
    c = s.T @ t / n
    return ((1 - np.diag(c)) ** 2).sum() + 0.1 * (c**2 * (1 - np.eye(d))).sum()


CANCEL = {"covariance": lambda a, b: R.vicreg(a, b, 0, 0, 1), "barlow": lambda a, b: R.barlow_twins(a, b, 0.1),
          "ssl_ey": R.ssl_ey}  # fmt: skip


@pytest.mark.parametrize("name", CANCEL)
@pytest.mark.parametrize("n, d", [(8, 1), (64, 5), (5, 64)])
@pytest.mark.parametrize("scale, offset", [(100, 0), (1e-3, 0), (1e4, 0), (1, 1e4), (1, -3e5)])
def test_scales_and_offsets_cost_no_digits(name, n, d, scale, offset):
    z1, z2 = ((scale * z + offset).float() for z in pair(n, d))
    found, wanted = float(CANCEL[name](z1, z2)), slow(name, z1, z2)
    size = 4 * float(z1.double().var(0).sum()) if name == "ssl_ey" else 0
    assert found == pytest.approx(wanted, rel=2e-4, abs=1e-4 * size + (1e-9 if name == "barlow" else 0))


def test_one_feature_has_no_covariance():
    """What came first: ‖C‖² - Σ var² was negative here."""
    x = 100 * torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    assert float(R.vicreg(x, x + 0.1, 0, 0, 1)) == 0 == float(R.covariance_penalty(x))
    assert float(R.barlow_twins(x, x + 0.1, on=0.0)) == 0 == float(R.barlow_twins(x, x, on=0.0, within=True))


@pytest.mark.parametrize("gram", [None, False, True])
def test_whitened_features_cost_next_to_nothing_and_never_less(gram):
    z = torch.randn(256, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = (torch.linalg.qr(z - z.mean(0))[0] * 255**0.5).float()
    for value in (R.vicreg(z, z, 0, 0, 1, gram), R.covariance_penalty(z, gram), R.barlow_twins(z, z, 1.0, 0.0, gram)):
        assert 0 <= float(value) < (1e-9 if not gram else 1e-4)


def test_cca_needs_neither_scale_nor_rank():
    x1, x2 = (x.double() for x in R.planted_views(200, 5, (0.9, 0.5)))
    exact = R.canonical_correlations(x1, x2)
    apart = torch.tensor([1e9, 1e-9, 1.0, 1e5, 1e-5], dtype=torch.float64)
    assert torch.allclose(R.canonical_correlations(x1 * apart + 7, x2), exact, atol=1e-6)
    doubled = torch.cat([x1, x1[:, :1] + x1[:, 1:2]], 1), torch.cat([x2, torch.ones(200, 1).double()], 1)
    assert torch.allclose(R.canonical_correlations(*doubled), torch.cat([exact, exact.new_zeros(1)]), atol=1e-6)
    wanted = R.whitened_correlation(x1, x2, ridge=0)
    assert float(wanted) == pytest.approx(-float(exact.sum()), rel=1e-6)
    assert float(R.whitened_correlation(1e6 * x1.float(), 1e-6 * x2.float(), ridge=0)) == pytest.approx(
        float(wanted), rel=1e-3
    )
    for scale in (1e-6, 1, 1e3, 1e6):  # fewer rows than columns: the covariance has no inverse
        few = (scale * torch.randn(6, 10, generator=torch.Generator().manual_seed(0))).requires_grad_()
        value = R.whitened_correlation(few, few + scale, ridge=0)
        assert -5.1 < value.item() < -4.9 and torch.autograd.grad(value, few)[0].isfinite().all()


def test_uniformity_at_any_sharpness():
    z = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])  # squared distances 2, 2 and 4
    for t in (0.1, 2.0, 1e4):
        wanted = math.log(2 / 3) - 2 * t + math.log1p(math.exp(-2 * t) / 2)
        assert float(R.uniformity_loss(z, t)) == pytest.approx(wanted, rel=1e-5)
    zero = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    assert torch.autograd.grad(R.uniformity_loss(zero), zero)[0].abs().max() < 10


@pytest.mark.bad_input
def test_one_image_is_refused_for_its_reason():
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match="z1 has the views of one image"):
            loss(torch.randn(1, 3), torch.randn(1, 3))
    with pytest.raises(ValueError, match="at least 4 rows"):
        R.ey_halves(torch.randn(2, 3), torch.randn(2, 3))
    for call, name in (
        (lambda z: R.ssl_ey(z[:, :3], z[:, :3], (z, z)), "other must be as wide as z1, 3, got shape"),
        (lambda z: R.ssl_ey(z, z, (z, z.where(z != z[0, 0], torch.nan))), "other must be finite"),
        (lambda z: R.closed_form_predictor(z.where(z != z[0, 0], torch.inf), z, "ns"), "z and target must be finite"),
        (lambda z: R.canonical_correlations(z, z[:5]), "x2 must have"),
        (lambda z: R.canonical_correlations(z.where(z != z[0, 0], torch.nan), z), "x1 must be finite"),
        (lambda z: R.whitened_correlation(z, z, ridge=-1.0), "ridge"),
        (lambda z: R.uniformity_loss(z, -1.0), "t must"),
    ):
        with pytest.raises(ValueError, match=name):
            call(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
