"""The rivals on frozen features against scikit-learn and loops."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from labcode.clustering import subspaces as S


def test_elastic_net_is_scikit_learns():
    x = torch.nn.functional.normalize(
        torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    mix, weight = 0.8, 20.0
    found = S.elastic_net_affinity(x, mix, weight, iterations=1000)
    rows = np.zeros((12, 12))
    for i in range(12):  # theirs: ‖·‖² / (2 n) + α l1 ‖·‖₁ + α (1 - l1) / 2 ‖·‖², with n the 5 entries of a sample
        others = [j for j in range(12) if j != i]
        net = ElasticNet(alpha=1 / (weight * 5), l1_ratio=mix, fit_intercept=False, tol=1e-8, max_iter=10000)
        rows[i, others] = net.fit(x[others].T.numpy(), x[i].numpy()).coef_
    assert np.allclose(found, np.abs(rows) + np.abs(rows).T, atol=1e-3)
    with pytest.raises(ValueError, match="mix"):
        S.elastic_net_affinity(x, 0.0)


def test_scan_is_the_loop():
    a, b = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p, q = a.softmax(1), b.softmax(1)
    want = -sum(float((p[i] * q[i]).sum().log()) for i in range(6)) / 6
    mean = p.mean(0)
    want += 5 * float((mean * mean.log()).sum())
    assert float(S.scan(a, b)) == pytest.approx(want, rel=1e-10)
    assert torch.autograd.gradcheck(S.scan, (a.requires_grad_(), b.requires_grad_()))
    assert torch.isfinite(S.scan(1e4 * torch.eye(4), -1e4 * torch.eye(4)))
    with pytest.raises(ValueError, match="entropy"):
        S.scan(a, b, -1.0)
