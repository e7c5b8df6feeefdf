"""Choosing data: trees against counting, selection theory against simulation, greedy choices against brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from labcode.self_supervision import data_curation as D


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


# Hierarchical k-means


@pytest.mark.parametrize("sizes, budget", [([1, 2, 9, 20], 10), ([5], 3), ([0, 4, 4], 8), ([3, 3, 3], 4), ([7, 1], 0)])
def test_water_filling_hands_out_one_by_one(sizes, budget):
    """Every unit goes to the place with the least so far that has any left: the slow way to the same shares."""
    share = [0] * len(sizes)
    for _ in range(budget):
        share[min((i for i in range(len(sizes)) if share[i] < sizes[i]), key=lambda i: share[i])] += 1
    got = D.water_fill(torch.tensor(sizes), budget, gen())
    assert sorted(got.tolist()) == sorted(share) and got.sum() == budget
    assert (got <= torch.tensor(sizes)).all()


@pytest.mark.bad_input
def test_water_filling_refuses_what_is_not_there():
    for budget in (-1, 6):
        with pytest.raises(ValueError, match="budget"):
            D.water_fill(torch.tensor([2, 3]), budget)


def test_a_sample_runs_evenly_down_a_tree_and_counts_rows_not_children():
    """Top: A with two leaves of 1 and 99 rows, B with one leaf of 100. Children would promise A twice B's share."""
    leaf = torch.tensor([0] * 1 + [1] * 99 + [2] * 100)
    levels = [D.Level(torch.zeros(3, 2), leaf), D.Level(torch.zeros(2, 2), torch.tensor([0, 0, 1]))]
    rows = D.hierarchical_sample(levels, 40, seed=1)
    assert len(rows.unique()) == 40
    assert leaf[rows].bincount(minlength=3).tolist() == [1, 19, 20]
    with pytest.raises(ValueError, match="budget"):
        D.hierarchical_sample(levels, 201)


def test_the_nearest_rows_of_a_leaf_are_taken_if_asked():
    x = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [15.0]])
    levels = [D.Level(torch.tensor([[0.0], [10.0]]), torch.tensor([0, 0, 0, 1, 1, 1]))]
    assert D.hierarchical_sample(levels, 4, nearest=x).tolist() == [0, 1, 3, 4]
    assert D.nearest_members(x, levels[0].centroids, levels[0].parent, 1).tolist() == [0, 3]


def test_levels_and_resampling_flatten_two_squares():
    skew = {}
    for name, (sizes, keep) in {
        "one": ((40,), None),
        "two": ((160, 40), None),
        "resampled": ((160, 40), (8, 2)),
    }.items():
        ratios = []
        for seed in range(3):
            at = D.hierarchical_kmeans(D.two_squares(3000, 16.0, seed), sizes, keep, rounds=5, seed=seed)[-1].centroids
            left = int((at[:, 0] < 1).sum())
            ratios.append(math.log2(left / (40 - left)))
        skew[name] = sum(ratios) / 3
    assert skew["one"] == pytest.approx(2, abs=0.6) and skew["two"] == pytest.approx(1, abs=0.5)
    assert abs(skew["resampled"]) < 0.5


@pytest.mark.bad_input
def test_trees_refuse_sizes_that_do_not_fall():
    x = torch.randn(20, 2)
    for sizes in ((), (5, 5), (21,)):
        with pytest.raises(ValueError, match="sizes"):
            D.hierarchical_kmeans(x, sizes)
    with pytest.raises(ValueError, match="resample"):
        D.hierarchical_kmeans(x, (5, 2), (1,))


def test_a_long_tail_has_its_ratio_and_entropy_its_ends():
    labels = torch.arange(2000) % 10
    rows = D.long_tail(labels, 50.0, seed=3)
    count = labels[rows].bincount()
    assert count[0] == 200 and count[9] == 4 and (count.diff() <= 0).all()
    assert (
        D.class_entropy(labels, 10) == pytest.approx(1) and D.class_entropy(torch.zeros(5, dtype=torch.int64), 10) == 0
    )


# Selection by uncertainty


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [3, 50, 99, 100])
def test_inclusion_sums_to_the_count_and_follows_the_power(alpha, count):
    logits = 4 * torch.randn(2, 100, generator=gen(), dtype=torch.float64)
    pi = D.inclusion(logits, count, alpha)
    assert pi.sum(1).tolist() == pytest.approx([count] * 2, rel=1e-6) and pi.max() <= 1
    p = logits.clamp(-10, 10).sigmoid()
    score = (p * (1 - p)) ** alpha
    free = pi < 1 - 1e-9
    for row in range(2):
        constant = (pi / score)[row][free[row]]
        assert len(constant) < 2 or constant.max() / constant.min() == pytest.approx(1, rel=1e-6)


