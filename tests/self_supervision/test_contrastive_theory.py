"""The losses, estimators and bounds against slow loops and closed forms; the toys against their own statistics."""

import math

import pytest
import torch

from labcode.self_supervision import contrastive as C
from labcode.self_supervision import contrastive_theory as T


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=gen(seed))


# --- estimators ------------------------------------------------------------------------------------------------------


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


# --- critics, flows, transport ---------------------------------------------------------------------------------------


def test_the_joint_critic_is_a_perceptron_on_the_concatenation():
    torch.manual_seed(0)
    critic, x, y = T.Joint(3, 2, 5), torch.randn(4, 3), torch.randn(6, 2)
    weight = torch.cat([critic.left.weight, critic.right.weight], 1)
    for i in range(4):
        for j in range(6):
            hidden = torch.relu(weight @ torch.cat([x[i], y[j]]) + critic.left.bias)
            assert torch.allclose(critic(x, y)[i, j], critic.out(hidden)[0], atol=1e-6)


@pytest.mark.parametrize("dim, couplings, affine", [(2, 1, False), (5, 2, True), (8, 3, False), (7, 5, True)])
def test_flows_are_bijections(dim, couplings, affine):
    torch.manual_seed(0)
    flow = T.Flow(dim, couplings, 16, affine).double()
    x = randn(9, dim)
    start = flow(x)  # near the identity, up to an exchange of the halves
    assert torch.allclose(start.sort(1).values, x.sort(1).values, atol=0.1)
    for net in flow.nets:
        torch.nn.init.normal_(net[-1].weight, std=0.3)
    assert torch.allclose(flow.inverse(flow(x)), x, atol=1e-9)
    assert not torch.allclose(flow(x), start, atol=0.1)
    if not affine:  # volumes are kept
        assert float(torch.linalg.slogdet(torch.autograd.functional.jacobian(lambda v: flow(v[None])[0], x[0]))[1]) == (
            pytest.approx(0, abs=1e-9)
        )


def test_linear_evidence_counts_what_a_linear_reader_explains():
    y = torch.arange(3).repeat(40)
    told, noise = torch.nn.functional.one_hot(y, 3).double() + 0.01 * randn(120, 3), randn(120, 3)
    variance = 2 / 3  # of one-hot labels of three equal classes
    assert float(T.linear_evidence(told, y, 3, 1e-6)) == pytest.approx(variance, abs=0.01)
    assert float(T.linear_evidence(noise, y, 3)) < 0.1
    assert torch.autograd.gradcheck(lambda z: T.linear_evidence(z, y[:12], 3), randn(12, 4).requires_grad_())


def test_spoiled_features_hide_the_classes_and_lose_nothing():
    x, y = torch.randn(600, 4, generator=gen()), torch.arange(2).repeat(300)
    x[:, 0] += 3 * y
    torch.manual_seed(0)
    flow = T.spoil(T.Flow(4, 4, 32), x, y, steps=150, lr=1e-2, batch_size=200)
    with torch.no_grad():
        z = flow(x)
    assert T.ridge_accuracy(x, y, x, y) > 0.9 > 0.75 > T.ridge_accuracy(z, y, z, y)
    assert torch.allclose(flow.double().inverse(flow(x.double())), x.double(), atol=1e-6)


