"""The losses against slow loops written from the equations, their invariances, edges and mechanisms."""

import math

import numpy as np
import pytest
import torch

from labcode import nets
from labcode.self_supervision import redundancy as R


def pair(n, d, seed=0):
    z = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z[0], z[0] * 0.6 + 0.8 * z[1]


def scores(z, eps=1e-5):
    """Standard scores, one number after the other."""
    z = np.asarray(z)
    out = np.zeros_like(z)
    for j in range(z.shape[1]):
        mean = sum(z[:, j]) / len(z)
        variance = sum((v - mean) ** 2 for v in z[:, j]) / len(z)
        out[:, j] = [(v - mean) / math.sqrt(variance + eps) for v in z[:, j]]
    return out


def correlation(a, b):
    n, d = a.shape
    return np.array([[sum(a[k, i] * b[k, j] for k in range(n)) / n for j in range(d)] for i in range(d)])


def covariance(a, b):
    n, d = a.shape
    ma, mb = a.mean(0), b.mean(0)
    return np.array([[sum((a[k, i] - ma[i]) * (b[k, j] - mb[j]) for k in range(n)) / (n - 1) for j in range(d)]
                     for i in range(d)])  # fmt: skip


SHAPES = [(2, 3), (5, 4), (6, 15), (12, 2)]


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


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_barlow_twins_is_the_loop(n, d, gram):
    z1, z2 = pair(n, d)
    c = correlation(scores(z1), scores(z2))
    on = sum((1 - c[i, i]) ** 2 for i in range(d))
    off = sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j)
    assert float(R.barlow_twins(z1, z2, 0.03, gram=gram)) == pytest.approx(on + 0.03 * off, rel=1e-9)
    assert float(R.barlow_twins(z1, z2, 0.03, on=0.0, gram=gram)) == pytest.approx(0.03 * off, rel=1e-9, abs=1e-12)
    assert np.allclose(R.cross_correlation(z1, z2), c)
    own = [correlation(scores(z), scores(z)) for z in (z1, z2)]
    off = sum(c[i, j] ** 2 for c in own for i in range(d) for j in range(d) if i != j) / 2
    assert float(R.barlow_twins(z1, z2, 0.03, gram=gram, within=True)) == pytest.approx(on + 0.03 * off, rel=1e-9)


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_mixed_barlow_is_the_four_matrices(n, d, gram):
    z1, z2 = pair(n, d)
    mixed, order, alpha = pair(n, d, 5)[1], torch.randperm(n, generator=torch.Generator().manual_seed(1)), 0.3
    m, a, b = scores(mixed), scores(z1), scores(z2)
    shuffled = b[order.numpy()]
    wanted = 0.0
    for view in (a, b):
        target = alpha * correlation(a, view) + (1 - alpha) * correlation(shuffled, view)
        wanted += ((correlation(m, view) - target) ** 2).sum()
    assert float(R.mixed_barlow(mixed, z1, z2, alpha, order, gram)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_vicreg_is_the_loop(n, d, gram):
    z1, z2 = pair(n, d)
    wanted = 0.0
    for k in range(n):
        wanted += 7 * sum((float(z1[k, i]) - float(z2[k, i])) ** 2 for i in range(d)) / (n * d)
    for z in (z1.numpy(), z2.numpy()):
        c = covariance(z, z)
        wanted += 3 / 2 * sum(max(0, 1 - math.sqrt(c[i, i] + 1e-4)) for i in range(d)) / d
        wanted += 2 * sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    assert float(R.vicreg(z1, z2, 7, 3, 2, gram)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("n, d", SHAPES)
def test_ssl_ey_is_the_loop(n, d):
    z1, z2 = pair(n, d)
    y1, y2 = pair(n + 1, d, 3)
    within = [covariance(u.numpy(), u.numpy()) + covariance(v.numpy(), v.numpy()) for u, v in ((z1, z2), (y1, y2))]
    cross = 2 * sum(covariance(z1.numpy(), z2.numpy())[i, i] for i in range(d))
    for other, second in ((None, within[0]), ((y1, y2), within[1])):
        trace = sum(within[0][i, j] * second[j, i] for i in range(d) for j in range(d))
        assert float(R.ssl_ey(z1, z2, other)) == pytest.approx(-2 * cross + trace, rel=1e-9)


def test_m_spacing_is_the_loop():
    u = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for column, found in zip(u.T.tolist(), R.m_spacing_entropy(u), strict=True):
        x, m = sorted(column), 7
        wanted = sum(math.log(51 / m * (x[i + m] - x[i]) + 1e-7) for i in range(50 - m)) / (50 - m)
        assert float(found) == pytest.approx(wanted, rel=1e-9)


def test_m_spacing_moves_with_scale_as_entropy_does():
    u = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(R.m_spacing_entropy(3 * u + 5), R.m_spacing_entropy(u) + math.log(3), atol=1e-4)
    assert torch.allclose(R.m_spacing_entropy(torch.zeros(20, 2)), torch.tensor(math.log(1e-7)))  # ties


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


def test_barlow_twins_ignores_scale_and_shift_and_row_order():
    z1, z2 = pair(30, 5)
    base = R.barlow_twins(z1, z2)
    assert torch.allclose(R.barlow_twins(1000 * z1 - 7, z2), base, rtol=1e-4)
    order = torch.randperm(30)
    assert torch.allclose(R.barlow_twins(z1[order], z2[order]), base)
    assert not torch.allclose(R.barlow_twins(z1[order], z2), base)  # pairs matter


def test_closed_values():
    z = torch.linalg.qr(torch.randn(16, 4, dtype=torch.float64))[0]
    z = torch.linalg.qr(z - z.mean(0))[0]  # centred, orthogonal columns
    assert float(R.barlow_twins(1e3 * z, 1e3 * z)) == pytest.approx(0, abs=1e-8)
    assert float(R.barlow_twins(1e3 * z, -1e3 * z)) == pytest.approx(16, rel=1e-6)
    two = z * math.sqrt(15 / 2)  # V = I, C = tr I = 4: the minimum, minus the number of perfect correlations
    assert float(R.ssl_ey(two, two)) == pytest.approx(-4, rel=1e-9)
    assert float(R.whitened_correlation(z, z, ridge=0)) == pytest.approx(-4, rel=1e-9)
    assert float(R.vicreg(z * 100, z * 100)) == pytest.approx(0, abs=1e-8)


def test_eckart_young_of_two_batches_is_unbiased_and_of_one_is_not():
    z = torch.randn(800, 4, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = torch.stack([R.ssl_ey(a, b) for a, b, _, _ in z])
    two = torch.stack([R.ssl_ey(a, b, (c, d)) for a, b, c, d in z])
    truth, bias = 4 * 3, 2 * (9 + 3) / 15
    assert abs(float(two.mean()) - truth) < 4 * float(two.std()) / len(two) ** 0.5
    assert float(one.mean()) == pytest.approx(truth + bias, abs=4 * float(one.std()) / len(one) ** 0.5)


def test_canonical_correlations_against_scikit_learn_eigenvalues():
    x1, x2 = (x.double() for x in R.planted_views(400, 6, (0.9, 0.5)))
    full = np.cov(torch.cat([x1, x2], 1).numpy().T)
    a, b, c = full[:6, :6], full[6:, 6:], full[:6, 6:]
    squares = np.linalg.eigvals(np.linalg.solve(a, c) @ np.linalg.solve(b, c.T)).real
    assert np.allclose(np.sort(np.sqrt(squares))[::-1], R.canonical_correlations(x1, x2), atol=1e-8)
    mix = torch.randn(6, 6, dtype=torch.float64)
    assert torch.allclose(R.canonical_correlations(x1 @ mix, x2), R.canonical_correlations(x1, x2))
    with pytest.raises(ValueError, match="x1"):
        R.canonical_correlations(x1[:6], x2[:6])


def test_linear_cca_finds_the_planted_subspace():
    x1, x2 = R.planted_views(1000, 8, (0.9, 0.7))
    w1, w2 = R.linear_cca(R.ssl_ey, x1, x2, 2, 300, 1000, 0.05)
    exact = R.canonical_correlations(x1, x2)[:2]
    assert torch.allclose(R.canonical_correlations(x1 @ w1, x2 @ w2), exact, atol=5e-3)


def test_roots_and_polar_factor():
    z = torch.randn(100, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = z.T @ z / (z.T @ z).norm()
    root, inverse = R.newton_schulz(s, 15)
    assert torch.allclose(root @ root, s, atol=1e-8)
    assert torch.allclose(root @ inverse, torch.eye(8).double(), atol=1e-8)
    p = R.visser(s, 300)
    assert torch.allclose(p @ p, s, atol=1e-6)
    a = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, _, vt = torch.linalg.svd(a)
    # the paper's B_n Sᵀ for a general S is the polar factor of Sᵀ, vtᵀ uᵀ
    assert torch.allclose(R.newton_schulz(a.T @ a, 60)[1] @ a.T, vt.T @ u.T, atol=1e-4)


@pytest.mark.parametrize("kind", ["ne", "visser", "ns", "stiefel"])
def test_predictors(kind):
    z = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3, 1, 1, 1, 1, 0.3])
    p = R.closed_form_predictor(z, z, kind)
    assert torch.allclose(R.closed_form_predictor(5 * z, 0.1 * z, kind), p, atol=1e-5)  # rows are normalised
    assert torch.allclose(R.closed_form_predictor(z, z, kind, 0.3), p + 0.3 * torch.eye(6), atol=1e-6)
    assert torch.allclose(p, p.T, atol=1e-4) and torch.linalg.eigvalsh((p + p.T) / 2).min() > 0
    directions = torch.nn.functional.normalize(z, dim=1)
    s = directions.T @ directions
    assert (p @ s - s @ p).norm() < 1e-3 * (p @ s).norm()  # functions of S commute with it
    assert R.closed_form_predictor(z.bfloat16(), z.bfloat16(), kind).dtype == torch.float32
    with pytest.raises(ValueError, match="kind"):
        R.closed_form_predictor(z, z, "svd")


def test_stable_rank_and_polar_distance():
    assert R.stable_rank(torch.eye(9) * (torch.arange(9) < 4)) == pytest.approx(4)
    q = torch.linalg.qr(torch.randn(6, 6))[0]
    assert R.polar_distance(5 * q) == pytest.approx(0, abs=1e-3)
    assert R.polar_distance(torch.ones(4, 4)) == pytest.approx(math.sqrt(3) / 2, rel=1e-6)


def views(n, seed=0):
    return torch.rand(2 * n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_guard_is_zero_at_both_ends():
    model = R.MixedBarlow(nets.SmallNet(), 12).train()
    x1, x2 = views(16).chunk(2)
    z1, z2, order = model.project(x1), model.project(x2), torch.randperm(16)
    assert model.guard(x1, x2, z1, z2, 1.0, order) < 1e-8
    assert model.guard(x1, x2, z1, z2, 0.0, order) < 1e-8
    assert model.guard(x1, x2, z1, z2, 0.5, order) > 1e-3


def test_byol_target_follows_and_gets_no_gradient():
    torch.manual_seed(0)
    model = R.LinearBYOL(nets.SmallNet(), 8, momentum=0.75).train()
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in model.target[0].parameters()]
    model(views(8), torch.arange(8)).backward()
    for old, new, online in zip(before, model.target[0].parameters(), model.encoder.parameters(), strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * online, atol=1e-6)
        assert new.grad is None and not new.requires_grad
    assert all(p.grad is not None for p in model.encoder.parameters()) and model.predictor.grad is not None


def test_byol_closed_form_predictor_is_remembered_and_frozen_in_evaluation():
    model = R.LinearBYOL(nets.SmallNet(), 8, "ns", memory=0.5).train()
    model(views(8), torch.arange(8))
    first = model.predictor.clone()
    assert not torch.allclose(first, torch.eye(8))
    model(views(8, 1), torch.arange(8))
    z = model.project(views(8, 1)).detach()
    fresh = R.closed_form_predictor(z, z, "ns")
    assert torch.allclose(model.predictor, (first + fresh) / 2, atol=1e-4)
    held = model.predictor.clone()
    model.eval()(views(8, 2), torch.arange(8))
    assert torch.equal(model.predictor, held) and "predictor" in model.state_dict()


def test_stop_gradient_matters():
    grads = []
    for stop in (True, False):
        torch.manual_seed(0)
        model = R.LinearBYOL(nets.SmallNet(), 8, "identity", stop_gradient=stop).train()
        model(views(8), torch.arange(8)).backward()
        grads.append(model.head[0].weight.grad.norm())
    assert not torch.allclose(grads[0], grads[1], rtol=1e-2)


def test_rank_tools():
    turn = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    z = torch.linalg.qr(torch.randn(50, 5, dtype=torch.float64))[0] @ turn[:5]
    assert R.rankme(z) == pytest.approx(5, abs=1e-2) and R.rankme(1e4 * z) == pytest.approx(5, abs=1e-2)
    q = torch.linalg.qr(torch.randn(500, 30, dtype=torch.float64))[0]
    q = torch.linalg.qr(q - q.mean(0))[0]
    assert R.alpha_req(q * torch.arange(1, 31) ** -0.75) == pytest.approx(1.5, rel=1e-6)
    assert R.regret([1, 3, 2], [0.5, 0.6, 0.9]) == pytest.approx(0.3)
    assert R.spearman([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert R.distance_to_uniform((torch.arange(100)[:, None] + 0.5) / 100) == pytest.approx(0.005, abs=1e-6)


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
