"""TypiClust's pieces against loops, its theory against derivatives, and label spreading against its iteration."""

import math

import pytest
import torch

from labcode.imperfect_labels import active_weak as A


def test_typicality_is_the_loop():
    x = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for k in (1, 4, 10):
        for i in range(11):
            near = sorted(float((x[i] - x[j]).norm()) for j in range(11) if j != i)[:k]
            assert float(A.typicality(x, k)[i]) == pytest.approx(1 / (sum(near) / k + 1e-5), rel=1e-6)
    assert float(A.typicality(x[:1], 1)) == 1 and torch.isfinite(A.typicality(torch.zeros(4, 2), 2)).all()
    with pytest.raises(ValueError, match="k must"):
        A.typicality(x, 11)


def blobs(sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    centre = 20 * torch.arange(len(sizes)).float()[:, None] * torch.ones(1, 2)
    x = [c + torch.randn(n, 2, generator=g) for c, n in zip(centre, sizes, strict=True)]
    return torch.cat(x), torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def test_it_visits_uncovered_clusters_from_the_largest_and_takes_the_densest_row():
    x, which = blobs([40, 30, 20, 3])
    partition = lambda features, k, seed: (None, which)  # noqa: E731
    p, g = torch.full((len(x), 2), 0.5), torch.Generator().manual_seed(0)
    chosen = A.typiclust(x, p, torch.tensor([0]), 3, generator=g, partition=partition)
    assert which[chosen].tolist() == [1, 2, 0]  # the covered one last, and never the one of three rows
    for c, k in ((1, 15), (2, 10)):
        rows = (which == c).nonzero()[:, 0]
        dense = A.typicality(x[rows], k)
        assert int(rows[dense.argmax()]) in chosen.tolist()
        sparse = A.cluster_atypical(x, p, torch.tensor([0]), 3, generator=g, partition=partition)
        assert int(rows[dense.argmin()]) in sparse.tolist()
    with pytest.raises(ValueError, match="member"):
        A.typiclust(x, p, torch.tensor([0]), 1, generator=g, member="odd")


def test_the_clusters_of_blobs_are_found_and_covered():
    x, which = blobs([40, 30, 20])
    p, none = torch.full((90, 2), 0.5), torch.empty(0).long()
    for seed in range(5):
        chosen = A.typiclust(x, p, none, 3, generator=torch.Generator().manual_seed(seed))
        assert sorted(which[chosen].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("p, alpha, rate", [(0.6, 0.2, 1.0), (0.3, 0.1, 0.5), (0.5, 0.9, 2.0)])
def test_threshold_is_where_the_derivative_changes_sign(p, alpha, rate):
    at = A.transition(p, alpha, rate)
    for m, easy in ((0.9 * at, True), (1.1 * at, False)):
        m = torch.tensor([m], dtype=torch.float64)
        share = torch.tensor(p, dtype=torch.float64, requires_grad=True)
        A.two_learners(m, share, p, alpha, rate).sum().backward()
        assert (float(share.grad) < 0) is easy and bool(A.over_sample_typical(m, p, alpha, rate)) is easy
    with pytest.raises(ValueError, match="p must"):
        A.transition(0.1, 0.9)
    with pytest.raises(ValueError, match="alpha"):
        A.two_learners(torch.ones(1), torch.tensor(0.5), 0.5, 1.0)


def test_learners_by_heart_have_their_expected_error():
    g = torch.Generator().manual_seed(0)
    for m, share in ((4, 0.5), (20, 0.25)):
        easy, hard = round(share * m), m - round(share * m)
        want = 0.3 / 2 * 0.5**easy + 0.7 / 2 * (1 - 1 / 30) ** hard
        got = A.cells_error(m, share, p=0.3, cells=30, draws=4000, generator=g)
        assert float(got.mean()) == pytest.approx(want, abs=0.005)
    assert math.isclose(float(A.cells_error(0, 0.5, p=0.3, cells=30, draws=1, generator=g)), 0.5)


def test_spreading_is_the_limit_of_its_iteration():
    x = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = A.spreading(x, 4, 0.8)
    near = torch.cdist(x, x).fill_diagonal_(torch.inf).topk(4, largest=False).indices
    w = torch.zeros(30, 30, dtype=torch.float64)
    for i in range(30):
        for j in near[i]:
            w[i, j] += 0.5
            w[j, i] += 0.5
    s = w / (w.sum(1)[:, None] * w.sum(1)).sqrt()
    y = torch.eye(30, dtype=torch.float64)
    f = y
    for _ in range(300):
        f = 0.8 * s @ f + 0.2 * y
    assert torch.allclose(kernel, f, atol=1e-9)
    x, which = blobs([20, 20])
    right = A.spread_accuracy(A.spreading(x.double(), 5), which, torch.tensor([[0, 30], [3, 25]]), 2)
    assert right.tolist() == [1.0, 1.0]
