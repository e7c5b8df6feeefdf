"""DeeperCluster's parts: hierarchy, turns, two-level loss."""

import pytest
import torch
from torch.autograd import gradcheck

from labcode.clustering import deep_clustering as D


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_hierarchy_nests():
    x = torch.randn(300, 5, generator=generator()) + 6 * torch.eye(5)[torch.arange(300) % 2]
    above, below = D.hierarchy(x, 2, 6, dim=4)
    assert above.unique().tolist() == [0, 1] and int(below.max()) == 2
    one, flat = D.hierarchy(x, 1, 6, dim=4)
    assert not bool(one.any()) and len(flat.unique()) == 6
    nothing = D.hierarchy(x, 1, 1, dim=4)
    assert not bool(nothing[0].any()) and not bool(nothing[1].any())
    for m, k in ((2, 5), (0, 4), (4, 2)):
        with pytest.raises(ValueError, match="k must be"):
            D.hierarchy(x, m, k)


def test_rotated_turns_each_by_its_own():
    x = torch.arange(4.0).view(1, 1, 2, 2).repeat(4, 1, 1, 1)
    turned = D.rotated(x, torch.arange(4))
    for i in range(4):
        assert torch.equal(turned[i], torch.rot90(x[i], i, (1, 2)))
    assert torch.equal(D.rotated(turned, (4 - torch.arange(4)) % 4), x)
    with pytest.raises(ValueError, match="turns"):
        D.rotated(x, torch.full((4,), 4))


def test_two_level_loss_is_the_loop():
    g = generator()
    z, upper, lower = (torch.randn(*s, generator=g).double() for s in ((6, 3), (4, 3), (4, 5, 3)))
    above, below = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([4, 0, 1, 2, 3, 4])
    total = 0.0
    for i in range(6):
        first = torch.stack([z[i] @ w for w in upper]).log_softmax(0)[above[i]]
        second = torch.stack([z[i] @ w for w in lower[above[i]]]).log_softmax(0)[below[i]]
        total -= float(first + second)
    assert float(D.two_level_loss(z, upper, lower, above, below)) == pytest.approx(total / 6, rel=1e-10)
    tensors = tuple(t.requires_grad_() for t in (z, upper, lower))
    assert gradcheck(lambda *t: D.two_level_loss(*t, above, below), tensors)
    alone = D.two_level_loss(z, upper[:1], lower[:1, :1], torch.zeros_like(above), torch.zeros_like(below))
    assert float(alone) == 0  # one class, one sub-class: nothing to learn
    wrong = {
        "upper": (z, upper[:, :2], lower, above, below), "lower": (z, upper, lower[:3], above, below),
        "above": (z, upper, lower, above + 1, below), "below": (z, upper, lower, above, below[:2]),
    }  # fmt: skip
    for name, bad in wrong.items():
        with pytest.raises(ValueError, match=name):
            D.two_level_loss(*bad)


def test_shuffled_clusters_keep_their_sizes():
    g = generator()
    images = torch.randn(60, 1, 4, 4, generator=g) + 4 * (torch.arange(60) % 2)[:, None, None, None]
    options = dict(see=lambda x, g: x, embed=lambda net: net(images).detach(), width=5, rounds=1, steps=1, batch_size=8)
    found = []
    for shuffled in (False, True):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 5))
        found.append(D.deepercluster(net, images, 2, 4, generator=generator(), shuffled=shuffled, **options).clusters)
    assert not torch.equal(*found) and torch.equal(*(c.sort().values for c in found))
