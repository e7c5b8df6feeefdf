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
from labcode.evaluate.clusters import contingency


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


@pytest.mark.parametrize("tau", [10.0, 0.1, 0.01, 0.005, 0.002, 1e-4, 1e-10, 1e-20])
def test_knn_loses_no_vote_at_a_low_temperature(tau):
    """The shared cases' clouds, right at 0.1, fell to chance below 0.01; with k = 1 the temperature has no say."""
    g = torch.Generator().manual_seed(0)
    centre, y, ty = torch.randn(10, 128, generator=g), torch.arange(2000) % 10, torch.arange(500) % 10
    z, t = (centre[k] * 0.8 + torch.randn(len(k), 128, generator=g) for k in (y, ty))
    assert E.knn(z, y, t, ty, tau=tau) > 0.99
    if tau < 1e-4:
        assert torch.equal(E.knn_predict(z, y, t, 20, tau), E.knn_predict(z, y, t, 1))


def votes(z, y, new, k, tau):
    """Labels from the most votes to the fewest for each new row: a loop in float64, with exact sums."""
    z, new = (t.double().numpy() / np.linalg.norm(t.double().numpy(), axis=1, keepdims=True) for t in (z, new))
    out = []
    for row in new:
        similarity = z @ row
        near = np.argsort(-similarity, kind="stable")[:k]
        total = {int(c): 0.0 for c in y.unique()}
        for i in near:
            total[int(y[i])] += math.exp((similarity[i] - similarity[near[0]]) / tau)
        out.append(sorted(total, key=lambda c: -total[c]))  # stable: equal ones by label
    return torch.tensor(out)


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.02])
@pytest.mark.parametrize("names", [(0, 1, 2, 3, 4), (10**8, -3, 7, 10**12, 5)])
def test_knn_predictions_are_those_of_a_loop_in_the_callers_labels(tau, names):
    z, y, zt, yt = blobs(150)
    y, yt = torch.tensor(names)[y], torch.tensor(names)[yt]
    want = votes(z, y, zt, 12, tau)
    assert torch.equal(E.knn_predict(z, y, zt, 12, tau), want[:, 0])
    found = E.knn_predict(z, y, zt, 12, tau, top=3)
    assert (found == want[:, :3]).double().mean() > 0.995  # float32 may swap two that are nearly equal
    for top in (1, 2, 5):
        right = (want[:, :top] == yt[:, None]).any(1).double().mean().item()
        assert E.knn(z, y, zt, yt, 12, tau, top=top) == pytest.approx(right, abs=1 / 150 + 1e-9)
    assert E.knn(z, y, zt, yt, 12, tau, top=5) == 1.0


def test_knn_orders_classes_whose_votes_would_underflow():
    angle = torch.tensor([0.1, 0.4, 0.8, 1.2])
    z = torch.stack([angle.cos(), angle.sin()], 1)
    found = E.knn_predict(z, torch.tensor([9, 4, 7, -2]), torch.tensor([[1.0, 0.0]]), k=4, tau=1e-5, top=4)
    assert found.tolist() == [[9, 4, 7, -2]]
    unvoted = E.knn_predict(z, torch.tensor([9, 4, 7, -2]), torch.tensor([[1.0, 0.0]]), k=2, top=4)
    assert unvoted.tolist() == [[9, 4, -2, 7]]  # those without a vote last, in the order of their labels


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_knn_predictions_have_the_labels_type(dtype):
    z, y, zt, _ = blobs(60)
    assert E.knn_predict(z, y.to(dtype), zt).dtype == dtype


IDS = torch.tensor([10**8, -7, 3, 10**15, 0])


def test_labels_may_be_ids_everywhere():
    """Ids of 10⁸ made kNN ask for 20 GB and the linear probe at 10⁶ run for ever."""
    z, y, zt, yt = blobs(300)
    ids, ids_t = IDS[y], IDS[yt]
    assert E.knn(z, ids, zt, ids_t) == E.knn(z, y, zt, yt)
    plain, found = E.linear_probe(z, y, zt, yt), E.linear_probe(z, ids, zt, ids_t)
    assert found.accuracy == pytest.approx(plain.accuracy, abs=0.01) and torch.equal(found.labels, IDS.sort().values)
    assert (found.predict(zt) == ids_t).double().mean().item() == pytest.approx(found.accuracy, abs=0.004)
    in_order = IDS.sort().values  # the same order of the classes: the same split, and the same probe bit by bit
    same = E.linear_probe(z, in_order[y], zt, in_order[yt])
    assert torch.equal(same.weight, plain.weight) and same.accuracy == plain.accuracy
    assert torch.equal(R.held_out(y, 5, 0.2, 3), R.held_out(in_order[y], None, 0.2, 3))
    few = [E.few_label_probe(z, a, zt, b, labels=50, draws=2) for a, b in ((y, yt), (in_order[y], in_order[yt]))]
    assert few[0] == few[1]