def test_transport_on_a_line_is_the_difference_of_distribution_functions():
    g = gen()
    p, q = (torch.rand(6, generator=g, dtype=torch.float64) for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    at = torch.arange(6, dtype=torch.float64)
    cost = (at[:, None] - at).abs()
    value, u, v = T.optimal_transport(p, q, cost)
    assert value == pytest.approx(float((p.cumsum(0) - q.cumsum(0)).abs().sum()))
    assert float(p @ u + q @ v) == pytest.approx(value)
    assert bool((u[:, None] + v <= cost + 1e-9).all())
    with pytest.raises(ValueError, match="p must"):
        T.optimal_transport(2 * p, q, cost)


def test_penalty_is_zero_for_unit_slopes_and_reaches_the_encoders():
    unit = torch.nn.functional.normalize(randn(5, 3), dim=1)
    assert float(T.lipschitz_penalty(unit)) == pytest.approx(0, abs=1e-9)
    assert float(T.lipschitz_penalty(3 * unit)) == pytest.approx(4)
    assert torch.autograd.gradcheck(T.lipschitz_penalty, randn(4, 3).requires_grad_())
    torch.manual_seed(0)
    critic = T.PairCritic(3, 3, 8, 4)
    T.wpc_penalty(critic.rowwise, torch.randn(6, 3), torch.randn(6, 3), torch.randperm(6)).backward()
    assert all(p.grad.abs().sum() > 0 for p in critic.parameters() if p.ndim == 2)
    x, y = torch.randn(2, 6, 3)
    assert torch.allclose(critic(x, y).diagonal(), critic.rowwise(x, y), atol=1e-6)

    def linear(x, y):  # slope of norm 5 everywhere
        return 3 * x[:, 0] + 4 * y[:, 1]

    assert float(T.wpc_penalty(linear, x, y, torch.randperm(6))) == pytest.approx(16, rel=1e-5)


def test_symmetric_kl_is_that_of_distributions():
    mu1, s1, mu2, s2 = (randn(5, 3, seed=i) for i in range(4))
    a, b = torch.distributions.Normal(mu1, s1.exp()), torch.distributions.Normal(mu2, s2.exp())
    kl = torch.distributions.kl_divergence
    want = (kl(a, b) + kl(b, a)).sum(1).mean() / 2
    assert torch.allclose(T.symmetric_kl(mu1, s1, mu2, s2), want)
    assert float(T.symmetric_kl(mu1, s1, mu1, s1)) == pytest.approx(0, abs=1e-12)
    inputs = tuple(v.requires_grad_() for v in (mu1, s1, mu2, s2))
    assert torch.autograd.gradcheck(T.symmetric_kl, inputs)


def test_toys_share_what_they_say():
    x, y, symbols = T.token_pairs(3000, 3, seed=1, noise=0.0)
    assert x.shape == y.shape == (3000, 48) and symbols.shape == (3000, 3)
    assert T.ridge_accuracy(x, symbols[:, 1], x, symbols[:, 1]) > 0.9
    assert T.ridge_accuracy(y, symbols[:, 1], y, symbols[:, 1]) > 0.9
    data = T.shared_and_private(3000, seed=0)
    for view, task, good in (("x1", "shared", 1), ("x2", "shared", 1), ("x1", "private", 1), ("x2", "private", 0)):
        found = T.ridge_accuracy(data[view][:2000], data[task][:2000], data[view][2000:], data[task][2000:])
        assert (found > 0.5) == bool(good)


# --- latent classes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3])
def test_contrastive_logistic_is_the_loop(k):
    f, p, n = randn(4, 3), randn(4, 3, seed=1), randn(4, k, 3, seed=2)
    want = 0.0
    for i in range(4):
        total = 1.0
        for j in range(k):
            total += math.exp(-sum(float(f[i, c]) * float(p[i, c] - n[i, j, c]) for c in range(3)))
        want += math.log2(total) / 4
    assert float(T.contrastive_logistic(f, p, n)) == pytest.approx(want, rel=1e-9)
    assert float(T.contrastive_logistic(0 * f, p, n)) == pytest.approx(math.log2(1 + k))
    assert torch.autograd.gradcheck(T.contrastive_logistic, tuple(v.requires_grad_() for v in (f, p, n)))


def test_classifier_losses_are_the_loops():
    f, y = randn(30, 4), torch.arange(3).repeat(10)
    means = T.class_means(f, y, 3)
    assert torch.allclose(means[1], f[y == 1].mean(0))
    total = 0.0
    for c in range(3):
        for other in {0, 1, 2} - {c}:
            rows = [float(x @ (means[c] - means[other])) for x in f[y == c]]
            total += sum(math.log2(1 + math.exp(-v)) for v in rows) / 10 / 6
    assert T.mean_classifier_loss(f, y, means) == pytest.approx(total, rel=1e-9)
    assert T.pair_classifier_loss(f, y, f, y, 3, steps=1) <= total + 1e-9
    assert T.pair_classifier_loss(f, y, f, y, 3) <= T.pair_classifier_loss(f, y, f, y, 3, steps=1) + 1e-9


def test_blocks_never_raise_the_loss_and_collapse_gives_the_bound_at_one():
    f, p, n = randn(50, 6), randn(50, 5, 6, seed=1), randn(50, 5, 6, seed=2)
    single = sum(T.contrastive_logistic(f, p[:, i], n[:, i : i + 1]) for i in range(5)) / 5
    assert float(T.contrastive_logistic(f, p.mean(1), n.mean(1, keepdim=True))) <= float(single)
    assert T.arora_bound(1.0, 0.25) == pytest.approx(1)
    with pytest.raises(ValueError, match="collision"):
        T.arora_bound(1.0, 1.0)


def test_positives_are_of_the_class():
    world = T.LatentClasses(4, noise=0.0, nuisance=1)
    x, y = world.draw(1000, gen())
    assert T.ridge_accuracy(x, y, x, y) > 0.9
    labels = torch.zeros(10, dtype=torch.int64)
    assert torch.equal(world.draw(10, gen(), labels)[1], labels)
    assert [tuple(v.shape) for v in world.pairs(5, 3, gen())] == [(5, 32), (5, 32), (5, 3, 32)]


# --- redundancy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_conditional_means_are_those_of_the_draws(dims):
    world, g = T.TwoViews(dims, 0.8, private=0.5), gen()
    x, z, y = world.draw(200_000, g)
    of_y = [(found, y) for found in (world.given_x(x), world.given_z(z), world.both(x, z))]
    for found, told in [*of_y, (world.mu(x), world.given_z(z))]:
        rest = told - found  # uncorrelated with the conditional mean, and of mean 0
        assert abs(float(rest.mean())) < 0.02 and abs(float((rest * found).mean())) < 0.03


def test_landmarks_average_to_the_conditional_mean_and_the_bound_holds():
    world, g = T.TwoViews(2, 0.8), gen()
    x, z, _ = world.draw(2000, g)
    landmarks = world.draw(20_000, g)[1]
    ratio = T.landmark_features(T.gaussian_log_ratio(x[:200, :2], landmarks, 0.8), clip=50)
    average = ratio @ world.given_z(landmarks) / len(landmarks)
    assert float((average - world.mu(x[:200])).abs().median()) < 0.03
    target = world.both(x, z)
    eps = [float((m - target).square().mean()) for m in (world.given_x(x), world.given_z(z))]
    assert float((world.mu(x) - target).square().mean()) <= T.redundancy_bound(*eps)


def test_linear_mse_is_least_squares():
    a, w = randn(200, 3), randn(3, seed=1)
    assert T.linear_mse(a[:100], a[:100] @ w + 2, a[100:], a[100:] @ w + 2, ridge=1e-12) < 1e-12
    assert T.linear_mse(a[:100], a[:100] @ w, a[100:], a[100:] @ w, ridge=1e9) > 0.5


# --- temperature -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share, simple", [(1.0, False), (0.5, False), (1.0, True), (0.5, True), (0.01, False)])
def test_temperature_loss_is_the_loop(share, simple):
    z, n, tau = randn(8, 3), 4, 0.3
    u = (z / z.norm(dim=1, keepdim=True)).tolist()
    dot = [[sum(a * b for a, b in zip(u[i], u[j], strict=True)) for j in range(8)] for i in range(8)]
    want = 0.0
    for i in range(8):
        partner = (i + n) % 8
        others = sorted((dot[i][j] for j in range(8) if j not in (i, partner)), reverse=True)
        others = others[: max(1, round(share * 6))]
        if simple:
            want += (sum(others) / len(others) - dot[i][partner]) / 8
        else:
            total = sum(math.exp(v / tau) for v in [*others, dot[i][partner]])
            want += (math.log(total) - dot[i][partner] / tau) / 8
    assert float(T.temperature_loss(z, tau, share, simple)) == pytest.approx(want, rel=1e-9)


def test_temperature_loss_is_nt_xent_and_has_its_limits():
    z = randn(12, 5)
    assert torch.allclose(T.temperature_loss(z, 0.2), C.nt_xent(z, 0.2))
    assert torch.autograd.gradcheck(lambda v: T.temperature_loss(v, 0.2, 0.5), z.clone().requires_grad_())
    grads = []
    for tau in (None, 1e3):
        v = z.clone().requires_grad_()
        loss = T.temperature_loss(v, simple=True) if tau is None else tau * T.temperature_loss(v, tau)
        grads.append(torch.autograd.grad(loss, v)[0])
    assert torch.allclose(grads[0] * 10 / 11, grads[1], atol=1e-3)  # ten negatives: 10/11 of the simple loss's gradient


def test_relative_penalty_is_the_share_of_the_gradient():
    z, tau = randn(10, 4), 0.3
    positive, negatives = T._negatives(z)
    s = negatives.clone().requires_grad_()
    logits = torch.cat([positive[:, None], s], 1) / tau
    slope = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), s)[0]
    assert torch.allclose(slope / slope.sum(1, keepdim=True), T.relative_penalty(z, tau))


