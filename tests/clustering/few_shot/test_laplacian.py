"""Laplacian clustering: the energy of the loop, updates that lower it, and what it becomes at its ends."""

import math

import pytest
import torch
from clustering.few_shot.helpers import tasks

from labcode.clustering import few_shot as F


def pieces(seed=0, n=6, k=3):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    w = draw(2, n, n)
    return draw(2, n, k).softmax(2), draw(2, n, k), (w + w.mT) / 2


def test_energy_is_the_loop():
    s, a, w = pieces()
    for b in range(2):
        want = 0.0
        for i in range(6):
            want += sum(float(s[b, i, k] * a[b, i, k] + s[b, i, k] * s[b, i, k].log()) for k in range(3))
            want -= 0.35 * sum(
                float(w[b, i, j]) * sum(float(s[b, i, k] * s[b, j, k]) for k in range(3)) for j in range(6)
            )
        assert float(F.energy(s, a, w, 0.7)[b]) == pytest.approx(want, rel=1e-10)


def test_energy_gradient_order_and_corners():
    s, a, w = pieces()
    assert torch.autograd.gradcheck(lambda s, a: F.energy(s, a, w, 0.7), (s.requires_grad_(), a.requires_grad_()))
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    assert torch.allclose(F.energy(s[:, order], a[:, order], w[:, order][:, :, order], 0.7), F.energy(s, a, w, 0.7))
    corner = torch.eye(3, dtype=torch.float64)[None]
    assert float(F.energy(corner, torch.ones_like(corner), torch.zeros_like(corner), 1.0)) == 3.0  # 0 log 0 is 0
    assert F.energy(corner.half(), corner.half(), corner.half(), 1.0).dtype == torch.float32
    with pytest.raises(ValueError, match="lam"):
        F.energy(corner, corner, corner, -1.0)
    with pytest.raises(ValueError, match="w must"):
        F.energy(corner, corner, corner[:, :2], 1.0)


def test_affinity_is_the_loop_and_its_shift_is_positive():
    x = torch.randn(1, 8, 2, dtype=torch.float64)
    w = F.affinity(x, 2, symmetric=False)[0]
    for i in range(8):
        near = sorted((float((x[0, i] - x[0, j]).norm()), j) for j in range(8) if j != i)[:2]
        assert set(w[i].nonzero().flatten().tolist()) == {j for _, j in near}
    assert torch.allclose(F.affinity(x, 2)[0], (w + w.T) / 2)
    assert float(torch.linalg.eigvalsh(F.affinity(x, 2, shift=True)).min()) > -1e-9
    assert float(torch.linalg.eigvalsh(F.affinity(x, 2)).min()) < -1e-3  # without the shift it is not
    with pytest.raises(ValueError, match="knn"):
        F.affinity(x, 8)


def test_the_update_minimises_the_bound():
    s, a, w = pieces()
    fixed = a[:, :0]
    new = F.bound_updates(a, w, 0.7, fixed, 1)
    start = (-a).softmax(2)

    def bound(p):
        return (p * (a - 0.7 * w @ start)).sum() + torch.xlogy(p, p).sum()

    for seed in range(5):
        other = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert bound(new) <= bound((new.log() + 0.3 * other).softmax(2)) + 1e-12


def test_energy_falls_with_the_shift_and_supports_stay():
    t = tasks()
    trace = []
    found = F.laplacian(t, 1.3, shift=True, trace=trace)
    assert max(float((b - a).max()) for a, b in zip(trace, trace[1:], strict=False)) < 1e-9 and len(trace) == 19
    assert torch.allclose(found.sum(2), torch.ones_like(found[..., 0])) and found.shape == (4, 12, 3)


def test_without_neighbours_it_is_soft_kmeans_and_with_a_large_scale_k_means():
    t = tasks()
    assert torch.allclose(F.laplacian(t, 0.0, beta=2.0, rounds=5), F.seeded_kmeans(t, 4, soft=2.0))
    assert torch.equal(F.laplacian(t, 0.0, beta=1e4).argmax(2), F.seeded_kmeans(t, 9).argmax(2))


def test_two_neighbours_swap():
    a = torch.tensor([[[0.0, 4.0], [4.0, 0.0]]])
    w = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    one, two = (F.bound_updates(a, w, 20.0, a[:, :0], n)[0, 0, 0] for n in (1, 2))
    assert one < 0.01 and two > 0.99
    # the same with a diagonal is still
    still = [F.bound_updates(a, w + torch.eye(2), 20.0, a[:, :0], n)[0, 0, 0] for n in (5, 6)]
    assert abs(float(still[0] - still[1])) < 1e-3


def test_rectified_prototypes_are_the_loop():
    t = tasks()
    moved, m = F.rectified(t, 10.0)
    assert torch.allclose(moved.query.mean(1), t.support.mean(1))
    x, p = torch.cat([t.support, moved.query], 1)[0], t.prototypes[0]
    weight = torch.tensor(
        [[float(x[i] @ p[k] / x[i].norm() / p[k].norm()) for k in range(3)] for i in range(len(x))], dtype=x.dtype
    )
    weight = (10 * weight).softmax(1)
    assert torch.allclose(m[0], weight.T @ x / weight.sum(0)[:, None])
    assert F.bd_cspn(t).shape == F.laplacian_shot(t).shape == (4, 12, 3)


@pytest.mark.parametrize("wrong", [dict(lam=-1.0), dict(beta=0.0), dict(rounds=0), dict(lam=math.nan)])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="lam"):
        F.laplacian(tasks(), **wrong)
