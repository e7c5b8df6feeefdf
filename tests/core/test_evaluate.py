"""Measures against scikit-learn, slow loops and closed forms."""

import contextlib
import math
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier

from labcode import evaluate as E
from labcode.evaluate import representation as R


@contextlib.contextmanager
def refused(match):
    """The function's own ValueError, with the annotation check of the tests out of its way."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=match):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def blobs(n=400, d=20, classes=5, spread=2.0, seed=0):
    """Two independent draws of overlapping classes, features of very different scales: train_z, train_y, test_z, …"""
    g = torch.Generator().manual_seed(seed)
    centres, scale = torch.randn(classes, d, generator=g), torch.logspace(-2, 2, d)
    out = []
    for _ in range(2):
        y = torch.randint(classes, (n,), generator=g)
        out += [(centres[y] + spread * torch.randn(n, d, generator=g)) * scale + 3, y]
    return tuple(out)


# kNN


@pytest.mark.parametrize("k,tau", [(1, 0.1), (20, 0.1), (50, 0.01), (400, 1.0)])
def test_knn_is_scikit_learns(k, tau):
    z, y, zt, yt = blobs()
    reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp(-d / tau))
    want = reference.fit(z.double().numpy(), y.numpy()).score(zt.double().numpy(), yt.numpy())
    assert E.knn(z, y, zt, yt, k=k, tau=tau) == pytest.approx(want, abs=1 / 400 + 1e-9)
    assert 0.25 < want < 1


def test_knn_votes_are_weighted():
    """One very near neighbour outvotes two distant ones, and loses when tau flattens the weights."""
    angle = torch.tensor([0.05, 0.8, 0.9])
    z, y = torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([0, 1, 1])
    test = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert E.knn(z, y, *test, k=3, tau=0.1) == 1.0
    assert E.knn(z, y, *test, k=3, tau=100) == 0.0
    assert E.knn(z * torch.tensor([[100.0], [1], [1]]), y, *test, k=3, tau=0.001) == 1.0  # cosine; and no overflow


def test_knn_chunks_and_axes_change_nothing():
    z, y, zt, yt = blobs()
    whole = E.knn(z, y, zt, yt)
    assert E.knn(z, y, zt, yt, chunk=7) == whole == E.knn(z.view(-1, 4, 5), y, zt.view(-1, 4, 5), yt, classes=9)
    assert E.knn(z.half() / 100, y, zt.half() / 100, yt) == pytest.approx(whole, abs=0.02)
    assert E.knn(torch.zeros(30, 4), torch.zeros(30).long(), torch.zeros(5, 4), torch.zeros(5).long()) == 1.0


@pytest.mark.parametrize("n, k", [(40, 10), (43, 10), (400, 3), (997, 20), (9, 9), (50, 1)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_in_two_steps_are_the_largest(n, k, ties):
    scores = torch.rand(30, n, generator=torch.Generator().manual_seed(n))
    scores = (scores * 5).round() if ties else scores
    values, columns = E.representation._largest(scores, k)
    assert torch.equal(values.sort(1).values, scores.sort(1).values[:, -k:])
    assert torch.equal(scores.gather(1, columns), values) and all(len(set(row)) == k for row in columns.tolist())


# Linear probe


@pytest.mark.parametrize("l2", [1.0, 0.01, 0.0005])
@pytest.mark.parametrize("classes", [2, 5])
def test_probe_is_scikit_learns_logistic_regression(l2, classes):
    """The same objective: the same coefficients, intercepts and accuracy."""
    z, y, zt, yt = (t.double() if t.is_floating_point() else t for t in blobs(classes=classes))
    found = E.linear_probe(z, y, zt, yt, l2=(l2,), tolerance=1e-9, steps=5000)
    mean, std = z.mean(0).numpy(), z.std(0, correction=0).numpy()
    sk = LogisticRegression(C=1 / (l2 * len(z)), tol=1e-10, max_iter=20000)
    if classes == 2:  # scikit-learn fits one logit w; a softmax shares it as ±w/2, which halves the penalty
        sk.C *= 2
    sk.fit((z.numpy() - mean) / std, y.numpy())
    weight = found.weight.numpy() * std
    intercept = found.bias.numpy() + found.weight.numpy() @ mean
    if classes == 2:
        weight, intercept = weight[1:] - weight[:1], intercept[1:] - intercept[:1]
    np.testing.assert_allclose(weight, sk.coef_, atol=2e-5)
    if classes > 2:  # a softmax does not fix the intercepts' mean
        intercept, sk.intercept_ = intercept - intercept.mean(), sk.intercept_ - sk.intercept_.mean()
    np.testing.assert_allclose(intercept, sk.intercept_, atol=2e-5)
    assert found.accuracy == pytest.approx(sk.score((zt.numpy() - mean) / std, yt.numpy()), abs=1e-9)
    assert math.isnan(found.validation_accuracy) and found.l2 == l2


def test_probe_default_tolerance_is_enough():
    """The quick fit's accuracy is that of the exact one."""
    z, y, zt, yt = blobs(1000, 64, 10, 3.0)
    quick, exact = E.linear_probe(z, y, zt, yt), E.linear_probe(z, y, zt, yt, tolerance=1e-6, steps=3000)
    assert quick.l2 == exact.l2 and abs(quick.accuracy - exact.accuracy) <= 0.005


