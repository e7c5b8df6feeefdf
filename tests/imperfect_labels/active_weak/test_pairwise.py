"""Components against SciPy, errors against matchings by hand, resistances against closed forms."""

import itertools

import numpy as np
import pytest
import torch

from labcode.imperfect_labels import active_weak as A


@pytest.mark.parametrize("m", [0, 5, 30, 100])
def test_components_are_scipys(m):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = torch.randint(60, (m, 2), generator=torch.Generator().manual_seed(m))
    want = connected_components(coo_matrix((np.ones(m), (pairs[:, 0], pairs[:, 1])), (60, 60)), directed=False)[1]
    got = A.components(60, pairs)
    assert torch.equal(got[:, None] == got, torch.tensor(want[:, None] == want))
    assert all(int(got[i]) == min(j for j in range(60) if got[j] == got[i]) for i in range(60))


def test_saca_merges_only_what_no_pair_forbids():
    pairs = torch.tensor([[0, 1], [1, 2], [3, 4], [5, 0], [6, 3]])
    same = torch.tensor([True, True, True, False, False])
    found = A.saca(7, pairs, same, 2)
    assert found[0] == found[1] == found[2] and found[3] == found[4] != found[0]
    assert found[5] == found[3] and found[6] == found[0]
    assert len(A.saca(7, pairs, same).unique()) == 4
    for bad, match in ((dict(k=0), "k be"),):
        with pytest.raises(ValueError, match=match):
            A.saca(7, pairs, same, **bad)
    with pytest.raises(ValueError, match="pairs"):
        A.saca(3, pairs, same)


def test_all_pairs_give_the_partition():
    y = A.hidden_partition([5, 4, 3])
    pairs = torch.tensor(list(itertools.combinations(range(12), 2)))
    same = y[pairs[:, 0]] == y[pairs[:, 1]]
    for found in (A.saca(12, pairs, same, 3), A.saca(12, pairs, same), A.signed_spectral(12, pairs, same, 3)):
        assert A.items_wrong(found, y) == 0 and A.pairs_wrong(found, y) == 0
    two = A.hidden_partition([7, 5])
    assert A.items_wrong(A.two_colouring(12, pairs[:, :], two[pairs[:, 0]] == two[pairs[:, 1]]), two) == 0


def test_items_wrong_is_the_best_matching():
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        a, b = torch.randint(3, (15,), generator=g), torch.randint(3, (15,), generator=g)
        named = list(zip(a.tolist(), b.tolist(), strict=True))
        best = max(sum(p[i] == j for i, j in named) for p in itertools.permutations(range(3)))
        assert A.items_wrong(a, b) == 15 - best
    assert A.items_wrong(torch.arange(6), torch.zeros(6).long()) == 5  # singletons count


def test_missing_items_and_bound():
    sizes = A.skewed_sizes(60, 3)
    y, count = A.hidden_partition(sizes), []
    assert sum(sizes) == 60 and sizes == sorted(sizes, reverse=True)
    for i in range(400):
        pairs, same = A.draw_pairs(y, 90, torch.Generator().manual_seed(i))
        count.append(60 - len(pairs[same].unique()))
    assert sum(count) / 400 == pytest.approx(A.expected_missing(sizes, 90), rel=0.05)
    for m in (10, 100, 1000):
        assert A.expected_missing(sizes, m) <= 1.05 * A.bound(60, 3, m)


def test_resistances():
    path = torch.diag(torch.ones(3, dtype=torch.float64), 1)
    r = A.effective_resistance(path + path.T)
    assert torch.allclose(r, (torch.arange(4)[:, None] - torch.arange(4)).abs().double(), atol=1e-3)
    full = 1 - torch.eye(5, dtype=torch.float64)
    assert float(A.effective_resistance(full)[0, 1]) == pytest.approx(2 / 5, abs=1e-4)
    y = torch.tensor([0, 0, 1, 1])
    assert A.resistance_cut(path + path.T, y) == pytest.approx(1.0, abs=1e-3)  # a bridge is in every spanning tree
    total = A.resistance_cut(full, torch.arange(5))
    assert total == pytest.approx(4.0, abs=1e-3)  # a spanning tree of five vertices has four edges


def test_side_information_helps_where_it_agrees():
    y = A.hidden_partition([40, 30, 20])
    wrong = {}
    for agreement in (0.0, 1.0):
        g = torch.Generator().manual_seed(0)
        pairs, same = A.draw_pairs(y, 180, g)
        w = A.planted_graph(y, 10, agreement, g)
        assert torch.equal(w, w.T) and float(w.diagonal().sum()) == 0
        wrong[agreement] = A.items_wrong(A.side_information(w, pairs, same, 3), y)
    assert wrong[1.0] == 0 < wrong[0.0]
