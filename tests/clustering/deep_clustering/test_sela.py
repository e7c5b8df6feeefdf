"""SeLa's labels against the released iteration, its limits, and a relabelling by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labcode.clustering import measures
from labcode.clustering.deep_clustering import sela


def logits(n, k, seed=0, size=2.0):
    return size * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_labels_are_those_of_the_published_iteration():
    z = logits(120, 6)
    p = z.softmax(1).numpy().T ** 10.0
    c = np.full((120, 1), 1 / 120)
    for _ in range(3000):  # r and c in turn, as in the paper's appendix
        r = (1 / 6) / (p @ c)
        c = (1 / 120) / (r.T @ p).T
    plan = (p * r * c.T).T
    labels, found = sela.self_labels(z, lam=10.0, tolerance=1e-9, rounds=10000)
    np.testing.assert_allclose(found.plan, plan, atol=1e-10)
    assert np.array_equal(labels, plan.argmax(1))


def test_the_plan_is_balanced_where_the_largest_probability_is_not():
    z = logits(300, 5) + torch.tensor([4.0, 0, 0, 0, 0])
    labels, found = sela.self_labels(z, rounds=2000)
    assert measures.size_entropy(labels, 5) > 0.98 > 0.5 > measures.size_entropy(z.argmax(1), 5)
    torch.testing.assert_close(found.plan.sum(0), torch.full((5,), 0.2, dtype=torch.float64), atol=3e-3, rtol=0)


def test_probabilities_that_underflow_keep_their_labels():
    z = torch.tensor([[0.0, -2000.0], [-2000.0, 0.0], [0.0, -1999.0], [-1999.0, 0.0]])
    assert sela.self_labels(z, lam=25.0)[0].tolist() == [0, 1, 0, 1]
    assert sela.self_labels(z.half() / 1000)[0].tolist() == [0, 1, 0, 1]
    assert sela.self_labels(torch.zeros(1, 1))[0].tolist() == [0]


def test_images_have_no_order():
    z, order = logits(50, 4), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sela.self_labels(z, tolerance=1e-6)[0][order], sela.self_labels(z[order], tolerance=1e-6)[0])


def test_training_starts_from_as_many_images_of_each_label():
    found = sela.balanced_permutation(23, 4, torch.Generator().manual_seed(0))
    assert found.bincount().tolist() == [6, 6, 6, 5] and found[:4].tolist() != [0, 1, 2, 3]


def test_the_loss_is_the_mean_over_heads_of_cross_entropies_and_update_changes_one_head():
    encoder = torch.nn.Linear(6, 5)
    encoder.features = 5
    m, x = sela.SeLa(encoder, 12, clusters=3, heads=2), torch.randn(12, 6)
    index = torch.tensor([3, 7, 1])
    z = m.head(m.encoder(x[index].repeat(2, 1))).view(6, 2, 3)
    wanted = sum(F.cross_entropy(z[:, h], m.labels[h, index].repeat(2)) for h in (0, 1)) / 2
    torch.testing.assert_close(m(x[index].repeat(2, 1), index), wanted)
    before = m.labels.clone()
    m.update(m.encoder(x), 1)
    assert torch.equal(m.labels[0], before[0])
    assert torch.equal(m.labels[1], sela.self_labels(m.head(m.encoder(x)).view(12, 2, 3)[:, 1])[0])


def test_a_head_on_features_keeps_its_clusters():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 4
    x = F.normalize(3 * torch.eye(4, 8)[y] + 0.5 * torch.randn(240, 8, generator=g), dim=1)
    found = sela.sela_clusters(x, 4, generator=torch.Generator().manual_seed(0), steps=60, updates=30)
    assert measures.measures(found, y, 4)["entropy"] > 0.9


@pytest.mark.bad_input
def test_bad_input_is_named():
    for how, named in ((lambda: sela.self_labels(torch.zeros(3)), "logits"),
                       (lambda: sela.self_labels(torch.zeros(3, 2), lam=0.0), "lam")):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            how()
