"""Sinkhorn memberships and the losses of MLC, CPP, NMCE."""

import math

import pytest
import torch

from labcode.clustering import subspaces as S


def pair(n=7, d=3, seed=0):
    return torch.randn(4, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).unbind()


def test_sinkhorn_is_the_scaled_kernel():
    scores = torch.randn(6, 6, dtype=torch.float64)
    p = S.doubly_stochastic(scores, 0.5, 501)
    assert torch.allclose(p.sum(0), torch.ones(6).double()) and torch.allclose(p.sum(1), torch.ones(6).double())
    log = p.log() - scores / 0.5  # what is left is a row's and a column's number
    assert torch.allclose(log - log[:1] - log[:, :1] + log[0, 0], torch.zeros(6, 6).double(), atol=1e-8)
    u = torch.ones(6).double()
    kernel = (scores / 0.5).exp()
    for _ in range(250):
        v = 1 / (kernel.T @ u)
        u = 1 / (kernel @ v)
    assert torch.allclose(p, u[:, None] * kernel * v, atol=1e-9)


def test_sinkhorn_at_its_ends():
    codes = torch.nn.functional.normalize(torch.randn(8, 3, dtype=torch.float64), dim=1)
    assert torch.allclose(S.doubly_stochastic(codes @ codes.T, 1e-3, 51), torch.eye(8).double(), atol=1e-3)
    assert torch.allclose(S.doubly_stochastic(codes @ codes.T, 1e6), torch.full((8, 8), 1 / 8).double(), atol=1e-5)
    assert torch.allclose(S.doubly_stochastic(torch.tensor([[3.0]])), torch.ones(1, 1))
    assert torch.isfinite(S.doubly_stochastic(1e4 * torch.randn(5, 5), 1e-3)).all()
    for bad in (dict(eta=0.0), dict(half_steps=0)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            S.doubly_stochastic(torch.eye(3), **bad)
    with pytest.raises(ValueError, match="scores"):
        S.doubly_stochastic(torch.randn(3, 4))


@pytest.mark.parametrize("signed", [True, False])
def test_mlc_is_the_loop_and_its_gradient(signed):
    z, c, _, _ = pair()
    zn, cn = (t / t.norm(dim=1, keepdim=True) for t in (z, c))
    scores = cn @ cn.T
    p = S.doubly_stochastic(scores if signed else scores.abs(), 0.175, 5)
    want = -torch.logdet(torch.eye(3) + 3 / (7 * 0.1) * zn.T @ zn) / 2
    for j in range(7):
        w = p[:, j].sum()
        gram = sum(p[i, j] * torch.outer(zn[i], zn[i]) for i in range(7))
        want += w / 14 * torch.logdet(torch.eye(3) + 3 / (w * 0.1) * gram)
    assert float(S.mlc(z, c, signed=signed)) == pytest.approx(float(want), rel=1e-6)
    assert float(S.mlc(z, c, signed=signed, gamma=0.3)) == pytest.approx(float(want + 0.3 * p.square().sum()), rel=1e-6)
    assert torch.autograd.gradcheck(
        lambda a, b: S.mlc(a, b, signed=signed, gamma=0.1), [t.requires_grad_() for t in (z, c)]
    )


def test_two_equal_views_are_one():
    z, c, other, _ = pair()
    assert float(S.mlc_views(z, z, c, c, lam=5.0)) == pytest.approx(float(S.mlc(z, c, signed=True)), rel=1e-9)
    assert float(S.mlc_views(z, other, c, c)) == pytest.approx(float(S.mlc_views(other, z, c, c)), rel=1e-9)
    assert float(S.tcr(z, z, lam=9.0)) == pytest.approx(
        -float(S.coding_rate(z / z.norm(dim=1, keepdim=True))), rel=1e-9
    )
    # a view that agrees costs nothing, one that opposes twice the weight
    apart = S.tcr(z, -z + 1e-9 * other, lam=1.0) - S.tcr(z, -z + 1e-9 * other, lam=0.0)
    assert float(apart) == pytest.approx(2.0, rel=1e-6)


def test_nmce_prefers_the_true_groups():
    lines = torch.eye(3).repeat_interleave(5, 0)
    right = 20 * lines
    none = S.nmce(lines, lines, torch.zeros(15, 3))
    assert abs(float(none)) < 1e-4 and float(S.nmce(lines, lines, right)) < -0.5
    assert torch.autograd.gradcheck(S.nmce, tuple(t.requires_grad_() for t in pair(5)[:3]))


def test_edges():
    one = torch.randn(1, 4)
    assert float(S.mlc(one, one)) == pytest.approx(0.0, abs=1e-5)  # alone, whole and group are the same
    same = torch.ones(6, 4)
    assert torch.isfinite(S.mlc(same, same)) and torch.isfinite(S.mlc(torch.zeros(6, 4), torch.zeros(6, 4)))
    assert S.mlc(same.half(), same.half()).dtype == torch.float32
    with pytest.raises(ValueError, match="gamma"):
        S.mlc(same, same, gamma=-1.0)
    with pytest.raises(ValueError, match="c must"):
        S.mlc(same, same[:3])
    with pytest.raises(ValueError, match="lam"):
        S.tcr(same, same, lam=-1.0)


def test_heads_are_copied_and_learn_planted_lines():
    torch.manual_seed(0)
    model = S.TwoHeads(6, 16, 4)
    model.copy_head()
    z, c = model(torch.randn(5, 6))
    assert torch.equal(z, c) and torch.allclose(z.norm(dim=1), torch.ones(5))
    x = 3 * torch.eye(6)[:3].repeat_interleave(40, 0) + 0.3 * torch.randn(120, 6)
    model = S.learn_cpp(x, 0, warm=20, steps=30, width=16, dim=6, batch_size=60)
    with torch.no_grad():
        found = S.spectral(S.membership(model(x)[1]), 3)
    labels = torch.arange(3).repeat_interleave(40)
    assert all(len(found[labels == k].unique()) == 1 for k in range(3)) and len(found.unique()) == 3
    assert math.isclose(S.retrieval_precision(x, labels, 5), 1.0)


def test_coding_length_finds_the_number_of_lines():
    g = torch.Generator().manual_seed(0)
    z = torch.eye(8)[:4].repeat_interleave(50, 0) + 0.05 * torch.randn(200, 8, generator=g)
    ks = (2, 3, 4, 5, 8)
    lengths, labels = S.lengths_by_k(z, S.membership(z), ks)
    assert ks[min(range(5), key=lambda i: lengths[i])] == 4 and len(labels[2].unique()) == 4
    with pytest.raises(ValueError, match="candidates"):
        S.lengths_by_k(z, S.membership(z), (0, 3))


def test_two_stages_share_the_first_and_copy_its_head_once():
    views = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    options = dict(first=2, second=2, dim=3, width=5, batch_size=6)
    start, end = S.learn_mlc(views, 0, **options)
    again, same = S.learn_mlc(views, 0, start=start, **options)
    assert again is start and torch.equal(S.heads(end, views[0])[0], S.heads(same, views[0])[0])
    small = dict(second=1, lr=1e-9)  # hardly a step: the heads are still those it began with
    copied = S.learn_mlc(views, 0, start=start, **options | small)[1]
    drawn = S.learn_mlc(views, 0, start=start, copied=False, **options | small)[1]
    assert torch.allclose(copied.c.weight, start.z.weight) and torch.allclose(drawn.z.weight, start.z.weight)
    assert not torch.allclose(drawn.c.weight, start.z.weight) and not torch.allclose(start.c.weight, start.z.weight)