def test_probe_weights_act_on_the_raw_representation():
    z, y, zt, yt = blobs()
    found = E.linear_probe(z, y, zt, yt)
    again = (zt @ found.weight.T + found.bias).argmax(1) == yt
    assert again.double().mean().item() == pytest.approx(found.accuracy, abs=0.003)


def test_probe_ignores_shift_and_scale_of_features():
    z, y, zt, yt = blobs()
    plain = E.linear_probe(z, y, zt, yt)
    moved = E.linear_probe(z * 7 - 2, y, zt * 7 - 2, yt)
    assert moved.l2 == plain.l2 and moved.accuracy == pytest.approx(plain.accuracy, abs=0.005)


def test_probe_chooses_on_held_out_training_rows_alone():
    """Few rows, many noise features: weak regularisers overfit, and the choice is the one made by hand."""
    g = torch.Generator().manual_seed(0)
    y, yt = torch.randint(2, (400,), generator=g), torch.randint(2, (2000,), generator=g)
    z, zt = torch.randn(400, 300, generator=g), torch.randn(2000, 300, generator=g)
    z[:, :3] += 0.5 * (y[:, None] * 2 - 1)
    zt[:, :3] += 0.5 * (yt[:, None] * 2 - 1)
    grid = (10.0, 1.0, 0.1, 1e-3, 1e-5)
    found = E.linear_probe(z, y, zt, yt, l2=grid)
    held = R.held_out(y, 2, 0.2, 0)
    scores = [E.linear_probe(z[~held], y[~held], z[held], y[held], l2=(s,), classes=2).accuracy for s in grid]
    assert found.validation_accuracy == pytest.approx(max(scores), abs=1e-6)
    assert found.l2 == grid[scores.index(max(scores))] >= 0.1
    assert found.accuracy > E.linear_probe(z, y, zt, yt, l2=(1e-5,)).accuracy
    other = E.linear_probe(z, y, zt, 1 - yt, l2=grid)  # other test labels cannot change what was chosen
    assert other.l2 == found.l2 and other.accuracy == pytest.approx(1 - found.accuracy)


def test_probe_takes_the_strongest_of_equal_regularisers():
    found = E.linear_probe(*blobs(spread=0.05), l2=(1e-4, 0.1, 0.01))
    assert found.validation_accuracy == found.accuracy == 1 and found.l2 == 0.1


