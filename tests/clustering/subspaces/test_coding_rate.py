"""Coding rates against numpy loops, closed forms and their limits."""

import numpy as np
import pytest
import torch

from labcode.clustering import subspaces as S


def data(n=9, d=4, k=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=g), torch.rand(n, k, dtype=torch.float64, generator=g)


def logdet(m):
    return np.linalg.slogdet(m)[1]


@pytest.mark.parametrize("n, d, k", [(1, 3, 1), (9, 4, 3), (5, 8, 5)])
@pytest.mark.parametrize("eps2", [0.01, 0.1, 3.0])
def test_rates_are_the_loop(n, d, k, eps2):
    z, p = data(n, d, k)
    whole = logdet(np.eye(d) + d / (n * eps2) * sum(np.outer(r, r) for r in z.numpy())) / 2
    assert float(S.coding_rate(z, eps2)) == pytest.approx(whole, rel=1e-10)
    parts = 0.0
    for j in range(k):
        w = float(p[:, j].sum())
        gram = sum(float(p[i, j]) * np.outer(z[i].numpy(), z[i].numpy()) for i in range(n))
        parts += w / (2 * n) * logdet(np.eye(d) + d / (w * eps2) * gram)
    assert float(S.segmented_rate(z, p, eps2)) == pytest.approx(parts, rel=1e-6)


def test_gradients():
    z, p = data(6, 3, 2)
    assert torch.autograd.gradcheck(S.coding_rate, z.requires_grad_())
    assert torch.autograd.gradcheck(S.segmented_rate, (z, p.requires_grad_()))


def test_one_group_gains_nothing_and_orthogonal_lines_the_closed_form():
    z, _ = data()
    assert float(S.segmented_rate(z, torch.ones(9, 1).double())) == pytest.approx(float(S.coding_rate(z)), rel=1e-6)
    lines = torch.eye(2).repeat_interleave(4, 0)
    assert float(S.coding_rate(lines)) == pytest.approx(np.log(11), rel=1e-5)
    assert float(S.segmented_rate(lines, lines)) == pytest.approx(np.log(21) / 2, rel=1e-5)


def test_rotation_changes_nothing_and_reduction_is_not_negative():
    z, p = data(20, 5, 4)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    assert torch.allclose(S.coding_rate(z @ turn), S.coding_rate(z))
    rows = p / p.sum(1, keepdim=True)  # a membership of rows of sum 1: log det is concave
    assert S.segmented_rate(z @ turn, rows) <= S.coding_rate(z) + 1e-9


def test_edges():
    assert float(S.coding_rate(torch.zeros(3, 4))) == 0
    assert S.coding_rate(torch.randn(4, 3).half()).dtype == torch.float32
    assert torch.isfinite(S.segmented_rate(torch.randn(4, 3), torch.zeros(4, 2)))
    for bad, name in ((torch.randn(0, 3), "z"), (torch.randn(3), "z")):
        with pytest.raises(ValueError, match=name):
            S.coding_rate(bad)
    with pytest.raises(ValueError, match="eps2"):
        S.coding_rate(torch.randn(3, 2), 0.0)
    with pytest.raises(ValueError, match="membership"):
        S.segmented_rate(torch.randn(3, 2), torch.tensor([[-1.0], [1.0], [1.0]]))
    with pytest.raises(ValueError, match="membership"):
        S.segmented_rate(torch.randn(3, 2), torch.rand(4, 2))


def test_coding_length_is_the_loop_and_right_groups_are_shorter():
    z, _ = data(12, 3)
    labels = torch.arange(12) % 3 * 7
    want = 0.0
    for c in (0, 7, 14):
        part = z[labels == c].numpy()
        want += (4 + 3) / 2 * logdet(np.eye(3) + 3 / (0.1 * 4) * part.T @ part) - 4 * np.log(4 / 12)
    assert S.coding_length(z, labels) == pytest.approx(want, rel=1e-6)
    lines = torch.eye(4).repeat_interleave(30, 0)
    right, wrong = torch.arange(4).repeat_interleave(30), torch.arange(120) % 4
    assert S.coding_length(lines, right) < S.coding_length(lines, wrong)
    with pytest.raises(ValueError, match="labels"):
        S.coding_length(z, labels[:3])


def test_rank_and_structure():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 3, dtype=torch.float64, generator=g)
    basis = torch.linalg.qr(torch.randn(10, 3, dtype=torch.float64, generator=g)).Q
    assert S.numerical_rank(rows @ basis.T, 1.0) == 3
    assert S.numerical_rank(torch.diag(torch.tensor([3.0, 1.0, 0.1]))) == 2 and S.numerical_rank(torch.zeros(3, 3)) == 1
    with pytest.raises(ValueError, match="energy"):
        S.numerical_rank(torch.eye(2), 0.0)
    found = S.structure(torch.eye(2).repeat_interleave(3, 0), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert found == {"rank, all": 2, "rank, class": 1, "within": 1, "between": 0}