def test_tolerance_is_the_loop():
    z, y = randn(9, 3), torch.arange(3).repeat(3)
    u = z / z.norm(dim=1, keepdim=True)
    want = [float(u[i] @ u[j]) * (y[i] == y[j]).item() for i in range(9) for j in range(9) if i != j]
    assert T.tolerance(z, y) == pytest.approx(sum(want) / len(want))


# --- simplicity ------------------------------------------------------------------------------------------------------


def test_spectral_loss_is_the_loop_and_the_linear_form_its_expectation():
    a, b, y = randn(6, 3), randn(6, 3, seed=1), torch.arange(2).repeat(3)
    inner = [[float(a[i] @ b[j]) for j in range(6)] for i in range(6)]
    square = sum(v * v for row in inner for v in row) / 36
    same = [inner[i][j] for i in range(6) for j in range(6) if y[i] == y[j]]
    assert float(T.spectral_loss(a, b)) == pytest.approx(-2 * sum(inner[i][i] for i in range(6)) / 6 + square)
    assert float(T.spectral_loss(a, b, y[:, None] == y)) == pytest.approx(-2 * sum(same) / len(same) + square)
    assert torch.autograd.gradcheck(T.spectral_loss, (a.requires_grad_(), b.requires_grad_()))
    x, w = torch.randn(20, 7, generator=gen()), torch.randn(2, 7, generator=gen(1))
    labels = torch.arange(4).repeat(5)
    for who, positive in ((labels, labels[:, None] == labels), (None, None)):
        found = T.spectral_linear(w, *T.moments(x, who))
        assert torch.allclose(found, T.spectral_loss(x @ w.T, x @ w.T, positive), rtol=1e-4)