def test_held_out_rows_are_balanced_and_seeded():
    y = torch.tensor([0] * 50 + [1] * 10 + [2] * 3)
    held = R.held_out(y, 4, 0.2, 0)
    assert [int(held[y == c].sum()) for c in range(3)] == [10, 2, 0]
    assert torch.equal(held, R.held_out(y, 4, 0.2, 0)) and not torch.equal(held, R.held_out(y, 4, 0.2, 1))


def test_probe_with_one_label_per_class():
    z, y, zt, yt = blobs(spread=0.1)
    first = torch.stack([(y == c).nonzero()[0, 0] for c in range(5)])
    found = E.linear_probe(z[first], y[first], zt, yt)
    assert math.isnan(found.validation_accuracy) and found.l2 == 0.01 and found.accuracy > 0.9


def test_probe_survives_constant_features_and_collapse():
    z, y, zt, yt = blobs()
    z[:, 3], zt[:, 3] = 1e4, 1e4
    assert E.linear_probe(z, y, zt, yt).accuracy > 0.4
    collapsed = E.linear_probe(torch.full_like(z, 3.7), y, torch.full_like(zt, 3.7), yt)
    assert collapsed.accuracy == pytest.approx((yt == y.bincount().argmax()).double().mean().item())


# Ridge R²


def test_ridge_is_scikit_learns():
    g = torch.Generator().manual_seed(0)
    for n, d in ((200, 30), (40, 90)):
        z, zt = torch.randn(n, d, generator=g) * 3 + 1, torch.randn(100, d, generator=g) * 3 + 1
        mix = torch.randn(d, 2, generator=g)
        t, tt = z @ mix + torch.randn(n, 2, generator=g), zt @ mix + torch.randn(100, 2, generator=g)
        mean, std = z.mean(0).numpy(), z.std(0, correction=0).numpy()
        sk = Ridge(alpha=0.3 * n).fit((z.numpy() - mean) / std, t.numpy())
        want = r2_score(tt.numpy(), sk.predict((zt.numpy() - mean) / std))
        assert E.ridge_r2(z, t, zt, tt, l2=(0.3,)) == pytest.approx(want, abs=1e-4)


def test_ridge_bounds():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(500, 10, generator=g)
    assert E.ridge_r2(z[:300], z[:300, 0], z[300:], z[300:, 0]) > 0.999
    t = torch.randn(500, generator=g)
    assert -0.2 < E.ridge_r2(z[:300], t[:300], z[300:], t[300:]) < 0.05
    noisy = torch.randn(60, 55, generator=g)  # the regulariser is chosen, and it matters
    t = noisy[:, 0] + torch.randn(60, generator=g)
    data = noisy[:40], t[:40], noisy[40:], t[40:]
    assert all(E.ridge_r2(*data, l2=grid) > E.ridge_r2(*data, l2=(1e-4,)) + 0.01 for grid in ((1e-4, 0.5), (0.5, 1e-4)))
    with refused("test_t holds a constant"):
        E.ridge_r2(z[:300], z[:300, 0], z[300:], torch.ones(200))


# Alignment, uniformity, rank


def test_alignment_closed_forms():
    z = torch.eye(4)
    assert E.alignment(z, 5 * z) == 0
    assert E.alignment(z, -z) == pytest.approx(4)
    assert E.alignment(z, z.roll(1, 0)) == pytest.approx(2) and E.alignment(z, z.roll(1, 0), 1) == pytest.approx(2**0.5)


@pytest.mark.parametrize("t", [0.5, 2, 5])
@pytest.mark.parametrize("chunk", [3, 10, 4096])
def test_uniformity_is_the_papers_loop(t, chunk):
    z = torch.randn(17, 5, generator=torch.Generator().manual_seed(0))
    unit = z.double().numpy() / np.linalg.norm(z.double().numpy(), axis=1, keepdims=True)
    pairs = [np.exp(-t * ((unit[i] - unit[j]) ** 2).sum()) for i in range(17) for j in range(i)]
    assert E.uniformity(z, t, chunk) == pytest.approx(math.log(np.mean(pairs)), abs=1e-5)