def test_a_label_that_no_training_row_has_is_wrong():
    z, y, zt, yt = blobs(200, spread=0.1)
    assert E.knn(z, y, zt, yt) == 1.0
    unknown = torch.where(yt == 2, 10**9, yt)
    share = (yt == 2).double().mean().item()
    assert E.knn(z, y, zt, unknown) == pytest.approx(1 - share)
    assert E.linear_probe(z, y, zt, unknown).accuracy == pytest.approx(1 - share)


@pytest.mark.parametrize("bad", [dict(top=0), dict(top=6), dict(k=0), dict(k=61), dict(tau=-1.0), dict(chunk=0)])
def test_knn_predict_refuses(bad):
    z, y, zt, _ = blobs(60)
    with refused(next(iter(bad))):
        E.knn_predict(z, y, zt, **bad)


def test_held_out_refuses():
    y = torch.tensor([5, 6, 7])
    for bad, name in ((dict(y=y.float()), "y"), (dict(y=y[None]), "y"), (dict(y=[1, 2]), "y"),
                      (dict(classes=2), "at most 2 classes"), (dict(share=1.5), "share")):  # fmt: skip
        with refused(name):
            R.held_out(**dict(y=y, classes=3, share=0.2, seed=0) | bad)
    assert R.held_out(y[:0], None, 0.2, 0).shape == (0,)


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


@pytest.mark.parametrize("power", [-66, -30, 30, 66, 120])
def test_ridge_of_factors_of_any_size_is_the_same(power):
    g = torch.Generator().manual_seed(0)
    z, zt, t, tt = (torch.randn(n, d, generator=g) for n, d in ((40, 6), (20, 6), (40, 2), (20, 2)))
    t, tt = t + z[:, :2], tt + zt[:, :2]
    size = torch.tensor([1.0, 2.0**power])
    assert E.ridge_r2(z, t * size, zt, tt * size) == E.ridge_r2(z, t, zt, tt)


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


@pytest.mark.parametrize("t", [1e-3, 2.0, 60.0, 1e4, 1e9])
def test_uniformity_of_any_t_is_the_float64_loop(t):
    z = torch.randn(12, 3, generator=torch.Generator().manual_seed(4))
    unit = z.double().numpy() / np.linalg.norm(z.double().numpy(), axis=1, keepdims=True)
    apart = np.array([((unit[i] - unit[j]) ** 2).sum() for i in range(12) for j in range(i)])
    want = -t * apart.min() + math.log(np.exp(-t * (apart - apart.min())).mean())
    assert E.uniformity(z, t) == pytest.approx(want, rel=1e-5, abs=1e-5)


def test_measures_of_rows_far_from_the_origin_lose_no_digits():
    """Differences of squares would: rows of length 10⁴ that differ by 1 in each entry."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(60, 5, generator=g).double()
    for offset in (0.0, 1e2, 1e4):
        far = (z + offset).float()
        unit = far.double() / far.double().norm(dim=1, keepdim=True)
        want = (unit[:30] - unit[30:]).square().sum(1).mean().item()
        assert E.alignment(far[:30], far[30:]) == pytest.approx(want, rel=1e-3 if offset else 1e-6)
        pairs = torch.pdist(unit).square().mul(-2).exp().mean().log().item()
        assert E.uniformity(far) == pytest.approx(pairs, abs=2e-6) and E.uniformity(far) <= 0
    assert -1e-6 < E.uniformity(torch.full((40, 7), 0.1)) <= 0
    y = (z[:, 0] > 0).long()
    near, far = (E.linear_probe(x[:40], y[:40], x[40:], y[40:]).accuracy for x in (z.float(), (z + 1e4).float()))
    assert near == pytest.approx(far, abs=0.11) and far >= 0.9


def test_alignment_and_uniformity_of_tiny_and_zero_rows():
    z = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    assert E.alignment(1e-30 * z, z.flip(0)) == pytest.approx(E.alignment(z, z.flip(0)), rel=1e-5)
    assert E.uniformity(1e-30 * z) == pytest.approx(E.uniformity(z), rel=1e-5)
    assert E.alignment(torch.zeros(4, 3), torch.eye(4)[:, :3]) == pytest.approx(0.75)


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


def test_six_thousand_singletons_need_no_table():
    """It took 1.4 GB: the table has 36 million cells, of which 6,000 hold a sample."""
    import tracemalloc
    import warnings

    g, n = torch.Generator().manual_seed(0), 6000
    one, other = torch.randperm(n, generator=g) * 10**9 - 7, torch.randperm(n, generator=g)
    E.clustering_accuracy(one[:9], other[:9])  # imports
    table = contingency(one, other)
    assert table.is_sparse and table.shape == (n, n) and table.values().tolist() == [1] * n
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert E.clustering_accuracy(one, other) == 1.0
        assert E.clustering_accuracy(one, torch.arange(n) % 10) == 10 / n
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


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
            wrong = [value[:-1], value.float(), value.to(torch.complex64), value.tolist()]
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