def test_descent_follows_the_gradient():
    x = torch.randn(20, 6, generator=gen())
    second, cross = T.moments(x, None, 0.1)
    start = T.descend(second, cross, 3, 0, start=0.1)
    w = start.clone().requires_grad_()
    slope = torch.autograd.grad(T.spectral_linear(w, second, cross), w)[0]
    assert torch.allclose(T.descend(second, cross, 3, 1, lr=0.01, start=0.1), start - 0.01 * slope, atol=1e-5)


def test_two_minimisers_share_loss_and_training_features_only():
    world = T.Features(120, (1.0, 0.6, 0.0))
    x, y, sub = world.draw(40, 0)
    fresh, _, fresh_sub = world.draw(2000, 1)
    low, high = T.two_minimisers(x.double(), y, torch.eye(120, dtype=torch.float64)[1])
    same = y[:, None] == y
    losses = [float(T.spectral_loss(x.double() @ w.T, x.double() @ w.T, same)) for w in (low, high)]
    assert losses == pytest.approx([-1, -1])
    read = [fresh.double() @ w.T for w in (low, high)]
    accuracy = [T.ridge_accuracy(z[:1000], fresh_sub[:1000], z[1000:], fresh_sub[1000:]) for z in read]
    assert accuracy[0] < 0.6 and accuracy[1] > 0.75 and high.norm() > 2 * low.norm()


def test_distractors_are_shared_as_often_as_asked():
    data = T.DigitsWithDistractor(torch.rand(400, 9, generator=gen()), kinds=8)
    for kept, share in ((1.0, 1.0), (0.0, 1 / 8)):
        a, b = data.views(torch.arange(400), gen(), kept)[:, 9:].chunk(2)
        assert float((a == b).all(1).float().mean()) == pytest.approx(share, abs=0.06)