def test_uniformity_bounds():
    assert E.uniformity(torch.ones(50, 8)) == pytest.approx(0, abs=1e-5)
    assert E.uniformity(torch.tensor([[1.0, 0], [-2, 0]])) == pytest.approx(-8)  # two opposite points
    sphere = torch.randn(3000, 256, generator=torch.Generator().manual_seed(0))
    assert E.uniformity(sphere) == pytest.approx(-4 * (1 - 1 / 128), abs=0.02)  # E exp(4 cos) ~ exp(16 / 2d)


def test_effective_rank():
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(40, 6, generator=g)).Q
    assert E.effective_rank(q) == pytest.approx(6, rel=1e-3)
    values = torch.tensor([3.0, 2, 1, 0.5, 0.1, 0])
    share = (values / values.sum()).double() + 1e-7
    want = math.exp(-(share * share.log()).sum())
    assert E.effective_rank(q * values) == pytest.approx(want, rel=1e-4)
    wide = torch.linalg.qr(torch.randn(9, 6, generator=g)).Q @ torch.diag(values) @ q.T  # fewer rows than columns
    assert E.effective_rank(wide) == pytest.approx(want, rel=1e-4)
    assert E.effective_rank(torch.ones(100, 7)) == pytest.approx(1, abs=1e-3)
    assert E.effective_rank(q * 100) == pytest.approx(E.effective_rank(q), rel=1e-4)


# Clusters


def test_clustering_accuracy_by_trying_every_matching():
    from itertools import permutations

    g = torch.Generator().manual_seed(0)
    for clusters, classes in ((4, 4), (3, 4), (5, 3)):
        predicted, labels = torch.randint(clusters, (60,), generator=g), torch.randint(classes, (60,), generator=g)
        names = list(range(classes)) + [-1] * max(0, clusters - classes)
        pairs = list(zip(predicted.tolist(), labels.tolist(), strict=True))
        best = max(sum(m[p] == c for p, c in pairs) for m in permutations(names, clusters))
        assert E.clustering_accuracy(predicted, labels) == pytest.approx(best / 60)


def test_clusterings_by_any_name():
    labels = torch.arange(4).repeat(25)
    renamed = torch.tensor([7, -1, 100, 3])[labels]
    for measure in (E.clustering_accuracy, E.nmi, E.ari):
        assert measure(renamed, labels) == pytest.approx(1.0)
    constant = torch.zeros(100, dtype=torch.int64)
    assert E.clustering_accuracy(constant, labels) == 0.25 and E.nmi(constant, labels) == E.ari(constant, labels) == 0


def test_nmi_and_ari_by_counting():
    z, y, _, _ = blobs(spread=0.8)
    predicted = torch.from_numpy(KMeans(4, n_init=1, random_state=0).fit_predict(z.numpy()))
    p = torch.stack([((predicted == i) & (y == j)).double().mean() for i in range(4) for j in range(5)]).view(4, 5)
    entropy = lambda q: -(q[q > 0] * q[q > 0].log()).sum()  # noqa: E731
    shared = entropy(p.sum(0)) + entropy(p.sum(1)) - entropy(p.flatten())
    assert E.nmi(predicted, y) == pytest.approx(float(2 * shared / (entropy(p.sum(0)) + entropy(p.sum(1)))))
    pair = lambda m: float((m * (m - 1) / 2).sum())  # noqa: E731
    n = p * 400
    agree, rows, columns, total = pair(n), pair(n.sum(1)), pair(n.sum(0)), 400 * 399 / 2
    want = (agree - rows * columns / total) / ((rows + columns) / 2 - rows * columns / total)
    assert E.ari(predicted, y) == pytest.approx(want)


# Errors


