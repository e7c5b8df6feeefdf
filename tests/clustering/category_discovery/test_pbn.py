"""PBN's loss, NCD k-means, the tree's kernel and the silhouette against loops and scikit-learn."""

import math

import pytest
import torch

from labcode.clustering import category_discovery as C


def test_loss_is_the_loop():
    g = torch.Generator().manual_seed(0)
    logits, x, rebuilt = (torch.randn(6, k, dtype=torch.float64, generator=g) for k in (3, 4, 4))
    known = torch.tensor([0, -1, 2, -1, 1, -1])
    taught = [-float(logits[i].log_softmax(0)[known[i]]) for i in (0, 2, 4)]
    error = [sum((float(a) - float(b)) ** 2 for a, b in zip(x[i], rebuilt[i], strict=True)) for i in range(6)]
    wanted = 0.3 * sum(taught) / 3 + 0.7 * sum(error) / 6
    assert float(C.pbn_loss(logits, known, rebuilt, x, 0.3)) == pytest.approx(wanted, rel=1e-9)
    assert float(C.pbn_loss(logits, torch.full((6,), -1), x, x, 0.5)) == 0
    logits.requires_grad_(), rebuilt.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: C.pbn_loss(a, known, b, x, 0.3), (logits, rebuilt))
    with pytest.raises(ValueError, match="w must"):
        C.pbn_loss(logits, known, rebuilt, x, 1.5)


def test_nets_side_by_side_see_only_what_they_may_know():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=g), torch.arange(60) % 3
    known = torch.stack([y, torch.where(y == 2, -1, y)])
    z = [
        C.train_pbn(
            x,
            k,
            torch.tensor([0.5] * len(k)),
            [2] * len(k),
            generator=torch.Generator().manual_seed(1),
            steps=5,
            hidden=4,
        )
        for k in (known, known[:1])
    ]
    torch.testing.assert_close(z[0].encode(x.expand(2, -1, -1))[0], z[1].encode(x[None])[0], rtol=1e-4, atol=1e-5)
    narrow = C.train_pbn(x, known, torch.tensor([0.5, 0.5]), [1, 3], generator=g, steps=2, hidden=4)
    assert float(narrow.encode(x.expand(2, -1, -1))[0, :, 1:].abs().max()) == 0


def test_folds_hide_every_class_about_as_often():
    folds = C.hidden_class_folds(6, 2, 3, generator=torch.Generator().manual_seed(0))
    assert sorted(c for f in folds for c in f) == list(range(6))
    with pytest.raises(ValueError, match="hide"):
        C.hidden_class_folds(3, 3, 2, generator=torch.Generator())


def test_seeds_keep_away_from_known_means_and_known_rows_drop_out():
    g = torch.Generator().manual_seed(0)
    x = torch.cat(
        [0.01 * torch.randn(50, 2, generator=g), torch.tensor([[5.0, 0]]) + 0.01 * torch.randn(50, 2, generator=g)]
    )
    found = C.ncd_kmeans(x, torch.tensor([[0.0, 0.0]]), 1, generator=g, restarts=200)
    assert bool((found.centroids - x.mean(0)).abs().max() < 1e-4)  # Lloyd forgets the known mean
    two = C.ncd_kmeans(x, torch.tensor([[100.0, 0.0]]), 2, generator=g)
    assert C.discovery_accuracy(two.labels[two.best], torch.arange(100) // 50, 0)["All"] == 1


def test_the_longest_edge_of_the_tree_gets_the_affinity_asked_for():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    a = C.tree_affinity(x, 0.25)
    assert float(a[1, 2]) == pytest.approx(math.sqrt(0.25), rel=1e-5)  # the edge of length 2
    assert float(a[0, 0]) == 0 and torch.equal(a, a.T)
    with pytest.raises(ValueError, match="min_dist"):
        C.tree_affinity(x, 1.0)


def test_silhouette_is_scikit_learns():
    from sklearn.metrics import silhouette_score

    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(40, 3, dtype=torch.float64, generator=g), torch.randint(4, (40,), generator=g)
    labels[0] = 9  # alone
    assert C.silhouette(x, labels) == pytest.approx(silhouette_score(x.numpy(), labels.numpy()), rel=1e-6)
    with pytest.raises(ValueError, match="labels"):
        C.silhouette(x, torch.zeros(40, dtype=torch.int64))


def test_plain_groups_are_counted():
    g = torch.Generator().manual_seed(0)
    x = torch.eye(5).repeat(20, 1) * 6 + 0.2 * torch.randn(100, 5, generator=g)
    found = C.estimate_classes(x, tuple(range(2, 9)), generator=g, indices=("silhouette", "calinski", "davies"))
    assert set(found.values()) == {5}


def test_the_dial_turns_what_tells_new_classes_apart():
    for angle, wanted in ((0.0, 1.0), (90.0, 0.0)):
        x, y = C.planted_table(each=2000, angle=angle, generator=torch.Generator().manual_seed(0))
        means = torch.stack([x[y == c].mean(0) for c in range(10)]).double()
        old, new = means[:5], means[5:]
        basis = torch.linalg.qr(torch.cat([old, torch.zeros(0, old.shape[1])]).T)[0]  # five of six directions
        share = float((new @ basis).square().sum() / new.square().sum())
        assert abs(share - wanted) < 0.35


def test_columns_are_standardised_and_constant_ones_left_out():
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    z = C.standardised(torch.cat([x, torch.ones(30, 1)], 1))
    assert (
        z.shape == (30, 3)
        and torch.allclose(z.mean(0), torch.zeros(3), atol=1e-5)
        and torch.allclose(z.std(0), torch.ones(3))
    )
    assert C.profiles(torch.rand(2, 28, 28)).shape == (2, 72)
