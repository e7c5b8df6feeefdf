"""The problem and its measure, against brute force."""

import itertools

import pytest
import torch

from labcode.clustering import category_discovery as C


def test_one_matching_is_the_best_of_all_permutations():
    g = torch.Generator().manual_seed(0)
    y, clusters = torch.randint(4, (60,), generator=g), torch.randint(4, (60,), generator=g)
    best = max(
        itertools.permutations(range(4)),
        key=lambda p: sum(p[c] == t for c, t in zip(clusters.tolist(), y.tolist(), strict=True)),
    )
    right = torch.tensor([best[c] for c in clusters.tolist()]) == y
    found = C.discovery_accuracy(clusters, y, 2)
    assert found["All"] == pytest.approx(float(right.double().mean()))
    share = float((y < 2).double().mean())
    assert found["All"] == pytest.approx(share * found["Old"] + (1 - share) * found["New"])


def test_names_of_clusters_do_not_matter_and_surplus_ones_are_wrong():
    y = torch.arange(4).repeat(5)
    assert C.discovery_accuracy(17 - 3 * y, y, 2) == {"All": 1.0, "Old": 1.0, "New": 1.0}
    assert C.discovery_accuracy(torch.arange(20), y, 2)["All"] == pytest.approx(4 / 20)
    assert C.discovery_accuracy(torch.zeros(20, dtype=torch.int64), y, 2)["All"] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="clusters"):
        C.discovery_accuracy(y[:3], y, 2)


def test_balanced_accuracy_counts_classes_alike():
    y = torch.tensor([0] * 90 + [1] * 10)
    assert C.balanced_accuracy(torch.zeros(100, dtype=torch.int64), y) == pytest.approx(0.5)
    assert C.balanced_accuracy(1 - y, y) == pytest.approx(1.0)


def test_a_problem_labels_half_of_the_old_rows_and_no_new_one():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(20)
    p = C.discovery_problem(torch.randn(200, 3, generator=g), labels, [7, 2, 5], generator=g)
    assert p.old == 3 and p.classes == 10 and int(p.labelled.sum()) == 30
    assert bool((p.y[p.labelled] < 3).all()) and bool((p.known[~p.labelled] == -1).all())
    assert bool((labels[p.y == 1] == 2).all())
    assert int(C.discovery_problem(p.x, labels, [1], share=1.0, generator=g).labelled.sum()) == 20
    for bad in (dict(old=[]), dict(old=list(range(10))), dict(old=[11]), dict(old=[1], share=0.0)):
        with pytest.raises(ValueError, match="old|share"):
            C.discovery_problem(p.x, labels, generator=g, **bad)


def test_stacked_networks_are_networks():
    g = torch.Generator().manual_seed(0)
    net = C.StackedMLP([3, 5, 2], 4, generator=g)
    x = torch.randn(4, 6, 3, generator=g)
    for r in range(4):
        hidden = torch.nn.functional.gelu(x[r] @ net.weights[0][r] + net.biases[0][r])
        torch.testing.assert_close(net(x)[r], hidden @ net.weights[1][r] + net.biases[1][r])
