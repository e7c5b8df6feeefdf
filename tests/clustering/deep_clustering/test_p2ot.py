"""P²OT against the published iteration, its ramp, and arms that are trained together."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labcode.clustering import measures
from labcode.clustering.deep_clustering import p2ot


def logits(*shape, seed=0, size=2.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rho, weight", [(0.2, 1.0), (0.8, 0.3)])
def test_labels_are_those_of_the_published_iteration(rho, weight):
    z, n, k = logits(30, 4), 30, 4
    m = np.exp(np.concatenate([z.log_softmax(1).numpy(), np.zeros((n, 1))], 1) / 0.1)
    beta, b = np.array([rho / k] * k + [1 - rho])[:, None], np.full((k + 1, 1), 1 / (k + 1))
    for _ in range(5000):
        a = (1 / n) / (m @ b)
        b = beta / (m.T @ a)
        b[:-1] **= weight / (weight + 0.1)
    wanted = (a * m * b.T)[:, :-1] * n
    found = p2ot.p2ot_labels(z, rho, weight, tolerance=1e-10, rounds=20000)
    np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_mass_ramps_up_from_the_first_to_one():
    ramp = [p2ot.mass(step / 100) for step in range(101)]
    assert all(a <= b for a, b in zip(ramp, ramp[1:], strict=False))
    assert ramp[0] == pytest.approx(0.1 + 0.9 * math.exp(-5)) and ramp[-1] == 1
    assert {p2ot.mass(s / 10, 1.0) for s in range(11)} == {1.0}


def test_confident_samples_come_first_and_the_weights_are_at_most_one():
    z = logits(200, 5)
    weights = p2ot.p2ot_labels(z, 0.3).sum(1)
    sure = z.softmax(1).amax(1)
    assert float(weights.mean()) == pytest.approx(0.3, abs=1e-4) and float(weights.max()) < 1 + 1e-6
    assert torch.corrcoef(torch.stack([sure, weights]))[0, 1] > 0.5


def test_the_weight_of_the_kl_turns_from_free_to_even():
    z = logits(300, 4) + torch.tensor([3.0, 0, 0, 0])
    even = [measures.size_entropy(p2ot.p2ot_labels(z, 1.0, w, tolerance=1e-3).argmax(1), 4) for w in (0.01, 1.0, 100.0)]
    assert even[0] < even[1] < even[2]


def test_weighted_cross_entropy_is_the_loop_and_its_gradient_is_right():
    z, q = logits(5, 3), logits(5, 3, seed=1).softmax(1) * torch.tensor([[1], [0], [0.5], [1], [0.2]])
    wanted = sum(-float(q[i, j]) * math.log(z[i].softmax(0)[j]) for i in range(5) for j in range(3)) / 5
    assert float(p2ot.weighted_cross_entropy(z, q)) == pytest.approx(wanted)
    assert torch.autograd.gradcheck(lambda t: p2ot.weighted_cross_entropy(t, q), (z.requires_grad_(),))


def blobs(k=4, d=8, seed=0, counts=(120, 60, 30, 15)):
    g = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.full((c,), i) for i, c in enumerate(counts)])
    return F.normalize(3 * torch.eye(k, d)[y] + 0.6 * torch.randn(len(y), d, generator=g), dim=1), y


def test_arms_trained_together_are_those_trained_alone():
    x, _ = blobs()
    options = dict(steps=4, batch_size=100)

    def run(ramps, weights):
        labels = p2ot.PartialLabels(ramps, weights, tolerance=1e-9, rounds=3000)
        g = torch.Generator().manual_seed(1)
        return p2ot.train_heads(x, 4, labels, arms=len(weights), generator=g, **options)

    both = run([0.5, 1.0], [1.0, math.inf])
    torch.testing.assert_close(both[1:], run([1.0], [math.inf]), atol=1e-4, rtol=0)


def test_clusters_of_unequal_size_are_found():
    x, y = blobs()
    found = p2ot.p2ot_clusters(x, 4, generator=torch.Generator().manual_seed(0), steps=160)
    assert measures.measures(found, y, 4)["ACC"] > 0.6


def test_class_recall_is_counted_after_matching():
    clusters, labels = torch.tensor([1, 1, 1, 0, 0, 2]), torch.tensor([0, 0, 1, 1, 1, 1])
    torch.testing.assert_close(p2ot.class_recall(clusters, labels, 3), torch.tensor([1.0, 0.5, 0.0]))


def test_one_sample_and_a_tie():
    assert p2ot.p2ot_labels(torch.zeros(1, 2), 0.5).shape == (1, 2)
    torch.testing.assert_close(p2ot.p2ot_labels(torch.zeros(6, 3), 0.6), torch.full((6, 3), 0.2), atol=1e-5, rtol=0)
    assert torch.isfinite(p2ot.p2ot_labels(logits(6, 3).half() * 1000, 0.5)).all()


@pytest.mark.bad_input
def test_bad_input_is_named():
    z = torch.zeros(4, 2)
    for how, named in ((lambda: p2ot.p2ot_labels(z, 1.5), "mass"), (lambda: p2ot.mass(1, 0.0), "first"),
                       (lambda: p2ot.PartialLabels([1.0], []), "ramps")):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            how()
