"""SCAN's losses against loops, the released formulas and brute-force neighbours."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors

from labcode.clustering import measures
from labcode.clustering.deep_clustering import scan


def logits(n, c, seed=0, size=1.0):
    return size * torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n, c, entropy", [(7, 3, 0.0), (7, 3, 5.0), (2, 10, 2.0), (1, 4, 1.0)])
def test_scan_loss_is_the_loop(n, c, entropy):
    a, b = logits(n, c), logits(n, c, 1)
    p, q = a.softmax(1), b.softmax(1)
    agree = sum(math.log(sum(float(p[i, j] * q[i, j]) for j in range(c))) for i in range(n)) / n
    mean = [sum(float(p[i, j]) for i in range(n)) / n for j in range(c)]
    wanted = -agree + entropy * sum(m * math.log(m) for m in mean)
    assert float(scan.scan_loss(a, b, entropy)) == pytest.approx(wanted, rel=1e-10)


def test_scan_loss_is_smallest_for_sure_answers_that_use_all_clusters():
    sure = 60 * torch.eye(5, dtype=torch.float64)
    assert float(scan.scan_loss(sure, sure, 5.0)) == pytest.approx(-5 * math.log(5), abs=1e-9)
    one = 60 * F.one_hot(torch.zeros(5, dtype=torch.long), 5).double()
    assert float(scan.scan_loss(one, one, 0.0)) == pytest.approx(0, abs=1e-9)
    assert float(scan.scan_loss(one, one, 5.0)) == pytest.approx(0, abs=1e-9)


def test_gradients_of_both_losses():
    a, b = logits(5, 3).requires_grad_(), logits(5, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(scan.scan_loss, (a, b))
    weak = logits(6, 3, 2, 4.0)
    assert torch.autograd.gradcheck(lambda s: scan.self_label_loss(weak, s, 0.6), (logits(6, 3).requires_grad_(),))


def test_clusters_have_no_order_and_extreme_logits_stay_finite():
    a, b, order = logits(6, 4), logits(6, 4, 1), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(scan.scan_loss(a[:, order], b[:, order]), scan.scan_loss(a, b))
    apart = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert float(scan.scan_loss(*apart, 0.0)) == pytest.approx(1e4 - math.log(2))  # a product would be 0 in float32
    assert torch.isfinite(scan.scan_loss(a.half(), b.half()))


def test_self_label_loss_is_the_weighted_cross_entropy_of_the_released_code():
    weak, strong = logits(40, 4, 3, 3.0), logits(40, 4, 4)
    sure, label = weak.softmax(1).max(1)
    mask = sure > 0.8
    names, counts = label[mask].unique(return_counts=True)
    weight = torch.ones(4, dtype=torch.float64)
    weight[names] = mask.sum() / counts.double()
    wanted = F.cross_entropy(strong[mask], label[mask], weight)
    assert 1 < int(mask.sum()) < 40
    torch.testing.assert_close(scan.self_label_loss(weak, strong, 0.8), wanted)


def test_nobody_sure_costs_nothing_and_the_weak_view_has_no_gradient():
    weak, strong = torch.zeros(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    scan.self_label_loss(weak, strong, 0.99).backward()
    assert strong.grad.abs().sum() == 0 and weak.grad is None


def test_neighbours_are_those_of_scikit_learn():
    z = logits(60, 5)
    found = NearestNeighbors(n_neighbors=8, metric="cosine").fit(z.numpy()).kneighbors(return_distance=False)
    assert torch.equal(scan.mine_neighbours(z, 8, chunk=7), torch.from_numpy(found))
    assert scan.neighbour_purity(torch.tensor([[1], [0], [0]]), torch.tensor([0, 0, 1])) == pytest.approx(2 / 3)


def blobs(n=300, k=4, d=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % k
    return F.normalize(3 * torch.eye(k, d)[y] + 0.5 * torch.randn(n, d, generator=g), dim=1), y


def test_scan_finds_blobs_and_without_its_entropy_one_cluster():
    x, y = blobs()
    table = scan.mine_neighbours(x, 10)
    g = torch.Generator().manual_seed(0)
    _, both = scan.scan_heads(x, 4, [table, table], entropy=torch.tensor([5.0, 0.0]), generator=g, steps=150, hidden=16)
    whole, bare = (measures.measures(z.argmax(1), y, 4) for z in both(x))
    assert whole["ACC"] > 0.7 and bare["entropy"] < whole["entropy"] - 0.1
    two, three = scan.scan_heads(x, 4, [table], generator=torch.Generator().manual_seed(0), steps=8, last=0.0)
    assert torch.equal(two(x), three(x)) and two(x).shape == (1, 300, 4)


def test_an_arm_does_not_see_the_others():
    x, _ = blobs()
    one, two, three = (scan.mine_neighbours(x, k) for k in (5, 20, 40))
    first, second = (
        scan.scan_heads(x, 4, tables, generator=torch.Generator().manual_seed(0), steps=5, hidden=8, batch_size=64)[1](
            x
        )
        for tables in ([one, two], [one, three])
    )
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


def test_the_module_stacks_images_and_neighbours():
    encoder = torch.nn.Linear(6, 5)
    encoder.features = 5
    m, images = scan.SCAN(encoder, clusters=3, entropy=2.0), torch.randn(8, 6)
    p = m.clusters(images)
    torch.testing.assert_close(m(images), scan.scan_loss(p[:4], p[4:], 2.0))
    torch.testing.assert_close(m.self_label(images[:4], images[4:]), scan.self_label_loss(p[:4], p[4:], 0.99))


def test_the_whole_network_is_trained():
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 5))
    encoder.features = 5
    images, before = torch.rand(20, 1, 4, 4), encoder[1].weight.clone()
    table = torch.arange(20)[:, None]
    model = scan.train_scan(scan.SCAN(encoder, 3, threshold=0.0), images, table, lambda x, generator, views: x,
                            generator=torch.Generator().manual_seed(0), steps=4, batch_size=8)  # fmt: skip
    assert not model.training and bool((encoder[1].weight != before).any())


def test_a_majority_names_its_cluster_and_confusion_follows_the_matching():
    clusters, labels = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1, 1, 0, 0, 0, 1])
    assert scan.majority_accuracy(clusters, labels) == pytest.approx(5 / 6)
    wanted = torch.tensor([[2 / 3, 0, 1 / 3], [0, 2 / 3, 1 / 3], [0, 0, 0]])
    torch.testing.assert_close(scan.confusion(clusters, labels, 3), wanted)


@pytest.mark.bad_input
def test_bad_input_is_named():
    for how, named in ((lambda: scan.mine_neighbours(torch.randn(5, 2), 5), "k"),
                       (lambda: scan.scan_loss(torch.randn(3, 2), torch.randn(3, 2), -1.0), "entropy"),
                       (lambda: scan.self_label_loss(torch.randn(3, 2), torch.randn(3, 2), 1.0), "threshold"),
                       (lambda: scan.scan_loss(torch.randn(3, 2), torch.randn(4, 2)), "neighbour")):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            how()


def test_true_neighbours_are_of_the_own_class():
    y = torch.arange(40) % 4
    found = scan.true_neighbours(y, 6, generator=torch.Generator().manual_seed(0))
    assert found.shape == (40, 6) and scan.neighbour_purity(found, y) == 1
    assert len(found.unique()) > 30  # drawn anew for each, not one table for a class
