"""Spectrally transformed kernels: closed forms, iterations, new points, rivals, the two rates."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from labcode.imperfect_labels.semi_supervised import comparison_theory as C
from labcode.imperfect_labels.semi_supervised import stkr as S


def moons(n, generator):
    y = torch.arange(n) % 2
    angle = torch.pi * torch.rand(n, generator=generator)
    x = torch.stack([angle.cos() + y, (1 - 2 * y) * angle.sin() + y / 2], 1)
    return x + 0.1 * torch.randn(n, 2, generator=generator), y


@pytest.fixture(scope="module")
def case():
    g = torch.Generator().manual_seed(0)
    (x, y), (new, _) = moons(90, g), moons(20, g)
    index = torch.tensor([[0, 1, 2, 3], [10, 21, 32, 43]])
    return S.neighbour_kernel(x, new, 5), index, F.one_hot(y[index], 2).double() - 0.5


def test_graph_is_the_loop():
    g = torch.Generator().manual_seed(3)
    x, new = torch.rand(12, 2, generator=g).double(), torch.rand(3, 2, generator=g).double()
    base = S.neighbour_kernel(x, new, 3)
    near = [sorted((float((x[i] - x[j]).square().sum()), j) for j in range(12) if j != i)[:3] for i in range(12)]
    width = sum(row[-1][0] for row in near) / 12
    w = torch.zeros(12, 12).double()
    for i in range(12):
        for distance, j in near[i]:
            w[i, j] = w[j, i] = torch.exp(torch.tensor(-distance / width))
    degree = w.sum(1)
    want = torch.tensor([[float(w[i, j] / (degree[i] * degree[j]) ** 0.5) for j in range(12)] for i in range(12)]) / 2
    assert torch.allclose(base.s, want.double() + torch.eye(12) / 2, atol=1e-6)
    assert ((base.new > 0).sum(1) == 3).all() and torch.equal(base.sparse.to_dense(), base.s)
    assert base.edges == int((w > 0).sum()) + 12
    for i in range(3):
        away = sorted((float((new[i] - x[j]).square().sum()), j) for j in range(12))[:3]
        own = sum(torch.exp(torch.tensor(-distance / width)) for distance, _ in away)
        for distance, j in away:
            joined = torch.exp(torch.tensor(-distance / width)) / (own * degree[j]) ** 0.5 / 2
            assert float(base.new[i, j]) == pytest.approx(float(joined), rel=1e-5)
    t = torch.linalg.eigvalsh(base.s)
    assert float(t.min()) > -1e-12 and float(t.max()) == pytest.approx(1)


def test_order_of_the_points_does_not_matter(case):
    g = torch.Generator().manual_seed(0)
    (x, _), (new, _) = moons(90, g), moons(20, g)
    order = torch.randperm(90, generator=g)
    place = torch.empty(90, dtype=torch.long).index_copy_(0, order, torch.arange(90))
    base, index, target = case
    one = S.closed_form(base, index, target, S.inverse_laplacian(0.9))
    two = S.closed_form(S.neighbour_kernel(x[order], new, 5), place[index], target, S.inverse_laplacian(0.9))
    assert torch.allclose(one[0], two[0][:, place], atol=1e-8) and torch.allclose(one[1], two[1], atol=1e-8)


@pytest.mark.parametrize("ratio,powers", [(S.hops(1), (1.0,)), (S.hops(3), (0.0, 0.0, 1.0)),
                                          (lambda t: 0.5 + 2 * t**2, (0.5, 0.0, 2.0))])  # fmt: skip
def test_closed_form_is_the_sum_of_powers(case, ratio, powers):
    base, index, y = case
    here, there = S.closed_form(base, index, y, ratio, 0.2)
    power = [torch.linalg.matrix_power(base.s, p) for p in range(4)]
    kernel = sum(w * power[p + 1] for p, w in enumerate(powers))
    new = sum(w * base.new @ power[p] for p, w in enumerate(powers))
    for r in range(2):
        a = torch.linalg.inv(kernel[index[r]][:, index[r]] + 0.2 * torch.eye(4)) @ y[r]
        assert torch.allclose(here[r], kernel[:, index[r]] @ a, atol=1e-9)
        assert torch.allclose(there[r], new[:, index[r]] @ a, atol=1e-9)


def test_inverse_laplacian_is_its_series():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    series = sum(0.7 ** (p - 1) * t**p for p in range(1, 150))
    assert torch.allclose(t * S.inverse_laplacian(0.7)(t), series)
    assert torch.equal(S.inverse_laplacian(0)(t), torch.ones(7).double())


@pytest.mark.parametrize("sparse", [True, False])
def test_iterations_are_the_closed_form(case, sparse):
    base, index, y = case
    for eta in (0.0, 0.9):
        dense = S.closed_form(base, index, y, S.inverse_laplacian(eta), 0.1)
        *found, products = S.richardson_laplacian(base, index, y, eta, 0.1, sparse=sparse)
        assert products > 1 and all(torch.allclose(a, b, atol=1e-8) for a, b in zip(dense, found, strict=True))
    dense = S.closed_form(base, index, y, lambda t: 0.5 + t**3, 0.1)
    *found, products = S.richardson(base, index, y, (0.5, 0, 0, 1), 0.1, sparse=sparse)
    assert products % 4 == 0 and all(torch.allclose(a, b, atol=1e-8) for a, b in zip(dense, found, strict=True))


def test_one_linear_system_is_the_closed_form(case):
    base, index, y = case
    whole = S.closed_form(base, index, y, S.inverse_laplacian(0.9), 0.1)
    spread = S.label_spreading(base, index, y, 0.8)
    solved = C.resolvent_form(base, index, y, 0.9, 0.1), C.spread_by_solve(base, index, y, 0.8)
    for one, two in zip(solved, (whole, spread), strict=True):
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(one, two, strict=True))


def test_kernel_pca_is_ridge_on_eigenvectors(case):
    base, index, y = case
    _, v = torch.linalg.eigh(base.s)
    here, there = S.closed_form(base, index, y, S.top_eigenvectors(3), 0.05)
    z = v[:, -3:]
    for r in range(2):
        w = torch.linalg.solve(z[index[r]].T @ z[index[r]] + 0.05 * torch.eye(3), z[index[r]].T @ y[r])
        assert torch.allclose(here[r], z @ w, atol=1e-8)
    assert there.shape == (2, 20, 2)
    assert torch.equal(S.top_eigenvectors(9)(torch.tensor([0.5, 1.0])), torch.tensor([2.0, 1.0]))


def test_a_dense_kernel_and_a_single_label():
    g = torch.Generator().manual_seed(1)
    x, new = torch.rand(15, 3, generator=g), torch.rand(4, 3, generator=g)
    base = S.gaussian_kernel(x, new, 0.5)
    assert float(base.s.diagonal().sum()) == pytest.approx(1) and base.edges == 225
    here, there = S.closed_form(base, torch.tensor([[7]]), torch.ones(1, 1, 1).double(), S.hops(1), 0.3)
    assert torch.allclose(here[0, :, 0], base.s[:, 7] / (1 / 15 + 0.3), atol=1e-9)
    assert torch.allclose(there[0, :, 0], base.new[:, 7] / (1 / 15 + 0.3), atol=1e-9)
    for rival in (S.label_spreading, S.label_propagation):
        with pytest.raises(ValueError, match="graph"):
            rival(base, torch.tensor([[7]]), torch.ones(1, 1, 1).double())


def test_label_spreading_and_propagation_beside_scikit_learn(case):
    semi = pytest.importorskip("sklearn.semi_supervised")
    base, index, y = case
    index, y = index[:1], y[:1] + 0.5
    weight, labels = base.weight.numpy(), torch.full((90,), -1)
    labels[index[0]] = y[0].argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = semi.LabelSpreading(kernel=lambda a, b: weight, alpha=0.8, max_iter=500, tol=1e-9).fit(weight, labels)
        clamped = semi.LabelPropagation(kernel=lambda a, b: weight, max_iter=400, tol=0).fit(weight, labels)
    ours = S.label_spreading(base, index, y, 0.8)[0][0]
    assert torch.allclose(ours / ours.sum(1, keepdim=True), torch.from_numpy(peer.label_distributions_), atol=1e-5)
    ours = S.label_propagation(base, index, y, 400)[0][0]
    known = ours.sum(1) > 0.1
    shares = (ours / ours.sum(1, keepdim=True))[known]  # the peer brings rows to 1 in every round
    assert torch.allclose(shares, torch.from_numpy(clamped.label_distributions_)[known], atol=5e-3)
    assert torch.equal(ours[index[0]], y[0])


def test_ridge_beside_scikit_learn():
    ridge = pytest.importorskip("sklearn.kernel_ridge")
    g = torch.Generator().manual_seed(1)
    x, new, y = (torch.rand(shape, generator=g).double() for shape in ((2, 9, 3), (6, 3), (2, 9, 2)))
    found = S.ridge_on_labels(x, y, new, 0.7, 0.1)
    for r in range(2):
        peer = ridge.KernelRidge(alpha=0.1, kernel="rbf", gamma=1 / 0.7).fit(x[r].numpy(), y[r].numpy())
        assert torch.allclose(found[r], torch.from_numpy(peer.predict(new.numpy())), atol=1e-9)
    pool = torch.rand(5, 3, generator=g).double()
    guess = S.ridge_on_labels(x, y, pool, 0.7, 0.1).argmax(2)
    hard = y.amin((1, 2), True) + (y.amax((1, 2), True) - y.amin((1, 2), True)) * F.one_hot(guess, 2)
    again = S.ridge_on_labels(torch.cat([x, pool.expand(2, 5, 3)], 1), torch.cat([y, hard], 1), new, 0.7, 0.1)
    assert torch.allclose(S.ridge_on_labels(x, y, new, 0.7, 0.1, pool=pool), again)


def test_smoothness_that_contradicts_all_powers():
    t = torch.tensor([1, 0.6, 0.3, 0.1]).double()
    g = torch.Generator()
    rough = (lambda c: (c**2 / t**3).sum(1), lambda c: (c**2 / t * (1 - t / 2)).sum(1), lambda c: -(c**2 / t).sum(1))
    share = [S.reversed_pairs(t, measure, 500, generator=g.manual_seed(0)) for measure in rough]
    assert share == [0, 0, 1]
    with pytest.raises(ValueError, match="pairs"):
        S.reversed_pairs(t, lambda c: c[:, 0], 0, generator=g)


def test_circle_waves_are_eigenfunctions_and_rates_fall():
    grid = 2 * torch.pi * torch.arange(64).double() / 64
    z = S.circle_features(grid, 3)
    assert torch.allclose(z.T @ z / 64, torch.eye(7).double(), atol=1e-12)
    gram = torch.exp(2 * torch.cos(grid[:, None] - grid)) / 64
    image = gram @ z
    assert torch.allclose(image, z * (image * z).sum(0) / 64, atol=1e-9)
    g = torch.Generator().manual_seed(0)
    few, many = (S.sampled_eigenspaces(m, (3,), generator=g)[0] for m in (40, 300))
    assert many < few / 1.5
    error = S.known_transform_error((16, 256), 1, 4, generator=g)
    assert error[1] < error[0] / 3
    for bad in (4, 41):
        with pytest.raises(ValueError, match="sizes"):
            S.sampled_eigenspaces(40, (bad,), generator=g)


def test_ring_and_slope():
    base = S.ring(30, 2)
    assert base.edges == 30 * 5 and torch.allclose(base.s.sum(1), torch.ones(30).double())
    assert C.log_slope((1, 2, 4), (3, 12, 48)) == pytest.approx(2)


def test_refuses(case):
    base, index, y = case
    for call, what in (
        (lambda: S.neighbour_kernel(torch.rand(4, 2), k=4), "k"), (lambda: S.hops(0), "p"),
        (lambda: S.inverse_laplacian(1.0), "eta"), (lambda: S.top_eigenvectors(0), "d"),
        (lambda: S.closed_form(base, index, y, S.hops(1), 0), "ridge"),
        (lambda: S.closed_form(base, index + 89, y, S.hops(1)), "index"),
        (lambda: S.richardson(base, index, y, ()), "weights"),
        (lambda: S.richardson(base, index, y, (1, -1)), "weights"), (lambda: S.ring(4, 2), "reach"),
        (lambda: S.graph_kernel(torch.rand(3, 3).triu(1), torch.rand(0, 3)), "weight"),
        (lambda: S.known_transform_error((4,), 0, generator=torch.Generator()), "p"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            call()