def test_logistic_is_what_scipy_finds():
    x, y, _ = D.mislabelled_gaussians(3, 40, 4, seed=2)
    weight = torch.rand(3, 40, generator=gen(), dtype=torch.float64) * 2
    got = D.logistic(x, y, weight, lam=0.02)
    for r in range(3):

        def objective(theta, r=r):
            margin = y[r].numpy() * (x[r].numpy() @ theta)
            return (weight[r].numpy() * np.logaddexp(0, -margin)).sum() + 0.02 * 40 / 2 * (theta**2).sum()

        assert got[r].numpy() == pytest.approx(minimize(objective, np.zeros(4), tol=1e-12).x, abs=1e-4)


def test_the_test_error_is_the_share_of_wrong_signs():
    x, y, truth = D.mislabelled_gaussians(1, 100_000, 3, flip=0.1, seed=4)
    for theta in (truth, -truth, truth + 4 * torch.randn(1, 3, generator=gen(), dtype=torch.float64)):
        counted = (torch.einsum("rnp,rp->rn", x, theta).sign() != y).double().mean().item()
        assert float(D.misspecified_error(theta, truth, flip=0.1)) == pytest.approx(counted, abs=0.005)
    assert float(D.misspecified_error(truth, truth)) == pytest.approx(0.05)


# Gradient information


def slow_kl(target, chosen, k):
    n, m, total = len(target), len(chosen), 0.0
    for i in range(n):
        own = sorted(float((target[i] - target[j]).norm()) for j in range(n) if j != i)[k - 1]
        other = sorted(float((target[i] - w).norm()) for w in chosen)[k - 1]
        total += math.log(other / own)
    return target.shape[1] * total / n + math.log(m / (n - 1))


def test_nearest_neighbour_divergence_is_the_loop_and_near_the_truth():
    x, w = (
        torch.randn(12, 3, generator=gen(), dtype=torch.float64),
        torch.randn(9, 3, generator=gen(1), dtype=torch.float64),
    )
    for k in (1, 4):
        assert float(D.knn_kl(x, w, k)) == pytest.approx(slow_kl(x, w, k), rel=1e-9)
    x, w = torch.randn(4000, 2, generator=gen()), 1 + torch.randn(4000, 2, generator=gen(1))
    assert float(D.knn_kl(x, w, 5)) == pytest.approx(1.0, abs=0.15)  # ‖shift‖²/2 for unit Gaussians


def test_the_released_estimate_is_its_formula_and_its_gradient_ignores_the_chosen():
    x, w = (
        torch.randn(15, 3, generator=gen(), dtype=torch.float64),
        torch.randn(4, 3, generator=gen(1), dtype=torch.float64),
    )
    own = [sorted(float((a - b).norm()) for b in x)[5] for a in x]
    across = sum(math.log(float((a - b).norm())) for a in x for b in w) / 60
    tail = sum(math.log(5 * 4 / (j * 14)) for j in range(1, 5)) / 4
    wanted = 3 * (across - sum(map(math.log, own)) / 15) + tail
    assert float(D.released_kl(x, w)) == pytest.approx(wanted, rel=1e-9)
    v = torch.randn(3, generator=gen(2), dtype=torch.float64).requires_grad_()
    slopes = [torch.autograd.grad(D.released_kl(x, torch.cat([some, v[None]])), v)[0] for some in (w, 9 * w, w[:1])]
    direction = D.gio_gradient(v.detach(), x)
    for slope in slopes:
        assert torch.nn.functional.cosine_similarity(slope, direction, dim=0).item() == pytest.approx(1, abs=1e-12)


def test_greedy_divergence_takes_what_every_trial_would():
    x, pool = (
        torch.randn(10, 2, generator=gen(), dtype=torch.float64),
        torch.randn(14, 2, generator=gen(1), dtype=torch.float64),
    )
    order, taken = D.greedy_kl(x, pool, 5).tolist(), []
    for pick in order:
        trials = {c: float(D.knn_kl(x, pool[[*taken, c]], 1)) for c in range(14) if c not in taken}
        assert pick == min(trials, key=trials.get)
        taken.append(pick)


@pytest.mark.parametrize("start", ["mean", "jump"])
def test_gio_chooses_near_the_target_and_nothing_twice(start):
    target = torch.randn(30, 4, generator=gen()) + 5
    pool = torch.cat([torch.randn(40, 4, generator=gen(1)) + 5, 10 * torch.randn(40, 4, generator=gen(2)) - 20])
    picked = D.gio(target, pool, 15, start)
    assert len(picked.unique()) == 15 and (picked < 40).all()
    assert torch.equal(picked, D.gio(target, pool, 15, start))