@pytest.mark.parametrize(
    "measure,names",
    [(E.knn, ("train_z", "train_y", "test_z", "test_y")), (E.linear_probe, ("train_z", "train_y", "test_z", "test_y")),
     (E.ridge_r2, ("train_z", "train_t", "test_z", "test_t")), (E.alignment, ("z1", "z2")), (E.uniformity, ("z",)),
     (E.effective_rank, ("z",))],
)  # fmt: skip
def test_bad_arguments_are_named(measure, names):
    z, y, zt, yt = blobs(60)
    good = dict(train_z=z, train_y=y, test_z=zt, test_y=yt, train_t=z[:, :2], test_t=zt[:, :2], z=z, z1=z, z2=zt)
    good = {name: good[name] for name in names}
    measure(**good)
    for name in names:
        value = good[name]
        if value.is_floating_point():
            for bad in (math.nan, math.inf):
                spoilt = value.clone()
                spoilt[3, 1] = bad
                with refused(f"{name} holds NaN"):
                    measure(**good | {name: spoilt})
            wrong = [value[:0], value.long(), value[:, 0] if not name.endswith("_t") else value.long(), value.tolist()]
        else:
            wrong = [value[:-1], value.float(), value - 1, value.tolist()]
        if name in ("train_t", "test_t", "z2"):
            wrong.append(value[:-1])
        for bad in wrong:
            with refused(name):
                measure(**good | {name: bad})
    if len(names) > 1:
        with refused(names[2] if len(names) > 2 else names[1]):
            measure(**good | {names[2] if len(names) > 2 else names[1]: torch.randn(60, 7)})


@pytest.mark.parametrize("bad", [dict(k=0), dict(k=61), dict(tau=0), dict(chunk=0), dict(classes=3)])
def test_knn_refuses(bad):
    with refused("train_y" if "classes" in bad else next(iter(bad))):
        E.knn(*blobs(60), **bad)


def test_probe_and_ridge_refuse():
    for bad in (dict(l2=()), dict(l2=(-1.0,)), dict(validation=0.0), dict(validation=1.0)):
        with refused(next(iter(bad))):
            E.linear_probe(*blobs(60), **bad)
    with refused("l2"):
        E.ridge_r2(torch.ones(9, 2), torch.ones(9), torch.ones(9, 2), torch.ones(9), l2=(0.0,))
    with refused("2 rows"):
        E.uniformity(torch.ones(1, 2))


def test_clusterings_refuse():
    y = torch.zeros(5, dtype=torch.int64)
    for measure in (E.clustering_accuracy, E.nmi, E.ari):
        with refused("labels must"):
            measure(y, y.float())
        with refused("one length"):
            measure(y, y[:3])
        with refused("empty"):
            measure(y[:0], y[:0])


def test_import_is_light():
    code = """if True:
        import sys, torch
        before = set(sys.modules)
        import labcode.evaluate, labcode.augment, labcode.data.benchmarks
        print({"sklearn", "scipy", "torchvision", "matplotlib"} & (set(sys.modules) - before))
    """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_few_label_probe_is_the_mean_of_its_draws():
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(300, 8, generator=g), torch.randint(3, (300,), generator=g)
    z[torch.arange(300), y] += 2
    found = E.few_label_probe(z[:200], y[:200], z[200:], y[200:], labels=30, draws=2)
    each = []
    for draw in (0, 1):
        rows = torch.randperm(200, generator=torch.Generator().manual_seed(draw))[:30]
        each.append(E.linear_probe(z[rows], y[rows], z[200:], y[200:], l2=(0.01,)).accuracy)
    assert found == pytest.approx(sum(each) / 2) and each[0] != each[1]
    for bad in (dict(labels=0), dict(labels=201), dict(labels=5, draws=0)):
        with pytest.raises(ValueError, match="labels|draws"):
            E.few_label_probe(z[:200], y[:200], z[200:], y[200:], **bad)
