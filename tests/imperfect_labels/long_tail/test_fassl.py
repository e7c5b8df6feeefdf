"""Frequency-aware prototypes: marginals of the assignments, losses against loops and against the library."""

import math

import pytest
import torch

from labcode.imperfect_labels import long_tail as L
from labcode.transport import sinkhorn_codes


def scores(b=2, n=12, k=4, seed=0, dtype=torch.float64):
    return torch.rand(b, n, k, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_even_assignments_are_swavs():
    s = scores(dtype=torch.float32)
    for b in range(2):
        assert torch.allclose(L.assignments(s, iterations=3)[b], sinkhorn_codes(s[b], 0.05, 3), atol=1e-5)


def test_assignments_have_the_marginal():
    pi = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.4, 0.1]])
    q = L.assignments(scores(), pi, eps=0.2, iterations=300)
    assert torch.allclose(q.mean(1), pi, atol=1e-3) and torch.allclose(q.sum(2), torch.ones(2, 12))
    free = L.assignments(scores(), pi, eps=0.2, strength=0.0)
    assert torch.allclose(free, (scores() / 0.2).softmax(2).float(), atol=1e-6), "no strength: a softmax"
    each = L.assignments(scores(), pi, eps=0.2, iterations=300, strength=torch.tensor([1.0, 0.0]))
    assert torch.allclose(each[0], q[0], atol=1e-5) and torch.allclose(each[1], free[1], atol=1e-6), "one a network"
    assert torch.isfinite(L.assignments(1e4 * scores(), pi, eps=1e-3)).all()


def test_the_marginal_follows():
    q, pi = scores(dtype=torch.float32).softmax(2), torch.full((2, 4), 0.25)
    p = torch.stack([sum(q[b, i] for i in range(12)) / 12 for b in range(2)])
    assert torch.allclose(L.follow(pi, q, momentum=0.0, floor=0.0), p, atol=1e-6)
    assert torch.allclose(L.follow(pi, q, momentum=0.9, floor=0.2), 0.9 * pi + 0.1 * p, atol=1e-6)
    collapsed = torch.zeros(2, 4).index_fill_(1, torch.tensor([1]), 1.0)
    assert float(L.follow(collapsed, 0 * q, floor=0.2).min()) == pytest.approx(0.05 / 1.05, rel=1e-5)
    enforced = L.assignments(scores(), pi, iterations=300)
    assert torch.allclose(L.follow(pi, enforced, momentum=0.0, floor=0.0), pi, atol=1e-3), "gives itself back"


def test_losses_against_loops():
    one, two, q1, q2 = scores(), scores(seed=1), scores(seed=2).softmax(2), scores(seed=3).softmax(2)
    w = scores(seed=4)[:, :, 0].exp()
    for b in range(2):
        swap, rel = 0.0, 0.0
        for i in range(12):
            lp1, lp2 = (one[b, i] / 0.1).log_softmax(0), (two[b, i] / 0.1).log_softmax(0)
            swap -= float(q2[b, i] @ lp1 + q1[b, i] @ lp2) / 24
            t1, t2 = (one[b, i] / 0.05).softmax(0), (two[b, i] / 0.05).softmax(0)
            rel -= float(w[b, i] * (t2 @ lp1 + t1 @ lp2)) / 24
        assert float(L.swapped(one, two, q1, q2)[b]) == pytest.approx(swap, rel=1e-6)
        assert float(L.rebalanced(one, two, w)[b]) == pytest.approx(rel, rel=1e-6)
    assert torch.allclose(L.swapped(one, two, q1, q2), L.swapped(two, one, q2, q1))


def test_only_the_learner_gets_a_gradient():
    one, two = scores().requires_grad_(), scores(seed=1).requires_grad_()
    q = scores(seed=2).softmax(2).requires_grad_()
    L.swapped(one, two, q, q).sum().backward()
    assert q.grad is None and one.grad.abs().sum() > 0
    p = lambda s: s.softmax(2)  # noqa: E731
    fixed = p(scores(seed=2))
    assert torch.autograd.gradcheck(lambda a, b: L.swapped(a, b, fixed, fixed, 0.5), (one, two))


def test_contrast_is_the_librarys():
    from labcode.self_supervision.contrastive import nt_xent

    a, b = scores(3, 6, 5), scores(3, 6, 5, seed=1)
    found = L.contrast(a, b, 0.5)
    for i in range(3):
        assert float(found[i]) == pytest.approx(float(nt_xent(torch.cat([a[i], b[i]]), 0.5)), rel=1e-6)
    assert torch.allclose(L.contrast(a, b, 0.5, torch.ones(3, 6, dtype=torch.float64)), found)


def test_weights_favour_rare_prototypes():
    s = 10 * torch.eye(4)[None].repeat(1, 2, 1)
    pi = torch.tensor([[0.7, 0.2, 0.08, 0.02]])
    w = L.rare_weights(s, pi, gamma=0.5)
    assert float(w.mean()) == pytest.approx(1, rel=1e-5) and bool((w[0, :4].diff() > 0).all())
    assert float(w[0, 3] / w[0, 0]) == pytest.approx(math.sqrt(0.7 / 0.02), rel=1e-3)
    assert torch.allclose(L.rare_weights(s, pi, gamma=0.0), torch.ones(1, 8))


def test_measures():
    owners = torch.tensor([[[8.0, 1, 0], [3, 1, 0], [0, 2, 1]]])  # prototypes × classes
    pi = torch.tensor([[0.6, 0.2, 0.2]])
    mass, truth = torch.tensor([0.8, 0.2, 0.0]), torch.tensor([11.0, 4, 1])
    want = float(torch.corrcoef(torch.stack([mass, truth]))[0, 1])
    assert float(L.mass_correlation(pi, owners)[0]) == pytest.approx(want, rel=1e-5)
    assert float(L.purity(owners)[0]) == pytest.approx(13 / 16)
    assert float(L.purity(owners, slice(2, 3))[0]) == 0
    assert float(L.purity(owners, slice(1, 2))[0]) == pytest.approx(0.5)


@pytest.mark.bad_input
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="eps"):
        L.assignments(scores(), eps=0.0)
    with pytest.raises(ValueError, match="momentum"):
        L.follow(torch.ones(2, 4) / 4, scores(), momentum=1.0)