@pytest.mark.bad_input
def test_gio_refuses():
    x = torch.randn(6, 2)
    with pytest.raises(ValueError, match="start"):
        D.gio(x, x, 2, "random")
    for count in (0, 7):
        with pytest.raises(ValueError, match="count"):
            D.gio(x, x, count)
    with pytest.raises(ValueError, match="k must"):
        D.knn_kl(x, x[:2], 3)


# SAS


def test_augmentation_similarity_is_the_mean_over_different_draws():
    views = torch.randn(3, 5, 4, generator=gen(), dtype=torch.float64)
    got = D.augmentation_similarity(views)
    for i, j in itertools.product(range(5), repeat=2):
        pairs = [(a, b) for a, b in itertools.product(range(3), repeat=2) if a != b]
        mean = sum(float(torch.cosine_similarity(views[a, i], views[b, j], dim=0)) for a, b in pairs) / len(pairs)
        assert float(got[i, j]) == pytest.approx(max(mean, 0), abs=1e-12)


def test_greedy_cut_gains_are_true_differences_and_near_the_best():
    unit = torch.nn.functional.normalize(torch.randn(9, 3, generator=gen(3), dtype=torch.float64), dim=1)
    s = (unit @ unit.T).clamp_min(0)
    order, taken = D.greedy_graph_cut(s, 4), []
    for pick in order.tolist():
        value = {c: D.graph_cut(s, torch.tensor([*taken, c])) for c in range(9) if c not in taken}
        assert value[pick] == pytest.approx(max(value.values()))
        taken.append(pick)
    best = max(D.graph_cut(s, torch.tensor(c)) for c in itertools.combinations(range(9), 4))
    assert D.graph_cut(s, order) >= (1 - 1 / math.e) * best


def test_sas_takes_the_share_of_every_class_and_its_control_the_opposite():
    s = torch.rand(40, 40, generator=gen())
    s = (s + s.T) / 2
    classes = torch.arange(40) % 4
    high, low = D.sas(s, classes, 0.3, greedy=False), D.sas(s, classes, 0.3, low=True)
    assert classes[high].bincount().tolist() == [3] * 4 and not set(high.tolist()) & set(low.tolist())
    with pytest.raises(ValueError, match="share"):
        D.sas(s, classes, 0.0)


# Faces


def test_faces_are_what_their_factors_say():
    fixed = dict(identity=torch.full((30,), 7), yaw=torch.zeros(30))
    a = D.faces(30, 0, smile=torch.ones(30), **fixed)
    b = D.faces(30, 0, smile=-torch.ones(30), **fixed)
    assert a.images.shape == (30, 3, 12, 12) and a.images.dtype == torch.uint8
    apart = (a.images.float() - b.images.float()).abs().mean((0, 1))
    assert apart[:5].max() < 1 < apart[6:].max()  # a smile changes the lower half alone
    assert (a.landmarks[:, 7] < b.landmarks[:, 7]).all()  # mouth corners go up
    left, right = (
        D.faces(30, 0, identity=fixed["identity"], smile=torch.zeros(30), yaw=s * torch.ones(30)) for s in (-1, 1)
    )
    assert (right.landmarks[:, 4] - left.landmarks[:, 4] > 0.2).all()  # the nose moves right
    assert torch.equal(D.faces(5, 3).images, D.faces(5, 3).images)
    assert not set(D.faces(50, 0, (0, 10)).identity.tolist()) & set(D.faces(50, 0, (10, 20)).identity.tolist())


def test_videos_keep_their_person_and_move_slowly():
    frames, video = D.face_video(4, 50, seed=1)
    for v in range(4):
        assert len(frames.identity[video == v].unique()) == 1
    smile = frames.smile.view(4, 50)
    assert smile.diff(dim=1).abs().mean() < 0.3 * (smile[:, :25] - smile[:, 25:]).abs().mean()


def test_real_faces_are_scikit_images():
    from skimage.data import lfw_subset

    images, labels = D.real_faces(25)
    assert torch.allclose(images[:, 0].double() / 255, torch.from_numpy(lfw_subset()).double(), atol=0.01)
    assert labels.sum() == 100


