"""Proxy Anchor against its equation; splits and clusters on groups that are plain to see."""

import math

import pytest
import torch

from labcode.clustering import category_discovery as C


def loop(z, labels, proxies, alpha, margin):
    u, p = (torch.nn.functional.normalize(v, dim=1) for v in (z, proxies))
    s, n, c = (u @ p.T).tolist(), len(z), len(proxies)
    present = [k for k in range(c) if k in labels.tolist()]
    pull = sum(
        math.log(1 + sum(math.exp(-alpha * (s[i][k] - margin)) for i in range(n) if labels[i] == k)) for k in present
    )
    push = sum(
        math.log(1 + sum(math.exp(alpha * (s[i][k] + margin)) for i in range(n) if labels[i] != k)) for k in range(c)
    )
    return pull / len(present) + push / c


def test_proxy_anchor_is_the_loop_and_has_its_gradient():
    g = torch.Generator().manual_seed(0)
    z, p = torch.randn(7, 4, dtype=torch.float64, generator=g), torch.randn(5, 4, dtype=torch.float64, generator=g)
    y = torch.tensor([0, 0, 1, 3, 3, 3, 1])
    assert float(C.proxy_anchor(z, y, p)) == pytest.approx(loop(z, y, p, 32, 0.1), rel=1e-9)
    assert float(C.proxy_anchor(z, y, p, 4.0, 0.3)) == pytest.approx(loop(z, y, p, 4, 0.3), rel=1e-9)
    assert float(C.proxy_anchor(3 * z, y, 0.1 * p)) == pytest.approx(float(C.proxy_anchor(z, y, p)), rel=1e-9)
    z.requires_grad_(), p.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: C.proxy_anchor(a, y, b, 8.0), (z, p))


def test_edges():
    p, y = torch.eye(3), torch.tensor([0])
    for z in (torch.zeros(1, 3), torch.ones(1, 3), torch.randn(1, 3).half()):
        for alpha in (1e-3, 1e4):
            assert torch.isfinite(C.proxy_anchor(z, y, p, alpha))
        assert torch.isfinite(C.softmax_proxies(z, y, p, 1e-3))
    with pytest.raises(ValueError, match="alpha"):
        C.proxy_anchor(p, torch.arange(3), p, 0.0)


def test_affinity_propagation_finds_far_groups_and_exemplars_are_rows():
    g = torch.Generator().manual_seed(0)
    z = torch.eye(4).repeat(15, 1) * 5 + 0.1 * torch.randn(60, 4, generator=g)
    labels, centres = C.affinity_clusters(z, -5.0)
    assert len(centres) == 4 and C.discovery_accuracy(labels, torch.arange(60) % 4, 0)["All"] == 1
    assert all(bool((z == c).all(1).any()) for c in centres)


def test_split_and_discovery_on_plain_groups():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat(60)
    x = torch.nn.functional.one_hot(labels, 6).float() * 4 + 0.3 * torch.randn(360, 6, generator=g)
    p = C.discovery_problem(x, labels, [0, 1, 2, 3], generator=g)
    net = C.train_proxies(p, generator=g, steps=60)
    with torch.no_grad():
        near = net.similar(p.x).amax(1)
    middle = float((near[p.y < 4].mean() + near[p.y >= 4].mean()) / 2)
    old = C.refine_split(net, p.x, generator=g, threshold=middle)
    assert float((old == (p.y < 4)).double().mean()) > 0.95
    after, k = C.discover(p, net, p.y < 4, generator=g, steps=20, clusters=2)
    assert k == 2 and p.judge(C.nearest_proxy(after, p.x))["All"] > 0.95
    assert torch.equal(C.first_split(net, p.x, -1.1), torch.ones(360, dtype=torch.bool))