# --- dense -----------------------------------------------------------------------------------------------------------


def test_dense_nce_is_the_loop():
    z1, z2 = randn(3, 4, 5), randn(3, 4, 5, seed=1)
    match, valid = torch.randint(4, (3, 4), generator=gen()), torch.rand(3, 4, generator=gen()) > 0.3
    drawn, tau, want = torch.randint(4, (3, 2), generator=gen(1)), 0.3, []

    def cos(a, b):
        return float(a @ b / a.norm() / b.norm())

    for i in range(3):
        for p in range(4):
            if valid[i, p]:
                own = math.exp(cos(z1[i, p], z2[i, match[i, p]]) / tau)
                rest = sum(math.exp(cos(z1[i, p], z2[j, k]) / tau) for j in range(3) if j != i for k in drawn[j])
                want.append(-math.log(own / (own + rest)))
    assert float(T.dense_nce(z1, z2, match, valid, drawn, tau)) == pytest.approx(sum(want) / len(want), rel=1e-9)
    assert float(T.dense_nce(z1, z2, match, valid & False, drawn, tau)) == 0
    assert torch.autograd.gradcheck(
        lambda a, b: T.dense_nce(a, b, match, valid, drawn, tau), (z1.requires_grad_(), z2.requires_grad_())
    )


def test_coordinates_match_what_shows_the_same_place():
    same = torch.tensor([[2.0, 3.0, 12.0, 12.0]])
    match, valid = T.match_coordinates(same, same, 4)
    assert torch.equal(match[0], torch.arange(16)) and bool(valid.all())
    moved = torch.tensor([[2.0, 6.0, 12.0, 12.0]])  # one position to the right
    match, valid = T.match_coordinates(same, moved, 4)
    assert valid[0].view(4, 4).tolist() == [[False, True, True, True]] * 4
    assert match[0].view(4, 4)[:, 1:].tolist() == [[4 * r + c for c in range(3)] for r in range(4)]
    z = randn(2, 16, 8)
    order = torch.randperm(16, generator=gen())
    assert torch.equal(T.match_features(z[:, order], z)[0], order.expand(2, 16))
    assert T.dense_alignment(z, z, *T.match_features(z, z)) == pytest.approx(0, abs=1e-12)


def test_dense_net_sees_its_window_and_labels_sit_where_the_ink_is():
    torch.manual_seed(0)
    net = T.DenseNet().eval()
    x = torch.randn(1, 1, 16, 16)
    y = x.clone()
    y[..., :3, :3] += 1
    changed = (net(x) - net(y)).abs().sum(2)[0].view(4, 4) > 1e-6
    assert changed[0, 0] and not changed[3].any() and not changed[:, 3].any()
    images, dense, whole = T.object_scenes(50, "fit", many=False)
    assert images.shape == (50, 1, 16, 16) and bool(((dense == 10) | (dense == whole[:, None])).all())
    images, dense, whole = T.object_scenes(50, "fit", many=True)
    assert torch.equal(dense.view(50, 4, 4)[:, 0, 0], whole) and torch.equal(dense[:, 0], dense[:, 5])


@pytest.mark.parametrize("matching", ["coordinates", "features", "random"])
def test_dense_contrast_trains(matching):
    torch.manual_seed(0)
    model = T.DenseContrast(matching)
    loss = model(*T.dense_views(T.object_scenes(8, "fit", True)[0], gen()))
    loss.backward()
    assert torch.isfinite(loss) and model.encoder.conv1.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="matching"):
        T.DenseContrast("else")


def test_ridge_accuracy_is_mean_recall():
    x = torch.eye(3).repeat(20, 1) + 0.01 * torch.randn(60, 3, generator=gen())
    y = torch.arange(3).repeat(20)
    assert T.ridge_accuracy(x, y, x, y) == 1
    rare = torch.cat([torch.zeros(95, dtype=torch.int64), torch.ones(5, dtype=torch.int64)])
    assert T.ridge_accuracy(torch.zeros(100, 2), rare, torch.zeros(100, 2), rare) == pytest.approx(0.5)