def slow_swap(z, c, tau, eps):
    z, c = (np.asarray(torch.nn.functional.normalize(t, dim=1)) for t in (z, c))
    scores, n = z @ c.T, len(z) // 2

    def assign(s):
        q = np.exp(s / eps)
        for _ in range(3):
            q = q / q.sum(0, keepdims=True) / q.shape[1]
            q = q / q.sum(1, keepdims=True) / q.shape[0]
        return q * q.shape[0]

    codes, total = [assign(scores[:n]), assign(scores[n:])], 0.0
    for i in range(2 * n):
        p = np.exp(scores[i] / tau) / np.exp(scores[i] / tau).sum()
        total -= (codes[i < n][i % n] * np.log(p)).sum()
    return total / (2 * n)


@pytest.mark.parametrize("n, k", [(1, 3), (4, 5), (6, 2)])
def test_swapped_prediction_is_the_loop(n, k):
    z, c = (
        torch.randn(2 * n, 4, generator=gen(), dtype=torch.float64),
        torch.randn(k, 4, generator=gen(1), dtype=torch.float64),
    )
    assert float(D.swapped_prediction(z, c)) == pytest.approx(slow_swap(z, c, 0.1, 0.05), rel=1e-8)
    halves = z.roll(n, 0)
    assert float(D.swapped_prediction(halves, c)) == pytest.approx(float(D.swapped_prediction(z, c)), rel=1e-12)


def test_swapped_prediction_has_no_gradient_through_its_targets():
    z = torch.randn(6, 3, generator=gen(), dtype=torch.float64).requires_grad_()
    c = torch.randn(4, 3, generator=gen(1), dtype=torch.float64)
    unit = torch.nn.functional.normalize(c, dim=1)
    scores = torch.nn.functional.normalize(z, dim=1) @ unit.T
    with torch.no_grad():
        from labcode.transport import sinkhorn_codes

        codes = torch.cat([sinkhorn_codes(h) for h in scores.chunk(2)]).roll(3, 0)
    wanted = torch.autograd.grad(-(codes * (scores / 0.1).log_softmax(1)).sum(1).mean(), z)[0]
    assert torch.allclose(torch.autograd.grad(D.swapped_prediction(z, c), z)[0], wanted)


def test_prototypes_stay_until_they_are_let_go():
    from labcode.nets import SmallNet

    torch.manual_seed(0)
    model = D.SwAV(SmallNet(16, 32), prototypes=8, dim=16, freeze=1).train()
    views = torch.rand(8, 3, 8, 8, generator=gen())
    moved = []
    for _ in range(2):
        model.zero_grad()
        model(views, torch.arange(4)).backward()
        moved.append(float(model.prototypes.grad.abs().sum()))
    assert moved[0] == 0 < moved[1]


def test_fine_tuning_learns_leaves_the_encoder_alone_and_speaks_the_targets_units():
    from labcode.nets import SmallNet

    torch.manual_seed(0)
    encoder, data = SmallNet(16, 32, size=12), D.faces(200, 0, (0, 3))
    before = [p.clone() for p in encoder.parameters()]
    kind = D.fine_tune(encoder, data.images, data.identity, 60, lr=5e-3)
    assert (kind.predict(data.images) == data.identity).double().mean() > 0.9
    yaw = D.fine_tune(encoder, data.images, 100 + 5 * data.yaw[:, None], 60, lr=5e-3)
    assert D.mean_squared_error(yaw.predict(data.images), 100 + 5 * data.yaw[:, None]) < 0.6
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    flat = data.yaw.mean().expand(200, 1)
    assert D.mean_squared_error(flat, data.yaw[:, None]) == pytest.approx(1)
    with pytest.raises(ValueError, match="targets"):
        D.fine_tune(encoder, data.images, data.identity[:5], 1)


def test_every_candidate_is_taken_once_even_when_none_helps():
    target, pool = (
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0], [6, 6], [7, 7]]),
    )
    assert sorted(D.greedy_kl(target, pool, 5).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.bad_input
def test_faces_and_choices_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="identity"):
        D.faces(2, identity=torch.tensor([-1, 3]))
    with pytest.raises(ValueError, match="smile"):
        D.faces(2, smile=torch.zeros(3))
    with pytest.raises(ValueError, match="classes"):
        D.sas(torch.rand(6, 6), torch.zeros(4, dtype=torch.int64), 0.5)
    with pytest.raises(ValueError, match="labels"):
        D.long_tail(torch.tensor([0, 0, 2, 2]))
    with pytest.raises(ValueError, match="alpha"):
        D.inclusion(torch.zeros(1, 5), 2, float("nan"))
    with pytest.raises(ValueError, match="lr"):
        D.gio(torch.rand(4, 2), torch.rand(4, 2), 2, lr=-1.0)
